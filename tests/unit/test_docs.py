"""The pages say what the program does: every key, command and exit code; links lead somewhere, examples hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from testbed import cli
from testbed.exits import Exit
from testbed.facts import Kind
from testbed.scenario import load_scenario
from testbed.scenario import model as scenario_model
from testbed.scenario.model_base import Model

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path.relative_to(ROOT) for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")))


def page(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def examples() -> Iterator[str]:
    for name in PAGES:
        for block in re.findall(r"(?ms)^```yaml\n(.*?)^```", page(str(name))):
            if block.startswith("title:"):
                yield block


def models() -> Iterator[type[BaseModel]]:
    for value in vars(scenario_model).values():
        if isinstance(value, type) and issubclass(value, Model):
            yield value


def test_the_reference_names_every_key_of_the_scenario_file() -> None:
    text = page("docs/scenarios.md")
    keys = {field.alias or key for model in models() for key, field in model.model_fields.items()}
    assert len(keys) > 40
    assert not {key for key in keys if not re.search(rf"`[^`]*\b{key}\b[^`]*`", text)}


def test_the_reference_names_every_kind_of_fact() -> None:
    assert not {kind.value for kind in Kind if f"`{kind.value}`" not in page("docs/scenarios.md")}


def test_the_readme_names_every_command_and_every_exit_code() -> None:
    text = page("README.md")
    commands = {(command.name or getattr(command.callback, "__name__", "")) for command in cli.app.registered_commands}
    assert {"run", "doctor"} <= commands
    assert not {command for command in commands if not re.search(rf"`(testbed )?{command}\b", text)}
    assert not {code for code in Exit if f"**{int(code)}**" not in text}


def test_the_readme_opens_with_the_two_commands() -> None:
    lines = [line.strip() for line in page("README.md").splitlines() if line.strip()]
    assert lines[1].startswith("make demo")
    assert lines[2].startswith("make test")


@pytest.mark.parametrize("name", PAGES, ids=str)
def test_every_link_inside_the_project_leads_to_a_file(name: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page(str(name)))
    assert not [target for target in targets if not (ROOT / name.parent / target).exists()]


@pytest.mark.parametrize("text", sorted(set(examples())), ids=lambda text: text.splitlines()[0])
def test_every_whole_scenario_in_the_pages_is_a_right_one(text: str, tmp_path: Path) -> None:
    file = tmp_path / "example.yaml"
    file.write_text(text, "utf-8")
    assert {"without", "with"} <= set(load_scenario(file).variants)


def test_the_pages_of_shipped_scenarios_try_overrides_that_load() -> None:
    found = re.findall(r"testbed run (\S+)((?: --set \S+)+)", page("docs/what-a-vpn-hides.md"))
    assert found
    for scenario, options in found:
        load_scenario(ROOT / "scenarios" / f"{scenario}.yaml", options.replace("--set", "").split())

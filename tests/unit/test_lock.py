"""The lock files install the same packages everywhere, with no compiler and from whatever mirror pip is set up for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("requirements.lock", "requirements-test.lock")
ENTRY = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9-]*)==(?P<version>[A-Za-z0-9.+!]+)( ; (?P<marker>[^\\]+))? \\\n"
    r"(?P<hashes>(    --hash=sha256:[0-9a-f]{64}( \\)?\n)+)"
)


def read_lock(name: str) -> tuple[dict[str, str], str]:
    """Versions by name, and what is left of the file without its entries and comments."""
    text = (ROOT / name).read_text("utf-8")
    versions = {match["name"]: match["version"] for match in ENTRY.finditer(text)}
    rest = re.sub(r"(?m)^ *#.*\n", "", ENTRY.sub("", text))
    return versions, rest


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_is_names_versions_and_hashes_and_nothing_else(lock: str) -> None:
    versions, rest = read_lock(lock)
    assert versions
    assert rest == ""


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text("utf-8")
    assert not re.findall(r"(?i)\w+://\S*|--(?:extra-)?index-url|--find-links|--trusted-host| @ \S+|/\w+/\w+", text)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_every_package_that_the_project_names(lock: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    groups = project["dependency-groups"]
    named = project["project"]["dependencies"] + groups["build"] + (groups["test"] if "test" in lock else [])
    names = {
        re.split(r"[<>=!~\[; ]", requirement)[0].lower().replace(".", "-").replace("_", "-") for requirement in named
    }
    assert names <= read_lock(lock)[0].keys()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_python_gets_the_same_version_of_a_package(lock: str) -> None:
    """What holds on one Python then holds on all; mypy could not read a library's types for newer Pythons alone."""
    names = [match["name"] for match in ENTRY.finditer((ROOT / lock).read_text("utf-8"))]
    assert sorted(set(names)) == sorted(names)


def test_the_test_lock_contains_the_other_lock() -> None:
    run, test = read_lock(LOCKS[0])[0], read_lock(LOCKS[1])[0]
    assert run.items() <= test.items()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_platform_has_more_than_one_hash_to_choose_from(lock: str) -> None:
    """Wheels that carry compiled code differ per Python and machine: four Pythons, two architectures, one source."""
    text = (ROOT / lock).read_text("utf-8")
    hashes = {match["name"]: match["hashes"].count("--hash") for match in ENTRY.finditer(text)}
    compiled = {"cffi", "markupsafe", "pydantic-core", "numpy", "brotli"}
    compiled |= {"coverage", "librt"} if "test" in lock else set()
    assert all(hashes[name] >= 9 for name in compiled)

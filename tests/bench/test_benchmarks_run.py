"""Every benchmark runs, with tiny sizes, and says what it measured. No test judges a time: `make bench` prints them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench.__main__ import NAMES, main
from tests.bench.measured import Table, compared, interleaved, render

pytestmark = [pytest.mark.interop]


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_prints_its_tables_and_writes_every_value(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "--small", "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / f"{name}.json").read_text())
    assert written["machine"]["cpus"] > 0
    assert written["tables"]
    printed = capfd.readouterr().out
    for table in written["tables"]:
        assert table["title"] in printed
        assert table["rows"]
        for row in table["rows"]:
            assert f"| {row['name']} |" in printed
            assert row["values"]


def test_an_unknown_benchmark_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["speed"])
    assert refused.value.code == 2
    assert (
        "no benchmark speed; there are lab, run, tap, observer, search, dataplane, native, clients"
        in capsys.readouterr().err
    )


def test_contestants_take_turns() -> None:
    order: list[str] = []

    def contestant(name: str) -> float:
        order.append(name)
        return 1.0

    interleaved({name: lambda name=name: contestant(name) for name in "ab"}, 3)  # type: ignore[misc]
    assert order == ["a", "b"] * 3


def test_a_ratio_is_that_of_the_medians_to_the_base() -> None:
    ours, base = compared({"ours": [1.0, 2.0, 90.0], "base": [4.0, 5.0, 3.0]}, "ms", "base", {})
    assert (ours.median, ours.ratio, ours.ratio_to) == (2.0, 0.5, "base")
    assert base.ratio is None
    assert "| ours | 2 ms | 1 – 90 | 0.5 × base |  |" in render(Table("a table", (ours, base)))

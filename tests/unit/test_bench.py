"""The pure parts of `testbed bench`: ratios, tables, the drawing, and what the command line may say."""

from __future__ import annotations

import select
import signal
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from testbed.bench.command import BadOrder, order
from testbed.bench.contenders import CONTENDERS, Keys, own_contender
from testbed.bench.model import GROUPS, MEASURES, BenchResult, Cell, Samples, percentile
from testbed.bench.plot import bench_plot
from testbed.bench.run import Order, missing_packages
from testbed.bench.stage import Round
from testbed.bench.story import Told, expected_seconds, longest_seconds, played, stories
from testbed.bench.tables import figure
from testbed.bench.text import bench_markdown, bench_text
from testbed.tunnels.ends import in_directory

MACHINE = {
    "cpu": "a processor",
    "cpus": 2,
    "kernel": "6.1",
    "python": "3.11.2",
    "load": [0.5, 0.1, 0.1],
    "measured_at": "2026-01-01T00:00:00+0000",
    "programs": {"openvpn": "2.6.14"},
}
NO_OWN = (None, None, None)


def result_of(title: str = "openvpn as it comes") -> BenchResult:
    samples = Samples()
    for none, other in ((4.0, 1.0), (8.0, 1.5), (6.0, 3.0)):
        samples.add("none", {"tcp_up_1": none})
        samples.add("openvpn", {"tcp_up_1": other, "start": 40.0})
    titles = {"none": "no tunnel", "openvpn": title}
    return BenchResult(
        ("none", "openvpn"),
        titles,
        samples.cells(),
        MACHINE,
        3,
        2,
        rivals={"openvpn": ("tinc", "none")},
        missing=("tinc: not installed",),
        problems=("own: \x1b[2Jended",),
        notes=("the time given was over",),
    )


def order_of(*names: str, groups: tuple[str, ...] = ()) -> Order:
    return order(names, NO_OWN, groups, 3, 2)


def test_a_cell_is_the_median_of_its_rounds_with_least_and_most() -> None:
    cell = Cell((3.0, 1.0, 2.0))
    assert (cell.median, cell.least, cell.most) == (2.0, 1.0, 3.0)


def test_a_ratio_is_that_of_two_medians_and_there_is_none_without_a_baseline() -> None:
    result = result_of()
    assert result.ratio("openvpn", "tcp_up_1") == 1.5 / 6.0
    assert result.ratio("openvpn", "start") is None
    assert result.ratio("tinc", "tcp_up_1") is None


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (0.0, 1), (1.0, 100)])
def test_a_percentile_is_a_value_that_was_measured(share: float, expected: int) -> None:
    assert percentile(list(range(100, 0, -1)), share) == expected


def test_the_text_has_median_spread_and_ratio_and_names_what_was_left_out_and_what_failed() -> None:
    text = bench_text(result_of())
    assert "1.5 (1-3) · 0.25x" in text
    assert "6 (4-8)\n" in text
    assert "left out  tinc: not installed" in text
    assert "note      the time given was over" in text
    assert "\x1b" not in text
    assert "openvpn 2.6.14" in text


def test_a_table_that_is_too_wide_goes_on_below_and_loses_no_cell() -> None:
    narrow, wide = bench_text(result_of(), 40), bench_text(result_of(), 200)
    assert {word for word in wide.split() if word[0].isdigit()} <= set(narrow.split())
    tables = narrow[narrow.index("TCP through") : narrow.index("What it costs")]
    assert max(len(line) for line in tables.splitlines()) <= 40


def test_no_two_measures_have_the_same_title() -> None:
    assert len({measure.title for measure in MEASURES}) == len(MEASURES)


def test_a_group_that_nobody_measured_has_no_table() -> None:
    assert "round trip" not in bench_text(result_of())


def test_a_contender_is_compared_with_its_rivals_that_have_figures_and_with_nobody_else() -> None:
    result = result_of()
    assert list(result.pairs()) == [("openvpn", "none")]
    assert result.to_dict()["ratios"] == {"openvpn": {"none": {"tcp_up_1": 0.25}}}
    ratios = bench_text(result).partition("Ratios")[2]
    assert "to none" in ratios
    assert "↑ 1 stream up  0.25\n" in ratios
    assert "start" not in ratios.partition("\n\n")[0]  # no tunnel starts in no time: there is nothing to compare with


def test_markdown_has_the_same_figures_in_tables_of_equal_columns() -> None:
    page = bench_markdown(result_of())
    table = [line for line in page.partition("**TCP through the tunnel**")[2].partition("**")[0].splitlines() if line]
    assert table[0] == "|  | 1 stream up (Gbit/s) |"
    assert "| openvpn | 1.5 (1-3) · 0.25x |" in table
    assert {line.count("|") for line in table} == {3}
    assert "|  | openvpn to none |" in page
    assert "\x1b" not in page


def test_the_time_a_run_is_given_is_told_in_minutes_and_kept_in_seconds() -> None:
    assert order([], NO_OWN, [], 3, 2, 1.5).limit_s == 90
    assert order_of().limit_s is None


def test_every_group_has_a_story_that_measures_it_and_costs_time() -> None:
    for group in GROUPS:
        (story,) = stories((group,))
        one = Round(CONTENDERS["tinc"], Keys(), (group,), 2)
        longer = Round(CONTENDERS["tinc"], Keys(), (group,), 20)
        assert 0 < expected_seconds(story, one) < longest_seconds(story, one)
        assert expected_seconds(story, longer) >= expected_seconds(story, one)
    assert len(stories(tuple(GROUPS))) == 3


def test_a_story_that_takes_too_long_is_given_up_and_keeps_its_figures() -> None:
    def endless(_: Round, told: Told) -> None:
        told.figures["tcp_up_1"] = 1.0
        while True:
            select.select([], [], [], 60)

    former = signal.getsignal(signal.SIGALRM)
    told = played(endless, Round(CONTENDERS["none"], Keys(), ("tcp",), 1), 0.05, None)
    signal.signal(signal.SIGALRM, former)
    assert told == {"figures": {"tcp_up_1": 1.0}, "problems": ["not done after 0 s"], "fatal": True}


def test_pairs_are_openvpn_and_everything_that_is_compared_with_one_openvpn() -> None:
    names = {entry.name for entry in order_of("pairs").contenders}
    assert {"none", "openvpn", "vpn-to-openvpn", "openvpn-to-vpn"} <= names
    for entry in order_of("pairs").contenders:
        assert set(entry.rivals) <= names


def test_the_drawing_is_well_formed_and_a_title_in_it_stays_text() -> None:
    drawing = bench_plot(result_of("<script>alert(1)</script>"))
    root = ElementTree.fromstring(drawing)
    assert root.tag.endswith("svg")
    assert "<script" not in drawing
    assert "alert(1)" in "".join(root.itertext())
    assert len(root.findall(".//{*}rect")) == 3  # two in one measure, one in the other


def test_json_names_every_measure_with_its_values() -> None:
    written = result_of().to_dict()
    assert written["contenders"]["openvpn"]["measures"]["tcp_up_1"] == {
        "title": "1 stream up, Gbit/s",
        "median": 1.5,
        "min": 1.0,
        "max": 3.0,
        "values": [1.0, 1.5, 3.0],
        "ratio": 0.25,
    }


@pytest.mark.parametrize(("value", "text"), [(1234.5, "1234"), (12.34, "12.3"), (0.01234, "0.0123")])
def test_a_figure_has_three_digits_that_count_and_no_exponent(value: float, text: str) -> None:
    assert figure(value) == text


def test_keys_of_measures_are_unique() -> None:
    assert len({measure.key for measure in MEASURES}) == len(MEASURES)


def test_the_baseline_is_always_measured_and_first() -> None:
    assert [entry.name for entry in order_of("fastd", "vpn", "fastd").contenders] == ["none", "fastd", "vpn"]


@pytest.mark.parametrize(
    ("names", "own", "groups", "words"),
    [
        (["opnvpn"], NO_OWN, [], "did you mean openvpn?"),
        ([], NO_OWN, ["tpc"], "did you mean tcp?"),
        ([], ("server", None, None), [], "missing: --own-client, --own-address"),
        ([], ("server", "client", "fe80::1"), [], "IPv4 address inside the tunnel"),
        ([], ('server "', "client", "10.0.0.1"), [], "cannot be split into words"),
    ],
)
def test_a_mistake_is_named_with_what_would_be_right(
    names: list[str], own: tuple[str | None, str | None, str | None], groups: list[str], words: str
) -> None:
    with pytest.raises(BadOrder, match=r"\w") as caught:
        order(names, own, groups, 1, 1)
    assert words in str(caught.value)


def test_a_vpn_of_ones_own_alone_is_measured_beside_no_tunnel() -> None:
    wanted = order([], ("srv --listen {server}", "cli 'a b' {server} {client}", "10.0.0.1"), [], 1, 1)
    assert [entry.name for entry in wanted.contenders] == ["none", "own"]
    own = wanted.contenders[1]
    assert (own.folder, own.rivals) == (str(Path.cwd()), ("none",))
    assert own.make is not None
    ends = own.make(Keys())
    assert ends.server.argv == ("srv", "--listen", "198.51.100.10")
    assert ends.client.argv == ("cli", "a b", "198.51.100.10", "192.168.0.13")


def test_every_contender_is_told_where_its_files_are_and_no_brace_is_left() -> None:
    keys = Keys("/keys", (("a", "b"), ("c", "d")), (("e", "f"), ("g", "h")), (("i", "j"), ("k", "l")))
    for entry in CONTENDERS.values():
        if entry.make is None:
            continue
        ends = entry.make(keys)
        for end in (in_directory(ends.server, "/there"), in_directory(ends.client, "/there")):
            assert not [word for word in (*end.argv, *end.files.values()) if "{dir}" in word]
            assert any("/there" in word for word in end.argv)


def test_private_keys_do_not_show() -> None:
    assert "secret" not in repr(Keys(wireguard=(("secret", "b"), ("secret", "d"))))


def test_what_a_contender_lacks_is_named_by_its_package() -> None:
    entry = own_contender("a", "b", "10.0.0.1", "/", ())
    assert missing_packages(entry) == []
    lacking = {**CONTENDERS["tinc"].packages, "no-such-program": "its-package"}
    assert "its-package" in missing_packages(type(entry)("x", "x", None, lacking))

"""The terminal report: readable at 80 columns, in a pipe, without colour; hostile text stays text."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from testbed.report.terminal import render_terminal
from testbed.report.text import cell_width
from testbed.result import Evidence, RunResult, Verdict
from tests.unit.test_report_sample import HOSTILE_HEADER, sample_result, sample_variant


def render(result: RunResult, width: int = 80, *, terminal: bool = False, encoding: str = "utf-8") -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="")
    console = Console(
        file=stream,
        width=width,
        force_terminal=terminal,
        color_system="truecolor" if terminal else None,
        _environ={},  # what TERM and COLUMNS say where the tests run is another question
    )
    render_terminal(result, console, html_path="runs/1/report.html")
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [60, 80, 132, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    assert max(cell_width(line) for line in render(sample_result(), width).splitlines()) <= width


def test_every_distinct_fact_is_on_one_line_with_a_verdict_in_words_for_each_variant() -> None:
    text = render(sample_result())
    assert re.search(r"your address on the LAN 192\.168\.0\.13 +● SEEN +● SEEN +● SEEN", text)
    assert re.search(r"the server's address \[server-address\] +— +○ hidden +○ hidden", text)
    assert re.search(r"the content \[http-body\].* +— +○ hidden +\? unproven", text)
    assert re.search(r"intranet\.corp\.example +✗ failed", text)
    assert re.search(
        r"seen, of what all variants did +17 of 18 +1 of 18 +17 of 18\s+seen, of what only some did +— +0 of 6 +1 of 6",
        text,
    )
    assert text.index("Your ISP") < text.index("The server www.example.com")


def test_facts_of_one_site_whose_verdicts_agree_share_a_line() -> None:
    text = render(sample_result())
    assert len(re.findall(r"http: name, page, header, content +● SEEN +○ hidden +● SEEN", text)) == 2
    assert text.count("[dns-name]") == 4  # one per site, and the leak


def test_what_was_seen_only_in_part_says_how_many() -> None:
    result = sample_result()
    split = result.variants["split"]
    first = next(row for row in split.exposure if row.fact.kind == "http-url" and row.fact.action == "2-http")
    second = replace(first, fact=replace(first.fact, action="4-http", value="http://x/2"), verdict=Verdict.HIDDEN)
    partly = replace(split, exposure=(*split.exposure, second))
    text = render(replace(result, variants={**result.variants, "split": partly}))
    assert re.search(r"http: the page's address \[http-url\] .*◐ 1 of 2", text)
    assert "◐ some were seen" in text


def test_the_clients_routes_and_the_way_to_each_site_are_shown_per_variant() -> None:
    text = render(sample_result())
    assert re.search(r"www\.example\.com \(93\.184\.216\.34\) +→ direct +⇒ tunnel +→ direct", text)
    assert re.search(r"intranet\.corp\.example \(10\.20\.0\.10\) +→ direct +⇒ tunnel +⇒ tunnel", text)
    assert "tun0 (tunnel) ← 0.0.0.0/1, 128.0.0.0/1, 2000::/3; eth0 ←" in text
    assert "with/isp.pcapng: 135 packets, 61.2 kB, 0 dropped" in text


def test_a_site_without_a_way_and_two_addresses_that_go_different_ways_are_told_apart() -> None:
    result = sample_result()
    row = {"site": "x.example", "interface": "eth0", "gateway": None, "source": None, "error": None}
    ways = ({**row, "address": "192.0.2.1", "interface": "tun0"}, {**row, "address": "192.0.2.2", "error": "none"})
    text = render(replace(result, variants={"with": replace(result.variants["with"], egress=ways)}))
    assert re.search(r"x\.example \(192\.0\.2\.1\) +⇒ tunnel", text)
    assert re.search(r"x\.example \(192\.0\.2\.2\) +✗ no way", text)


def test_why_an_action_failed_is_said_in_its_variant() -> None:
    assert re.search(r"failed +opened http://intranet\.corp\.example/wiki: no such name:", render(sample_result()))


def test_only_expectations_that_fail_are_listed_with_reason_and_packets() -> None:
    text = render(sample_result())
    assert re.search(r"✗ split: isp hides http-body .*\n +1 fact is unproven: no control", text)
    assert "with: isp sees tunnel" not in text
    assert text.splitlines()[-2:] == ["✗ FAIL  5 of 6 expectations hold", "Report: runs/1/report.html"]
    held = render(sample_result(ok=True))
    assert "✓ PASS  6 of 6 expectations hold" in held
    assert "do not hold" not in held


def test_the_packet_that_a_reason_quotes_stands_once_below_it() -> None:
    proof = Evidence("with/isp.pcapng", 9, 1.0, 'dns.qry.name == "a"')
    proofs = (proof, proof, *(replace(proof, frame=frame) for frame in range(10, 14)))
    reason = 'a was looked up in clear: with/isp.pcapng frame 9 (dns.qry.name == "a"): the DNS server is outside'
    failing = replace(sample_result().expectations[-1], reason=reason, evidence=proofs)
    text = render(replace(sample_result(), expectations=(failing,)))
    assert "a was looked up in clear: the DNS server is outside" in text
    assert text.count('with/isp.pcapng frame 9: dns.qry.name == "a"') == 1
    assert text.count("with/isp.pcapng frame") == 3
    assert "and 2 more" in text


def test_captured_control_characters_never_reach_the_terminal() -> None:
    result = sample_result()
    text = render(replace(result, warnings=(HOSTILE_HEADER,), scenario={"title": HOSTILE_HEADER}), 200)
    assert "\\x1b[31m\\u202egpj.exe" in text
    assert "[bold]x[/bold]" in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e]", text)


def test_on_a_colour_terminal_the_only_escapes_are_the_reports_own() -> None:
    text = render(sample_result(), 200, terminal=True)
    assert "\x1b[1;31m● SEEN" in text
    assert re.sub(r"\x1b\[[0-9;]*m", "", text) == render(sample_result(), 200)


def test_a_terminal_without_unicode_gets_words_and_ascii_signs() -> None:
    plain = replace(sample_result(), warnings=())
    text = render(plain, encoding="ascii")
    assert "* SEEN" in text
    assert "o hidden" in text
    assert "tun0 (tunnel) <- 0.0.0.0/1" in text
    assert "FAIL  5 of 6" in text


def test_more_variants_than_fit_continue_in_a_second_table() -> None:
    names = [f"variant{number}" for number in range(7)]
    variants = {name: replace(sample_variant("with"), name=name) for name in names}
    text = render(replace(sample_result(), variants=variants))
    matrix = text[: text.index("The other observers")]
    assert all(name in matrix for name in names)
    assert matrix.count("your address") > 1


def test_a_dropped_packet_and_a_warning_are_said() -> None:
    result = sample_result()
    variant = result.variants["with"]
    dropping = replace(variant, taps=(replace(variant.taps[0], dropped=1234),))
    text = render(replace(result, variants={"with": dropping}))
    assert "1,234 dropped" in text
    assert "split: the tap saw 1 frame with a bad checksum" in text


def test_an_empty_result_renders() -> None:
    assert "no expectations" in render(RunResult({}, 1, True, {}, (), {}))


def test_a_run_that_was_asked_nothing_has_not_passed() -> None:
    text = render(replace(sample_result(ok=True), expectations=()))
    assert "DONE  nothing was asked" in text
    assert "PASS" not in text


def test_the_map_of_inner_packets_is_said_or_why_there_is_none() -> None:
    result = sample_result()
    mapped = {
        "mapped": True,
        "inner_packets": 82,
        "inner_packets_mapped": 80,
        "overhead_octets": {"mean": 52.04},
        "delay_seconds": {"up": {"median": 0.0002}, "down": {}},
        "flows_in_all": 14,
        "flows_alone": 9,
    }
    said = replace(result.variants["with"], ground_truth=mapped)
    text = " ".join(render(replace(result, variants={"with": said})).split())
    assert "80 of 82 packets linked to those that carried them; 52 octets more each; 0.20 ms later up" in text
    assert "9 of 14 flows" in text
    unknown = replace(said, ground_truth={"mapped": False, "reason": "no keys"})
    assert "no inner-outer.csv, which packet carried which: no keys" in render(
        replace(result, variants={"with": unknown})
    )


def test_on_a_wide_terminal_verdicts_stay_near_their_facts() -> None:
    console = Console(file=io.StringIO(), width=220)
    with console.capture() as capture:
        render_terminal(sample_result(), console)
    line = next(line for line in capture.get().splitlines() if "your address on the LAN" in line)
    assert line.index("SEEN") < 80

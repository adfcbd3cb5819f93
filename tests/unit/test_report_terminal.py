"""The terminal report: readable at 80 columns, in a pipe, without colour; hostile text stays text."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from testbed.report.terminal import render_terminal
from testbed.report.text import cell_width
from testbed.result import RunResult
from tests.unit.test_report_sample import sample_result, sample_variant


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


def test_every_fact_is_a_row_with_a_verdict_in_words_for_each_variant() -> None:
    text = render(sample_result())
    assert re.search(r"the page's address \[http-url\] +● SEEN +○ hidden +● SEEN", text)
    assert re.search(r"the content \[http-body\] +— +○ hidden +\? unproven", text)
    assert re.search(r"opened http://intranet\.corp\.example/wiki +✗ failed", text)
    assert re.search(r"seen, of what the client did +27 of 28 +1 of 34 +28 of 34", text)
    assert text.index("Your ISP") < text.index("The server www.example.com")


def test_the_clients_routes_and_the_way_to_each_site_are_shown_per_variant() -> None:
    text = render(sample_result())
    assert "www.example.com (93.184.216.34) → eth0 via 192.168.0.1" in text
    assert "www.example.com (93.184.216.34) → tun0 via 10.8.0.1 (tunnel)" in text
    assert re.search(r"0\.0\.0\.0/1 +→ tun0 via 10\.8\.0\.1 \(tunnel\)", text)
    assert "135 packets, 61.2 kB, 0 dropped" in text


def test_expectations_give_their_reasons_and_the_last_lines_the_verdict_and_the_file() -> None:
    text = render(sample_result())
    assert re.search(r"✗ split: isp hides http-body .*\n +1 fact is unproven: no control", text)
    assert text.splitlines()[-2:] == ["✗ FAIL  5 of 6 expectations hold", "Report: runs/1/report.html"]
    assert "✓ PASS  6 of 6 expectations hold" in render(sample_result(ok=True))


def test_captured_control_characters_never_reach_the_terminal() -> None:
    text = render(sample_result(), 200)
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
    assert "-> tun0 via 10.8.0.1 (tunnel)" in text
    assert "FAIL  5 of 6" in text


def test_more_variants_than_fit_continue_in_a_second_table() -> None:
    names = [f"variant{number}" for number in range(7)]
    variants = {name: replace(sample_variant("with"), name=name) for name in names}
    text = render(replace(sample_result(), variants=variants))
    matrix = text[: text.index("The server")]
    assert all(name in matrix for name in names)
    assert matrix.count("looked up www.example.com") > 1


def test_a_dropped_packet_and_a_warning_are_said() -> None:
    result = sample_result()
    variant = result.variants["with"]
    dropping = replace(variant, taps=(replace(variant.taps[0], dropped=1234),))
    text = render(replace(result, variants={"with": dropping}))
    assert "1,234 dropped" in text
    assert "split: the tap saw 1 frame with a bad checksum" in text


def test_an_empty_result_renders() -> None:
    assert "no expectations" in render(RunResult({}, 1, True, {}, (), {}))

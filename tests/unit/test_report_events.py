"""The events of a scenario's timeline in the reports."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from testbed.report.html import render_html
from testbed.report.json import from_json, to_json
from testbed.report.terminal import render_terminal
from testbed.result import RunResult
from tests.unit.test_report_sample import sample_result

HAPPENED = {"at": 2.0, "after": 2.0151, "time": 1e9, "words": "vpn-server gets SIGKILL", "ok": True, "error": ""}
NEVER = {
    "at": 9.0,
    "after": None,
    "time": None,
    "words": "client runs <b>x</b>\x1b[31m",
    "ok": False,
    "error": "too late",
}


@pytest.fixture
def result() -> RunResult:
    sample = sample_result()
    with_events = replace(sample.variants["with"], events=(HAPPENED, NEVER))
    return replace(sample, variants={**sample.variants, "with": with_events})


def test_the_terminal_says_when_each_event_really_happened_or_why_not(result: RunResult) -> None:
    console = Console(file=io.StringIO(), width=120)
    with console.capture() as capture:
        render_terminal(result, console)
    text = capture.get()
    assert "after 2.02 s: vpn-server gets SIGKILL" in text
    assert "never: client runs <b>x</b>" in text
    assert "too late" in text
    assert "\x1b[31m" not in text


def test_the_page_says_so_too_and_what_an_event_ran_stays_text(result: RunResult) -> None:
    page = render_html(result)
    assert "What happened meanwhile: with" in page
    assert "2.015" in page
    assert "<b>x</b>" not in page
    assert "&lt;b&gt;x&lt;/b&gt;" in page
    assert "\x1b" not in page


def test_events_come_back_from_json_as_they_were(result: RunResult) -> None:
    assert from_json(to_json(result)).variants["with"].events == (HAPPENED, NEVER)


def test_a_run_without_events_has_no_word_of_them() -> None:
    assert "What happened meanwhile" not in render_html(sample_result())

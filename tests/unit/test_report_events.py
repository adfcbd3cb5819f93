"""The events of a scenario's timeline in the reports."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from testbed.report.html import render_html
from testbed.report.json import from_json, to_json
from testbed.report.summary import answer
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


def terminal(result: RunResult) -> str:
    console = Console(file=io.StringIO(), width=120)
    with console.capture() as capture:
        render_terminal(result, console)
    return " ".join(capture.get().split())


LATER = {
    "site": "www.example.com",
    "address": "93.184.216.34",
    "interface": "eth0",
    "gateway": "192.168.0.1",
    "source": "192.168.0.13",
    "error": None,
}


def test_a_way_that_an_event_changed_stands_beside_the_one_before_everywhere() -> None:
    sample = sample_result()
    changed = replace(sample.variants["with"], egress_after=(LATER,))
    result = from_json(to_json(replace(sample, variants={**sample.variants, "with": changed})))
    words = "beside the tunnel, by eth0 via 192.168.0.1"
    assert f"www.example.com (93.184.216.34) {words}" in terminal(result)
    page = render_html(result)
    assert f"at the end: {words}" in page
    assert f"At the end: www.example.com (93.184.216.34) {words}." in page, "the drawing says so"
    assert "at the end" not in terminal(sample) + render_html(sample)


def test_the_answer_names_the_variant_it_means_where_several_tunnels_carry_everything() -> None:
    sample = sample_result()
    assert answer(sample).sentence.startswith("With the tunnel, your ISP sees")
    twice = replace(sample, variants={**sample.variants, "again": replace(sample.variants["with"], name="again")})
    assert answer(twice).sentence.startswith("With the tunnel (with), your ISP sees")


def test_the_answer_counts_each_leak_once_and_says_who_had_none() -> None:
    sample = sample_result()
    leak = {"kind": "dns-name", "value": "news.example.org", "action": "4-http", "evidence": []}
    twice = replace(sample.variants["split"], leaks=(leak, {**leak, "action": "5-http"}))
    result = replace(sample, variants={**sample.variants, "split": twice})
    assert "Leaked beside the tunnel: none in with, 1 in split" in answer(result).notes
    assert render_html(result).count("news.example.org</td>") == render_html(sample).count("news.example.org</td>")
    tight = replace(sample, variants={**sample.variants, "split": replace(twice, leaks=())})
    assert not any("Leaked" in note for note in answer(tight).notes)

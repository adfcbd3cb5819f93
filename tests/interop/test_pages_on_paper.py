"""The report and a lesson's page as Chromium prints them: nothing to press, no closed fold of the story, dark ink."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from testbed.lesson.exhibits import Exhibits
from testbed.lesson.page import lesson_page
from testbed.report.html import render_html
from testbed.scenario.lesson_values import Choice, Show, Step
from tests.interop.chromium import Chromium
from tests.unit.report_run import write_run
from tests.unit.test_report_sample import sample_packet_lists, sample_packets, sample_result

pytestmark = pytest.mark.interop


@pytest.fixture
def lesson(chromium: Chromium, tmp_path: Path) -> Chromium:
    exhibits = Exhibits(write_run(tmp_path), tmp_path)
    shows = (Show("without", "packet", "isp", None, "HTTP", None, 12),)
    step = Step("A step", "Know this.", "What?", (Choice("This", None), Choice("That", "otherwise")), shows, "Because.")
    path = tmp_path / "lesson.html"
    path.write_text(lesson_page("A lesson", [step, step], [1, 1], exhibits), encoding="utf-8")
    chromium.open(path)
    return chromium


def printed(page: Chromium) -> bytes:
    return base64.b64decode(page.call("Page.printToPDF", printBackground=True)["data"])


def pages(pdf: bytes) -> int:
    return len(re.findall(rb"/Type\s*/Page\b", pdf))


def folds(page: Chromium, selector: str) -> list[bool]:
    return list(page.value(f"[...document.querySelectorAll({selector!r})].map((one) => one.open)"))


def test_there_are_no_buttons_to_press_and_nothing_stays_cut_off(chromium: Chromium, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(render_html(sample_result(), sample_packets(), sample_packet_lists()), encoding="utf-8")
    chromium.open(path)
    chromium.call("Emulation.setEmulatedMedia", media="print")
    for selector in ("button.copy", "nav", "button.all"):
        assert not chromium.value(f"document.querySelector('{selector}').checkVisibility()"), selector
    assert chromium.value("getComputedStyle(document.querySelector('.hex')).maxHeight") == "none"
    assert chromium.value("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    chromium.call("Emulation.setEmulatedMedia", media="")


STORY = "#ladders > details.fold, #others > details, #twice > details, details.seal"


def test_the_folds_of_the_story_are_open_on_paper_and_as_they_were_afterwards(drawn: Chromium) -> None:
    before = folds(drawn, STORY)
    assert False in before, "nothing of the story is folded: the test would say nothing"
    assert True in before
    recorded = f"[...document.querySelectorAll({STORY!r})].every((one) => one.open)"
    drawn.value(f"addEventListener('beforeprint', () => {{ window.onPaper = {recorded} }})")
    printed(drawn)
    assert drawn.value("window.onPaper") is True
    drawn.value("dispatchEvent(new Event('afterprint'))")  # DevTools tells a page of the beginning alone
    assert folds(drawn, STORY) == before


def test_the_ink_is_dark_on_white_paper_though_the_screen_is_dark(drawn: Chromium) -> None:
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    ink = "getComputedStyle(document.body).color"
    seen = "getComputedStyle(document.querySelector('.cell.seen')).color"
    drawn.call("Emulation.setEmulatedMedia", media="screen", features=dark)
    on_screen = drawn.value(seen)
    drawn.call("Emulation.setEmulatedMedia", media="print", features=dark)
    assert drawn.value(ink) == "rgb(0, 0, 0)"
    assert drawn.value("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    assert drawn.value(seen) != on_screen


def test_no_heading_is_left_alone_at_the_foot_of_a_page(drawn: Chromium) -> None:
    drawn.call("Emulation.setEmulatedMedia", media="print")
    for selector in ("h2", "h3", "summary", "tr.action", "tr.moment", ".ladder > p"):
        assert drawn.value(f"getComputedStyle(document.querySelector('{selector}')).breakAfter") == "avoid", selector


def test_packets_nobody_opened_take_no_page_and_one_that_is_open_is_printed(drawn: Chromium) -> None:
    shown = "document.querySelector('#packets').checkVisibility()"
    drawn.call("Emulation.setEmulatedMedia", media="print")
    assert drawn.value(shown) is False
    drawn.value("document.querySelectorAll('#packets details').forEach((one) => { one.open = true; })")
    assert drawn.value(shown) is True


def test_a_lesson_prints_its_questions_and_with_the_answers_opened_these_too(lesson: Chromium) -> None:
    answers = "details.reveal"
    sheet = pages(printed(lesson))
    assert folds(lesson, answers) == [False, False]
    lesson.click("button.all")
    assert folds(lesson, answers) == [True, True]
    assert lesson.value("document.querySelector('button.all').textContent") == "Close all answers"
    assert pages(printed(lesson)) > sheet
    lesson.click("button.all")
    assert folds(lesson, answers) == [False, False]

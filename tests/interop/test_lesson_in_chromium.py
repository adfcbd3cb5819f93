"""A lesson's page in a real browser: nothing fails or is fetched, captured text stays text, answers are folded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testbed.lesson.exhibits import Exhibits
from testbed.lesson.page import lesson_page
from testbed.scenario.lesson_values import Choice, Show, Step
from tests.interop.chromium import Chromium
from tests.unit.report_run import HOSTILE_PATH, write_run

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """A lesson on captures with a request for a hostile page: one packet, a list, interfaces and routes."""
    folder = tmp_path_factory.mktemp("run")
    exhibits = Exhibits(write_run(folder), folder)
    shows = tuple(
        Show("without", what, "isp", None, "HTTP" if what == "packet" else None, None, 12)
        for what in ("packet", "packets", "interfaces", "routes")
    )
    choices = (Choice("<script>document.title='taken'</script>", None), Choice("That", "otherwise"))
    step = Step("A step", "Know this.", "What?", choices, shows, "Because.")
    path = folder / "lesson.html"
    path.write_text(lesson_page("A lesson & more", [step, step], [1, 1], exhibits), encoding="utf-8")
    browser = Chromium(tmp_path_factory.mktemp("profile"))
    browser.open(path)
    yield browser
    browser.close()


def test_it_opens_without_a_complaint_and_fetches_nothing(page: Chromium) -> None:
    complaints = page.of_method("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
    assert [event for event in complaints if event["params"].get("entry", {}).get("level") != "verbose"] == []
    requested = [event["params"]["request"]["url"] for event in page.of_method("Network.requestWillBeSent")]
    assert [url for url in requested[1:] if not url.startswith("data:")] == []


def test_what_was_captured_and_what_the_file_says_stays_text(page: Chromium) -> None:
    assert page.value("document.title") == "A lesson & more"
    assert page.value("document.querySelectorAll('script').length") == 1
    text = page.value("document.body.textContent")
    assert "<script>document.title='taken'</script>" in text
    assert HOSTILE_PATH in text


def test_answers_are_folded_until_somebody_opens_them(page: Chromium) -> None:
    shown = "document.querySelector('#step-2 .verdict').checkVisibility()"
    assert page.value(shown) is False
    page.click("#step-2 details > summary")
    assert page.value(shown) is True
    assert page.value("document.querySelector('#step-2 .opened').checkVisibility()") is True
    sizes = "[document.querySelector('#step-2 details p:not([class])'), document.querySelector('#step-2 > p')]"
    inside, outside = page.value(f"{sizes}.map((one) => getComputedStyle(one).fontSize)")
    assert inside == outside, "the answer is text like the question"


def test_each_kind_of_exhibit_is_there(page: Chromium) -> None:
    counts = "['.opened', 'svg', 'table'].map(s => document.querySelectorAll('#step-1 ' + s).length)"
    assert page.value(counts) == [1, 1, 2]

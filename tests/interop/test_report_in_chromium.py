"""The HTML report in a real browser: nothing fails, nothing is fetched, captured text stays text, cells open.

Chromium is driven over its DevTools protocol on two inherited pipes (`--remote-debugging-pipe`: JSON messages that
end in a zero octet), so the page is judged from outside: its Content-Security-Policy stays as it is and no check is
injected into the document. Clicks and keys are real input events.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.report.html import render_html
from tests.unit.test_report_sample import (
    HOSTILE_HEADER,
    HOSTILE_HOST,
    sample_packet_lists,
    sample_packets,
    sample_result,
)

pytestmark = pytest.mark.interop

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,1600"),
    *("--no-first-run", "--disable-quic", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--remote-debugging-pipe"),
)
_PATIENCE_S = 60.0


class Chromium:
    """A headless browser with one page, and all it reported about that page."""

    def __init__(self, profile: Path) -> None:
        commands_read, self._write = os.pipe()
        self._read, events_write = os.pipe()
        redirect = f'exec "$@" 3<&{commands_read} 4>&{events_write}'
        argv = ["bash", "-c", redirect, "bash", "chromium", *_FLAGS, f"--user-data-dir={profile}"]
        self._process = subprocess.Popen(
            argv,
            pass_fds=(commands_read, events_write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands_read)
        os.close(events_write)
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        self._session = None
        self.call("Browser.close")
        self._process.wait(_PATIENCE_S)
        os.close(self._read)
        os.close(self._write)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + _PATIENCE_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "chromium said nothing in time"
            chunk = os.read(self._read, 1 << 20)
            assert chunk, "chromium ended"
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\0", 1)
        return dict(json.loads(line))

    def open(self, path: Path) -> None:
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def value(self, expression: str) -> Any:
        """What an expression is in the page; DevTools evaluates beside the page's policy, not under it."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def click(self, selector: str) -> None:
        where = f"document.querySelector({json.dumps(selector)})"
        self.value(f"{where}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        x, y = self.value(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({where}.getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str, code: int, text: str = "") -> None:
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code,
                **({"text": text} if text and kind == "keyDown" else {}),
            )  # fmt: skip

    def of_method(self, *methods: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event.get("method") in methods]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    browser = Chromium(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def page(chromium: Chromium, tmp_path: Path) -> Chromium:
    path = tmp_path / "report.html"
    path.write_text(render_html(sample_result(), sample_packets(), sample_packet_lists()), encoding="utf-8")
    chromium.open(path)
    return chromium


def visible(selector: str) -> str:
    return f"document.querySelector({json.dumps(selector)}).getClientRects().length > 0"


def test_it_opens_without_a_console_error_and_fetches_nothing(page: Chromium) -> None:
    page.click("button.cell")
    complaints = [
        event
        for event in page.of_method("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
        if event["params"].get("entry", {}).get("level") != "verbose"
    ]
    assert complaints == []
    requested = [event["params"]["request"]["url"] for event in page.of_method("Network.requestWillBeSent")]
    assert requested[0].startswith("file://")
    assert [url for url in requested[1:] if not url.startswith("data:")] == []


def test_the_style_sheet_and_the_script_pass_the_policy(page: Chromium) -> None:
    assert page.value("document.documentElement.classList.contains('js')")
    assert page.value("getComputedStyle(document.querySelector('.matrix')).borderCollapse") == "collapse"


def test_the_policy_stops_a_script_that_is_not_the_reports_own(page: Chromium) -> None:
    page.value("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))")
    page.value("document.body.insertAdjacentHTML('beforeend', '<img src=http://192.0.2.1/x onerror=\"window.ran=2\">')")
    assert page.value("window.ran") is None


def test_hostile_strings_stay_text(page: Chromium) -> None:
    assert page.value("document.title") == "What does a VPN hide from your ISP?"
    assert page.value("document.querySelectorAll('script').length") == 1
    assert page.value("document.querySelectorAll('img, iframe, object, embed').length") == 0
    text = page.value("document.body.textContent")
    assert HOSTILE_HOST in text
    assert HOSTILE_HEADER.split("\x1b")[0] in text
    assert "\\x1b[31m\\u202egpj.exe [bold]x[/bold] {{ 7*7 }}" in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_a_cell_opens_and_closes_by_click(page: Chromium) -> None:
    row = "#" + page.value("document.querySelector('button.cell').getAttribute('aria-controls')")
    assert not page.value(visible(row))
    page.click("button.cell")
    assert page.value(visible(row))
    assert page.value("document.querySelector('button.cell').getAttribute('aria-expanded')") == "true"
    page.click("button.cell")
    assert not page.value(visible(row))


def test_a_cell_opens_by_keyboard_and_escape_closes_it(page: Chromium) -> None:
    page.value("document.querySelector('button.cell').focus()")
    row = "#" + page.value("document.querySelector('button.cell').getAttribute('aria-controls')")
    page.press("Enter", 13, "\r")
    assert page.value(visible(row))
    page.press("Escape", 27)
    assert not page.value(visible(row))
    assert page.value("document.activeElement === document.querySelector('button.cell')")


def test_tab_reaches_the_skip_link_first_and_shows_where_it_is(page: Chromium) -> None:
    page.press("Tab", 9)
    assert page.value("document.activeElement.className") == "skip"
    assert page.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_a_frame_opens_its_packet_in_place(page: Chromium) -> None:
    row = page.value("document.querySelector('#m1 a[data-packet]').closest('tr').id")
    page.click(f"button.cell[aria-controls='{row}']")
    page.click(f"#{row} a[data-packet]")
    assert page.value(f"document.querySelectorAll('#{row} .packet-slot .layer').length") == 4
    assert "GET /account" in page.value(f"document.querySelector('#{row} .packet-slot').textContent")


def test_a_cell_of_several_facts_lists_them_and_each_opens(page: Chromium) -> None:
    row = page.value("document.querySelectorAll('#m1 details.fact')[1].closest('tr').id")
    page.click(f"button.cell[aria-controls='{row}']")
    second = f"#{row} details.fact:nth-of-type(2)"
    assert not page.value(f"document.querySelector('{second}').open")
    page.click(f"{second} > summary")
    assert page.value(f"document.querySelector('{second}').open")
    assert page.value(visible(f"{second} .command"))


def test_on_paper_there_are_no_buttons_to_press_and_nothing_stays_cut_off(page: Chromium) -> None:
    page.call("Emulation.setEmulatedMedia", media="print")
    assert not page.value(visible("button.copy"))
    assert not page.value(visible("nav"))
    assert page.value("getComputedStyle(document.querySelector('.list .scroll')).maxHeight") == "none"
    assert page.value("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    page.call("Emulation.setEmulatedMedia", media="")


@pytest.mark.parametrize("width", [1280, 480])
def test_the_page_does_not_scroll_sideways(page: Chromium, width: int) -> None:
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    page.click("button.all")
    wide = page.value("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    page.call("Emulation.clearDeviceMetricsOverride")
    assert wide[0] <= wide[1]


def test_dark_and_light_differ_and_both_keep_text_readable(page: Chromium) -> None:
    grounds = set()
    for scheme in ("light", "dark"):
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        for selector in ("body", ".cell.seen", ".cell.hidden-fact", ".cell.unproven"):
            pair = page.value(
                f"(s => [s.color, s.backgroundColor])(getComputedStyle(document.querySelector('{selector}')))"
            )
            ground = (
                pair[1]
                if selector != "body"
                else page.value("getComputedStyle(document.documentElement).backgroundColor")
            )
            assert _contrast(pair[0], ground) >= 4.5, (scheme, selector, pair)
        grounds.add(page.value("getComputedStyle(document.documentElement).backgroundColor"))
    page.call("Emulation.setEmulatedMedia", features=[])
    assert len(grounds) == 2


def _contrast(one: str, other: str) -> float:
    """WCAG 2 contrast ratio of two `rgb(r, g, b)` colours."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(part) / 255 for part in colour.removeprefix("rgb(").rstrip(")").split(",")]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

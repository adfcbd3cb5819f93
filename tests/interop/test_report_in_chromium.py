"""The HTML report in a real browser: nothing fails, nothing is fetched, captured text stays text, cells open.

The page is judged from outside (see `chromium`), and so is what it makes of captures of a run on disk.
"""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from testbed.report.html import render_html
from tests.interop.chromium import Chromium
from tests.unit.report_run import HOSTILE_PATH
from tests.unit.test_report_sample import (
    HOSTILE_HEADER,
    HOSTILE_HOST,
    sample_packet_lists,
    sample_packets,
    sample_result,
)

pytestmark = pytest.mark.interop


@pytest.fixture
def page(chromium: Chromium, tmp_path: Path) -> Chromium:
    path = tmp_path / "report.html"
    path.write_text(render_html(sample_result(), sample_packets(), sample_packet_lists()), encoding="utf-8")
    chromium.open(path)
    return chromium


def complaints(page: Chromium) -> list[dict[str, Any]]:
    """What the browser found wrong with the page, or logged for it."""
    return [
        event
        for event in page.of_method("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
        if event["params"].get("entry", {}).get("level") != "verbose"
    ]


def visible(selector: str) -> str:
    return f"document.querySelector({json.dumps(selector)}).checkVisibility()"


def test_it_opens_without_a_console_error_and_fetches_nothing(page: Chromium) -> None:
    page.click("button.cell")
    assert complaints(page) == []
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


def test_a_cell_shows_its_first_packet_at_once_and_a_frame_number_another_one(page: Chromium) -> None:
    row = page.value("document.querySelector('#m1 a[data-packet]').closest('tr').id")
    page.click(f"button.cell[aria-controls='{row}']")
    title = f"document.querySelector('#{row} .packet-slot .slot-head b').textContent"
    first = page.value(title)
    page.click(f"#{row} li:nth-child(2) a[data-packet]")
    assert page.value(title) != first
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


@pytest.mark.parametrize("width", [1920, 1280, 400])
def test_the_page_does_not_scroll_sideways_with_everything_open(drawn: Chromium, width: int) -> None:
    drawn.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    drawn.click("button.all")
    drawn.value("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    wide = drawn.value("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide[0] <= wide[1]


@pytest.mark.parametrize(("variants", "width"), [(5, 400), (5, 1280), (9, 400), (9, 1280)])
def test_many_variants_scroll_in_their_table_and_not_the_page(
    chromium: Chromium, tmp_path: Path, variants: int, width: int
) -> None:
    result = sample_result()
    whole = result.variants["with"]
    many = {f"variant-{n}": replace(whole, name=f"variant-{n}") for n in range(variants)}
    path = tmp_path / "many.html"
    path.write_text(render_html(replace(result, variants=many, expectations=())), encoding="utf-8")
    chromium.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    chromium.open(path)
    wide = chromium.value("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    fact = chromium.value("document.querySelector('.matrix .fact-name').getBoundingClientRect().width")
    chromium.call("Emulation.clearDeviceMetricsOverride")
    assert wide[0] <= wide[1]
    assert fact >= 100


def test_long_leaks_do_not_push_a_phones_page_sideways(chromium: Chromium, tmp_path: Path) -> None:
    sample = sample_result()
    leak = {"kind": "http-url", "value": "http://www.example.com/" + "a" * 120, "action": "2-http", "evidence": []}
    variants = {**sample.variants, "split": replace(sample.variants["split"], leaks=(leak,))}
    path = tmp_path / "leaks.html"
    path.write_text(render_html(replace(sample, variants=variants)), encoding="utf-8")
    chromium.call("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=False)
    chromium.open(path)
    assert chromium.value("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    words = "document.querySelector('.leaks tbody td').getBoundingClientRect().width"
    assert chromium.value(words) > 60, "words are not broken into letters"
    chromium.call("Emulation.clearDeviceMetricsOverride")


def test_dark_and_light_differ(drawn: Chromium) -> None:
    grounds = set()
    for scheme in ("light", "dark"):
        drawn.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        grounds.add(drawn.value("getComputedStyle(document.documentElement).backgroundColor"))
    assert len(grounds) == 2


# Every text that shows, against what lies behind it: colours of ancestors, and both colours of a hatched ground.
_LOW_CONTRAST = """(() => {
  const parts = (colour) => (colour.match(/[0-9.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort(); return (y + 0.05) / (x + 0.05); };
  const solid = (colour) => { const p = parts(colour); return p.length >= 3 && (p.length < 4 || p[3] === 1); };
  const grounds = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const style = getComputedStyle(at);
      const found = (style.backgroundImage.match(/rgb\\([^)]*\\)/g) || []).map(parts);
      if (at.ownerSVGElement && at.previousElementSibling?.matches("rect.box"))
        found.push(parts(getComputedStyle(at.previousElementSibling).fill));
      else if (solid(style.backgroundColor)) found.push(parts(style.backgroundColor));
      if (found.length && (solid(style.backgroundColor) || at.ownerSVGElement)) return found;
      if (found.length && at.parentElement) return [...found, ...grounds(at.parentElement)];
    }
    return [[255, 255, 255]];
  };
  const low = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !element.getClientRects().length) continue;
    seen += 1;
    const style = getComputedStyle(element);
    const colour = parts(element.ownerSVGElement ? style.fill : style.color);
    const worst = Math.min(...grounds(element).map((ground) => ratio(colour, ground)));
    if (!(worst >= 4.5)) low.push([element.outerHTML.slice(0, 60), texts.currentNode.data.slice(0, 40), worst]);
  }
  return [seen, low.slice(0, 8)];
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(drawn: Chromium, scheme: str) -> None:
    drawn.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    drawn.click("button.all")
    drawn.value("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    seen, low = drawn.value(_LOW_CONTRAST)
    assert seen > 1000
    assert low == []


def test_the_measure_of_contrast_finds_a_text_that_is_too_pale(drawn: Chromium) -> None:
    drawn.value("document.querySelector('h1').style.setProperty('color', 'rgb(200, 200, 200)')")
    assert len(drawn.value(_LOW_CONTRAST)[1]) == 1


def test_captured_text_stays_text_in_every_drawing(drawn: Chromium) -> None:
    assert drawn.value("document.title") == "What does a VPN hide from your ISP?"
    assert drawn.value("document.querySelectorAll('script').length") == 1
    for section in ("#twice", "#ladders", "#dolls", "#packets"):
        assert HOSTILE_PATH[:20] in drawn.value(f"document.querySelector('{section}').textContent"), section
    assert complaints(drawn) == []


def test_every_cell_opens_and_every_frame_number_opens_its_packet(drawn: Chromium) -> None:
    stuck = """[...document.querySelectorAll('button.cell')].filter((cell) => {
      cell.click();
      return !document.getElementById(cell.getAttribute('aria-controls')).getClientRects().length;
    }).length"""
    assert drawn.value("document.querySelectorAll('button.cell').length") > 40
    assert drawn.value(stuck) == 0
    dead = """[...document.querySelectorAll('[data-shows] a[data-packet]')].filter((link) => {
      const slot = link.closest('[data-shows]').querySelector('.packet-slot');
      const press = () => link.dispatchEvent(new MouseEvent('click', {bubbles: true, cancelable: true}));
      if (slot.dataset.shown === link.dataset.packet) press();
      press();
      return !slot.querySelector('.block pre')?.textContent.startsWith('0000 ');
    }).length"""
    assert drawn.value("document.querySelectorAll('#ladders a[data-packet], #twice a[data-packet]').length") > 30
    assert drawn.value(dead) == 0
    assert complaints(drawn) == []


def test_an_arrow_of_a_ladder_opens_its_packet_by_keyboard_and_escape_leads_back(drawn: Chromium) -> None:
    drawn.value("document.querySelector('#ladder-http a[data-packet]').focus()")
    drawn.press("Enter", 13, "\r")
    assert drawn.value("document.activeElement === document.querySelector('#ladder-http .packet-slot')")
    assert drawn.value("document.querySelectorAll('#ladder-http .packet-slot .layer').length") >= 3
    command = drawn.value("document.querySelector('#ladder-http .packet-slot > .command code').textContent")
    assert command == "wireshark -r without/isp.pcapng -g 3"
    drawn.press("Escape", 27)
    assert drawn.value("document.querySelector('#ladder-http .packet-slot').childElementCount") == 0
    assert drawn.value("document.activeElement === document.querySelector('#ladder-http a[data-packet]')")


def test_a_sealed_packet_leads_to_the_one_it_carried_and_escape_back_to_where_it_was_opened(drawn: Chromium) -> None:
    at_home = "[...document.querySelectorAll('#ladder-outside svg a[data-packet]')].at(-1)"
    drawn.value("document.querySelector('#ladder-outside').closest('details').open = true")
    drawn.value(f"{at_home}.focus()")
    drawn.press("Enter", 13, "\r")
    slot = "document.querySelector('#ladder-outside .packet-slot')"
    assert "P_DATA_V2" in drawn.value(f"{slot}.textContent")
    drawn.click("#ladder-outside .packet-slot .carried a")
    assert drawn.value(f"{slot}.getAttribute('aria-label')").startswith("with/client-tun.pcapng frame ")
    assert "P_DATA_V2" not in drawn.value(f"{slot}.textContent")
    drawn.press("Escape", 27)
    assert drawn.value(f"document.activeElement === {at_home}")


def test_the_seal_of_the_inner_packet_breaks_by_click(drawn: Chromium) -> None:
    assert not drawn.value(visible("#doll-sealed .seal .doll"))
    drawn.click("#doll-sealed .seal > summary")
    assert drawn.value(visible("#doll-sealed .seal .doll"))
    assert "Cookie" in drawn.value("document.querySelector('#doll-sealed .seal').innerText")


def test_without_javascript_everything_can_be_read_and_links_lead_to_packets(drawn: Chromium, tmp_path: Path) -> None:
    drawn.call("Emulation.setScriptExecutionDisabled", value=True)
    drawn.open(tmp_path / "drawn.html")
    assert not drawn.value("document.documentElement.classList.contains('js')")
    assert drawn.value("[...document.querySelectorAll('tr.evidence')].every((row) => row.getClientRects().length)")
    assert not drawn.value(visible("button.copy"))
    target = drawn.value("document.querySelector('#ladder-http a[data-packet]').getAttribute('href')")
    assert not drawn.value(visible(f"{target} .layer"))
    drawn.click("#ladder-http a[data-packet]")
    assert drawn.value(visible(f"{target} .layer"))


def test_there_are_landmarks_headings_in_order_and_a_name_for_every_drawing(drawn: Chromium) -> None:
    landmarks = drawn.value("['header', 'nav[aria-label]', 'main'].map((s) => document.querySelectorAll(s).length)")
    assert landmarks == [1, 1, 1]
    levels = drawn.value("[...document.querySelectorAll('h1, h2, h3, h4')].map((one) => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(then <= before + 1 for before, then in pairwise(levels))
    nameless = "[...document.querySelectorAll('svg')].filter((s) => !s.ariaLabel && s.ariaHidden !== 'true').length"
    assert drawn.value(nameless) == 0


def test_nothing_moves_for_those_who_ask_for_less_motion(drawn: Chromium) -> None:
    drawn.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    assert drawn.value("getComputedStyle(document.documentElement).scrollBehavior") == "auto"

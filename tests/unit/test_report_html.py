"""The HTML report: one file, everything escaped, every cell with its evidence, the same text for the same input."""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser

from testbed.report.html import render_html
from testbed.report.html_packet import hex_blocks
from testbed.report.html_page import metric_in_words
from testbed.report.html_sizes import timelines
from testbed.report.html_view import MatrixView, matrix_views
from testbed.result import Evidence, Exposure, FactRef, RunResult, Verdict
from tests.unit.test_report_sample import (
    HOSTILE_HOST,
    sample_packet,
    sample_packet_lists,
    sample_packets,
    sample_result,
    sample_variant,
)

VOID = {"meta", "link", "br", "col", "path", "rect", "circle", "line", "polygon", "img", "input", "hr"}


class Outline(HTMLParser):
    """What a browser would build: elements with attributes, text, and whether tags nest."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.stack: list[str] = []
        self.crossed: list[str] = []
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.stack or self.stack.pop() != tag:
            self.crossed.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def full() -> str:
    return render_html(sample_result(), sample_packets(), sample_packet_lists())


def unnamed_tables(document: str) -> list[str]:
    """What a screen reader could not tell apart: tables without a name, names that stand twice or nowhere."""
    outline = Outline(document)
    there = {attributes.get("id") for _, attributes in outline.elements}
    names = [table.get("aria-labelledby") or "" for table in outline.of("table")]
    captions = len(re.findall(r"<table[^>]*>\s*<caption", document))
    wrong = [f"{len(names)} tables, {captions} captions, names {names}"] if names.count("") != captions else []
    named = [name for name in names if name]
    wrong += [name for name in set(named) if named.count(name) > 1]
    return wrong + [part for name in named for part in name.split() if part not in there]


def test_the_answer_stands_in_big_letters() -> None:
    assert (
        '<p class="answer">With the tunnel, your ISP sees 1 of 18 facts; without it, 17 of the same 18.</p>' in full()
    )


def test_the_document_nests_its_ids_are_unique_and_every_reference_has_its_target() -> None:
    outline = Outline(full())
    assert outline.crossed == []
    assert outline.stack == []
    ids = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in outline.elements:
        for key in ("aria-controls", "aria-labelledby", "data-packet"):
            assert set((attributes.get(key) or "").split()) <= set(ids)
        assert not str(attributes.get("href", "")).startswith("#") or str(attributes["href"])[1:] in ids


def test_nothing_is_loaded_from_anywhere() -> None:
    outline = Outline(full())
    assert [link["href"] for link in outline.of("link")] == ["data:,"]
    assert all("src" not in attributes and "style" not in attributes for _, attributes in outline.elements)
    assert not any(name.startswith("on") for _, attributes in outline.elements for name in attributes)
    assert all(str(a["href"]).startswith("#") for a in outline.of("a"))


def test_the_policy_names_exactly_the_style_sheet_and_the_script_that_are_inline() -> None:
    document = full()
    policy = next(str(meta["content"]) for meta in Outline(document).of("meta") if "http-equiv" in meta)
    for tag in ("style", "script"):
        (body,) = re.findall(f"<{tag}>(.*?)</{tag}>", document, re.S)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")


def test_captured_markup_and_control_characters_become_text() -> None:
    document = full()
    assert HOSTILE_HOST not in document
    assert "&lt;img src=x onerror=alert(1)&gt;.example" in document
    assert "{{ 7*7 }}" in document
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\ud800-\udfff]", document)
    assert "\\x1b[31m\\u202egpj.exe" in document


def hostile_everywhere(text: str) -> RunResult:
    """The sample with a hostile string in every place that holds one."""
    proof = Evidence(f"with/{text}.pcapng", 1, 0.0, f'dns.qry.name == "{text}"')
    variant = replace(
        sample_variant("with"),
        name=text,
        tunnel={text: text, "interface": text},
        exposure=(Exposure(text, FactRef(text, text, text, text), Verdict.SEEN, (proof,), text),),
        interfaces=({"name": text, "state": text, "mtu": text, "addresses": [text]},),
        routes=({"destination": text, "gateway": text, "interface": text},),
        egress=({"site": text, "address": text, "interface": text, "gateway": text, "source": text, "error": text},),
        leaks=({"kind": text, "value": text},),
        metrics={text: 1.0},
    )
    scenario = {"name": text, "title": text, "description": text, "file": text}
    expectations = tuple(replace(row, reason=text, selector=text) for row in sample_result().expectations)
    return RunResult(scenario, 1, False, {text: variant}, expectations, {text: text, "command": text}, (text,))


def test_a_hostile_string_in_any_place_adds_no_element_and_no_attribute() -> None:
    def shape(text: str) -> list[tuple[str, list[str]]]:
        return [(tag, sorted(names)) for tag, names in Outline(render_html(hostile_everywhere(text))).elements]

    hostile = "\"'><script>alert(1)</script></style><!--\x00\u2028" + "{% raw %}"
    assert shape(hostile) == shape("harmless")


def test_every_cell_has_a_button_and_every_exposure_stands_behind_one() -> None:
    result = sample_result()
    document = full()
    outline = Outline(document)
    cells = [a for a in outline.of("button") if str(a.get("class")).startswith("cell")]
    behind = [
        {(row.fact.kind, row.fact.value) for view in matrix_views(result, {}) for row in _exposures(view, column)}
        for column in range(3)
    ]
    assert len(cells) == document.count('<tr class="evidence"')
    for variant, found in zip(result.variants.values(), behind, strict=True):
        assert found == {(row.fact.kind, row.fact.value) for row in variant.exposure}
    code = [text for text in outline.text if text.startswith("wireshark -r ")]
    first = result.variants["without"].exposure[0].evidence[0]
    assert ["wireshark", "-r", first.file, "-Y", first.filter] in [shlex.split(text) for text in code]


def _exposures(view: MatrixView, column: int) -> list[Exposure]:
    cells = [row.cells[column] for group in view.groups for row in group.rows]
    return [
        Exposure(view.observer, FactRef(item.kind, item.value, ""), Verdict(item.verdict))
        for cell in cells
        if cell is not None
        for item in cell.items
    ]


def test_expectations_that_hold_are_folded_and_those_that_fail_stand_open() -> None:
    document = full()
    section = document[document.index('id="expectations"') : document.index('id="captures"')]
    assert "1 of 6 do not hold" in section
    assert section.index("no control: the body") < section.index("<details")
    assert "5 that hold, with reasons and packets" in section


def test_a_command_cannot_be_broken_out_of_by_what_was_captured() -> None:
    hostile = "'; rm -rf ~ #\n$(id)"
    texts = Outline(render_html(hostile_everywhere(hostile))).text
    commands = [shlex.split(text) for text in texts if text.startswith("wireshark -r ")]
    assert commands
    assert all(len(words) == 5 for words in commands)
    assert not any("\n" in word for words in commands for word in words)


def test_hidden_cells_say_what_was_searched_and_unproven_ones_what_is_missing() -> None:
    document = full()
    assert "searched 412 frames and 9 streams" in document
    assert "no control: the body is readable in no other capture" in document


def test_evidence_without_dissected_packets_still_names_its_frames() -> None:
    document = render_html(sample_result())
    assert "<li>frame 3 " in document
    assert 'id="packets"' not in document
    assert 'id="twice"' not in document


def test_the_server_record_is_read_as_a_line_and_not_in_wireshark() -> None:
    assert "sed -n 3p with/logs/www.example.com.jsonl" in full()


def test_the_same_input_gives_the_same_text_and_a_small_file() -> None:
    assert full() == full()
    assert len(full().encode()) < 1_000_000


def test_the_table_has_headers_with_scope() -> None:
    outline = Outline(full())
    assert all("scope" in attributes for attributes in outline.of("th"))
    assert len(outline.of("caption")) >= 2


def test_every_table_has_a_name_of_its_own_for_those_who_hear_the_page() -> None:
    sample = sample_result()
    event = {"at": 2.0, "after": 2.0, "time": 1e9, "words": "vpn-server gets SIGKILL", "ok": True, "error": ""}
    variants = {name: replace(variant, events=(event,)) for name, variant in sample.variants.items()}
    document = render_html(replace(sample, variants=variants), sample_packets(), sample_packet_lists())
    assert unnamed_tables(document) == []
    names = {table.get("aria-labelledby") for table in Outline(document).of("table")}
    parts = {"leaks-title", "did-title", "meanwhile-2", "expectations-title failing-title", "client-1 client-1-routes"}
    assert parts <= names


def test_an_empty_result_renders() -> None:
    outline = Outline(render_html(RunResult({}, 1, True, {}, (), {})))
    assert outline.crossed == []


def test_the_hex_dump_shows_all_octets_with_their_clear_text_cut_where_layers_begin() -> None:
    packet = sample_packet()
    blocks = list(hex_blocks(packet))
    rows = [row for block in blocks for row in block.rows]
    assert bytes.fromhex("".join(row[6:53] for row in rows)) == packet.octets
    assert "GET /account HTT" in "".join(row[55:] for row in rows)
    assert [(block.name, block.kind) for block in blocks] == [
        ("Ethernet II", "header"),
        ("Internet Protocol Version 4", "header"),
        ("Transmission Control Protocol", "header"),
        ("Hypertext Transfer Protocol", "content"),
    ]
    assert [(block.start, block.end) for block in blocks] == [
        (layer.start, min(layer.end, len(packet.octets))) for layer in packet.layers
    ]


def test_a_layer_that_claims_octets_beyond_the_packet_is_drawn_as_far_as_it_goes() -> None:
    packet = sample_packet()
    last = replace(packet.layers[-1], start=-5, end=10**9)
    rows = [row for block in hex_blocks(replace(packet, layers=(last,))) for row in block.rows]
    assert bytes.fromhex("".join(row[6:53] for row in rows)) == packet.octets


def test_ciphertext_is_told_from_headers_and_content_by_a_word_and_a_pattern() -> None:
    sealed = replace(sample_packet().layers[-1], encrypted=True)
    packet = replace(sample_packet(), layers=(*sample_packet().layers[:-1], sealed))
    document = render_html(sample_result(), {("with/isp.pcapng", 1): packet})
    assert '<div class="block ciphertext layer-encrypted"><p><b>Hypertext Transfer Protocol</b> ' in document
    assert '<span class="kind">ciphertext</span>' in document


def test_the_timeline_counts_every_octet_once_and_by_direction() -> None:
    lists = sample_packet_lists()
    views = timelines(lists, {name: sample_variant(name) for name in lists})
    assert len(views) == len(lists)
    for view in views:
        assert view.octets_up + view.octets_down == sum(line.length_octets for line in lists[view.variant])
        assert view.octets_up == sum(
            line.length_octets for line in lists[view.variant] if line.source == "192.168.0.13"
        )
        assert {stem.up for stem in view.stems} == {True, False}


def test_measured_times_keep_their_meaning_however_short() -> None:
    found = [metric_in_words(*pair) for pair in (("x_seconds", 0.000081), ("x_seconds", 1.5), ("octets", 1234.0))]
    assert found == ["0.08 ms", "1.500 s", "1,234"]


def test_the_captures_made_for_people_are_named_with_what_they_hold() -> None:
    capture = {"file": "captures/<all>.pcapng", "what": "every tap", "packets": 412, "secrets": True}
    document = render_html(replace(sample_result(), captures=(capture,)))
    assert "captures/&lt;all&gt;.pcapng</code> every tap, 412 packets <b>(holds secrets" in document
    assert "For Wireshark" not in render_html(sample_result())

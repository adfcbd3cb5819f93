"""`report.html`: the whole result as one file that needs no network, no server and no other file.

Jinja2 templates with two nets under every captured string: `finalize` makes each printed string visible (control
characters, bidi overrides, lone surrogates spelled out), and autoescape turns markup into text. The style sheet and
the script are inline and named by their hashes in a Content-Security-Policy that allows nothing else, so that even
markup that slipped through could neither run nor fetch. Without JavaScript all evidence is simply open.

The output depends on the arguments alone: no clock, no random identifiers.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from testbed.facts import Kind
from testbed.report import html_drawings as drawings
from testbed.report.html_view import matrix_views, packet_ids, proof_views, time_since
from testbed.report.matrix import observers_of
from testbed.report.packets import Inside, PacketLine, Packets
from testbed.report.summary import answer, is_tunnel_interface, reproduce_command, started_at, verdict_line
from testbed.report.text import number_in_words, octets_in_words, plain_value, shorten, visible
from testbed.report.words import action_in_words, is_server, kind_in_words
from testbed.result import Exposure, RunResult

_LONGEST_STRING = 4000  # of one captured value; the rest is in result.json
_BRIEF_COLUMNS = 64  # of a value in a list of facts
_LINES_SHOWN = 60


def render_html(
    result: RunResult,
    packets: Packets | None = None,
    packet_lists: Mapping[str, Sequence[PacketLine]] | None = None,
    inside: Mapping[str, Inside] | None = None,
) -> str:
    """The HTML document.

    Shape: `packets` are dissected evidence packets by (file, frame); `packet_lists` the observer's packet list by
        variant. Both are optional: without them the report says how to open the packets in Wireshark.
    """
    environment = _environment()
    style, script = _template_text("style.css"), _template_text("script.js")
    text = environment.get_template("report.html.j2").render(
        **_result_context(result),
        **_packet_context(result, packets or {}, packet_lists or {}),
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        style_hash=_csp_hash(style),
        script_hash=_csp_hash(script),
    )
    return text + "\n"


def _template_text(name: str) -> str:
    return resources.files("testbed.report").joinpath("templates", name).read_text(encoding="utf-8")


def _csp_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _environment() -> Environment:
    environment = Environment(
        autoescape=True,
        loader=FunctionLoader(_template_text),
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        kind_words=kind_in_words,
        action_words=action_in_words,
        octets=octets_in_words,
        number=number_in_words,
        plain=plain_value,
        brief=lambda text: shorten(str(text), _BRIEF_COLUMNS),
        words=lambda key: str(key).replace("_", " ").replace(".", " "),
    )
    environment.globals.update(is_inside=is_tunnel_interface)
    return environment


def _finalize(value: Any) -> Any:
    """What `{{ … }}` prints: our own markup as it is, every other string made visible and cut at a sane length."""
    if isinstance(value, Markup):
        return value
    if value is None:
        return "—"
    return shorten(value, _LONGEST_STRING) if isinstance(value, str) else value


def _result_context(result: RunResult) -> dict[str, Any]:
    variants = list(result.variants.values())
    action_ids = dict.fromkeys(action.id for variant in variants for action in variant.actions)
    return {
        "result": result,
        "variants": variants,
        "title": str(result.scenario.get("title") or result.scenario.get("name") or "A run of the testbed"),
        "answer": answer(result),
        "verdict_line": verdict_line(result),
        "ways": [drawings.ways_of(variant) for variant in variants],
        "actions": [[_action(variant.actions, name) for variant in variants] for name in action_ids],
        "metric_names": list(dict.fromkeys(name for variant in variants for name in variant.metrics)),
        "leaks": [(variant.name, leak) for variant in variants for leak in variant.leaks],
        "recognised": [_of_kind(variant.exposure, Kind.TUNNEL) for variant in variants],
        "volumes": [
            (kind, [_of_kind(variant.exposure, kind) for variant in variants]) for kind in (Kind.VOLUME, Kind.TIMING)
        ],
        "reproduce": visible(reproduce_command(result)),
    }


def _action(actions: Sequence[Any], name: str) -> Any:
    return next((action for action in actions if action.id == name), None)


def _of_kind(exposures: Sequence[Exposure], kind: Kind) -> list[Exposure]:
    return [row for row in exposures if row.fact.kind == kind]


def _packet_context(result: RunResult, packets: Packets, lists: Mapping[str, Sequence[PacketLine]]) -> dict[str, Any]:
    ids = packet_ids(packets)
    zeros = {name: started_at(variant) for name, variant in result.variants.items()}
    pairs = [
        (row, list(proof_views(row.evidence, ids, zeros.get(row.variant), log=is_server(row.observer))))
        for row in result.expectations
    ]
    first_observer = next(iter(observers_of(result)), "")
    captured = {
        name: tap.packets
        for name, variant in result.variants.items()
        for tap in variant.taps
        if tap.name == first_observer
    }
    return {
        "matrices": matrix_views(result, ids),
        "failing": [pair for pair in pairs if not pair[0].holds],
        "holding": [pair for pair in pairs if pair[0].holds],
        "packets": [(ids[key], key, packets[key], list(drawings.hex_rows(packets[key]))) for key in sorted(packets)],
        "octets_not_shown": drawings.octets_not_shown,
        "captured": captured,
        "lists": [_list_view(name, lines, zeros.get(name), captured.get(name, 0)) for name, lines in lists.items()],
        "timelines": drawings.timelines(lists, result.variants),
        "time_since": time_since,
    }


def _list_view(name: str, lines: Sequence[PacketLine], zero: float | None, captured: int) -> tuple[Any, ...]:
    """The packets from the client's first action on, which is the moment that all variants share.

    Shape: name, packets before, packets shown, packets after, the zero of their times
    """
    first = next((at for at, line in enumerate(lines) if zero is not None and line.time >= zero), 0)
    shown = lines[first : first + _LINES_SHOWN]
    return name, first, shown, max(captured, len(lines)) - first - len(shown), zero

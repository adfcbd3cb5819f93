"""`report.html`: the whole result as one file that needs no network, no server and no other file.

Everything printed goes through `html_page`'s two nets. Reading needs no JavaScript: evidence is then simply open, and
links lead to the packets. The script opens cells, shows packets in place and copies commands.

The output depends on the arguments alone: no clock, no random identifiers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from testbed.facts import Kind
from testbed.report.html_dolls import by_variant, request_dolls
from testbed.report.html_ladder import LadderView, ladders
from testbed.report.html_moments import Side, all_moments
from testbed.report.html_page import environment, page_context
from testbed.report.html_sizes import still_told, timelines
from testbed.report.html_topology import topology_view
from testbed.report.html_view import matrix_views, packet_ids, proof_views
from testbed.report.matrix import observers_of
from testbed.report.packets import Inside, PacketKey, PacketLine, Packets
from testbed.report.places import graph_of, places_of
from testbed.report.summary import (
    answer,
    bare_and_fullest,
    distinct_leaks,
    reproduce_command,
    started_at,
    verdict_line,
)
from testbed.report.text import visible
from testbed.report.words import is_server, observer_in_words
from testbed.result import Exposure, RunResult

PacketLists = Mapping[str, Sequence[PacketLine]]


def render_html(
    result: RunResult,
    packets: Packets | None = None,
    packet_lists: PacketLists | None = None,
    inside: Mapping[str, Inside] | None = None,
    others: Mapping[str, PacketLists] | None = None,
) -> str:
    """The HTML document.

    Shape: `packets` are dissected packets by (file, frame); `packet_lists` the observer's packet list by variant;
        `inside` what the tunnel carried, by variant; `others` the packet lists of further observers, by their names.
        All are optional: without them the report says how to open the packets in Wireshark.
    """
    text = (
        environment()
        .get_template("report.html.j2")
        .render(
            **_result_context(result),
            **_packet_context(result, packets or {}, inside or {}),
            **_drawing_context(result, packets or {}, packet_lists or {}, inside or {}),
            other_ladders=list(_other_ladders(result, packets or {}, others or {})),
            **page_context(),
        )
    )
    return text + "\n"


def _result_context(result: RunResult) -> dict[str, Any]:
    variants = list(result.variants.values())
    graph = graph_of(result)
    action_ids = dict.fromkeys(action.id for variant in variants for action in variant.actions)
    return {
        "result": result,
        "variants": variants,
        "title": str(result.scenario.get("title") or result.scenario.get("name") or "A run of the testbed"),
        "answer": answer(result),
        "verdict_line": verdict_line(result),
        "topologies": [topology_view(result, variant, graph) for variant in variants],
        "actions": [[_action(variant.actions, name) for variant in variants] for name in action_ids],
        "metric_names": list(dict.fromkeys(name for variant in variants for name in variant.metrics)),
        "leaks": distinct_leaks(result),
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


def _packet_context(result: RunResult, packets: Packets, inside: Mapping[str, Inside]) -> dict[str, Any]:
    ids = packet_ids(packets)
    carried = _carried(inside.values(), ids)
    zeros = {name: started_at(variant) for name, variant in result.variants.items()}
    pairs = [
        (row, list(proof_views(row.evidence, ids, zeros.get(row.variant), log=is_server(row.observer))))
        for row in result.expectations
    ]
    return {
        "matrices": matrix_views(result, ids),
        "failing": [pair for pair in pairs if not pair[0].holds],
        "holding": [pair for pair in pairs if pair[0].holds],
        "packet_files": [
            (file, [(ids[key], key[1], packets[key], carried.get(key, ())) for key in keys])
            for file, keys in groupby(sorted(packets), key=lambda key: key[0])
        ],
    }


def _carried(inside: Iterable[Inside], ids: Mapping[PacketKey, str]) -> dict[PacketKey, list[tuple[str, str, int]]]:
    """For each sealed packet the packets it carried, if the report holds them: identifier, file and frame."""
    found: dict[PacketKey, list[tuple[str, str, int]]] = {}
    for one in inside:
        for inner, outer in one.outer_of.items():
            if (one.file, inner) in ids:
                found.setdefault((one.outer_file, outer), []).append((ids[one.file, inner], one.file, inner))
    return found


def _drawing_context(
    result: RunResult, packets: Packets, lists: PacketLists, inside: Mapping[str, Inside]
) -> dict[str, Any]:
    """Ladders, dolls, comparisons and timelines: what is drawn from the packet lists."""
    ids = packet_ids(packets)

    def opened(key: PacketKey) -> str:
        return ids.get(key, "")

    graph = graph_of(result)
    observer = next(iter(observers_of(result)), "")
    variants = dict(result.variants)
    places = {name: places_of(variant, graph) for name, variant in variants.items()}
    files = {name: tap.file for name, v in variants.items() for tap in v.taps if tap.name == observer}
    captured = {name: tap.packets for name, v in variants.items() for tap in v.taps if tap.name == observer}
    sides = {
        name: Side(
            *(variants[name], files.get(name, ""), lines, places[name]),
            sealed=frozenset(inside[name].outer_of.values()) if name in inside else frozenset(),
        )
        for name, lines in lists.items()
        if name in variants
    }
    bare, full = bare_and_fullest(result)
    told = by_variant(variants, files, lists)
    full_inside = inside.get(full or "")
    return {
        "watcher": _in_a_sentence(observer_in_words(observer)),
        "captured": captured,
        "comparisons": all_moments(list(_pairs(list(sides), bare, full)), sides, opened),
        "ladders": ladders(result, observer, lists, inside, places, opened),
        "dolls": request_dolls(told.get(bare or ""), told.get(full or ""), full_inside, packets, opened),
        "timelines": timelines(lists, variants),
        "still_told": still_told(result, bare, full, lists, full_inside),
        "full": full,
    }


def _other_ladders(
    result: RunResult, packets: Packets, others: Mapping[str, PacketLists]
) -> Iterator[tuple[str, list[LadderView]]]:
    """The ladders that the observers other than the first would draw. What the tunnel carried is told only once."""
    ids = packet_ids(packets)
    graph = graph_of(result)
    places = {name: places_of(variant, graph) for name, variant in result.variants.items()}
    for number, (observer, lists) in enumerate(others.items(), start=2):
        found = ladders(result, observer, lists, {}, places, lambda key: ids.get(key, ""))
        if found:
            yield observer_in_words(observer), [replace(view, id=f"observer{number}-{view.id}") for view in found]


def _pairs(names: Sequence[str], bare: str | None, full: str | None) -> Iterator[tuple[str, str]]:
    """Which variants to compare: the bare one with the fullest tunnel first, then with every other."""
    first = bare if bare in names else full if full in names else None
    others = sorted((name for name in names if name != first), key=lambda name: name != full)
    for other in others:
        if first is not None:
            yield first, other


def _in_a_sentence(who: str) -> str:
    return who[0].lower() + who[1:] if who.startswith(("Your ", "The ")) else who

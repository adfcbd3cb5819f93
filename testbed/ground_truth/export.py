"""The map of a variant written down: one CSV line per link, and a summary for `result.json`.

`inner-outer.csv` has one line for each inner packet and outer frame that carried it, one for each inner packet that
nothing carried (`outer_frame` empty), and one for each outer frame that carried none (`inner_frame` empty): every frame
of the tunnel is labelled by what it carries, and every data packet by flow and action, and by whether that flow stays
apart from outside. Frame numbers are those of the
two captures. Nothing in it is a key or a payload.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from io import StringIO
from statistics import fmean, median
from typing import Any

from testbed.ground_truth.mapping import Link, NotMapped, VariantMap
from testbed.ground_truth.matching import Carrier, Carries
from testbed.ground_truth.separable import FlowShape

COLUMNS = (
    "inner_frame",
    "outer_frame",
    "direction",
    "carries",
    "flow",
    "action",
    "inner_time",
    "outer_time",
    "delay_seconds",
    "inner_octets",
    "outer_octets",
    "overhead_octets",
    "key_id",
    "packet_id",
    "flow_alone",
    "flow_packets_of_own_size",
)
MOST_FLOWS = 200  # in the summary; the CSV has all


def to_csv(variant_map: VariantMap) -> str:
    """The text of `inner-outer.csv`, in the order of time."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    shapes = {shape.flow: shape for shape in variant_map.flows}
    rows = [row for link in variant_map.links for row in _rows_of_link(link, shapes.get(link.flow))]
    linked = {id(carrier) for link in variant_map.links for carrier in link.packet.carriers}
    rows += [row for c in variant_map.carriers if id(c) not in linked for row in _rows_of_carrier(c)]
    writer.writerows(row for _, row in sorted(rows, key=lambda row: row[0]))
    return text.getvalue()


_Row = tuple[float, tuple[Any, ...]]


def _rows_of_link(link: Link, shape: FlowShape | None) -> Iterator[_Row]:
    packet = link.packet
    way = "up" if link.up else "down"
    inner = f"{packet.time:.6f}"
    if not packet.carriers:
        row = (packet.frame, "", way, "nothing", link.flow, link.action, inner, "", "", len(packet.packet), "", "")
        yield packet.time, (*row, "", "", *_separable(shape))
    for carrier in packet.carriers:
        outer = carrier.outer
        delay = outer.time - packet.time if link.up else packet.time - outer.time
        head = (way, carrier.carries.value, link.flow, link.action, inner, f"{outer.time:.6f}", f"{delay:.6f}")
        sizes = (len(packet.packet), f"{outer.octets:.0f}", f"{outer.octets - len(carrier.payload):.0f}")
        for frame in outer.frames:
            ids = (carrier.key_id, carrier.packet_id)
            yield packet.time, (packet.frame, frame, *head, *sizes, *ids, *_separable(shape))


def _separable(shape: FlowShape | None) -> tuple[Any, ...]:
    """The last two columns. Shape: `shape` is None where nothing carried a packet of the flow, or there is none"""
    return ("", "") if shape is None else ("yes" if shape.alone else "no", shape.own_sizes)


def _rows_of_carrier(carrier: Carrier) -> Iterator[_Row]:
    outer = carrier.outer
    way = "up" if outer.to_server else "down"
    ids = (carrier.key_id, carrier.packet_id) if carrier.packet_id >= 0 else ("", "")
    size = len(carrier.payload) if carrier.carries is Carries.PACKET else ""
    for frame in outer.frames:
        row = (
            "",
            frame,
            way,
            carrier.carries.value,
            "",
            "",
            "",
            f"{outer.time:.6f}",
            "",
            size,
            f"{outer.octets:.0f}",
            "",
        )
        yield outer.time, (*row, *ids, *_separable(None))


def summary(found: VariantMap | NotMapped, file: str) -> dict[str, Any]:
    """What `result.json` says of the map under `ground_truth`."""
    if isinstance(found, NotMapped):
        return {"mapped": False, "reason": found.reason}
    carried = [link for link in found.links if link.packet.carriers]
    counts = Counter(carrier.carries.value for carrier in found.carriers)
    return {
        "mapped": True,
        "file": file,
        "inner_capture": found.inner_file,
        "outer_capture": found.outer_file,
        "inner_packets": len(found.links),
        "inner_packets_mapped": len(carried),
        "outer_packets": {kind.value: counts[kind.value] for kind in Carries if counts[kind.value]},
        "outer_packets_without_inner": len(found.alone),
        "overhead_octets": _spread([link.overhead / len(link.packet.carriers) for link in carried]),
        "delay_seconds": {
            "up": _spread(_delays(carried, up=True)),
            "down": _spread(_delays(carried, up=False)),
        },
        "flows": [_flow(shape) for shape in found.flows[:MOST_FLOWS]],
        "flows_in_all": len(found.flows),
        "flows_alone": sum(shape.alone for shape in found.flows),
    }


def metrics(found: VariantMap | NotMapped) -> dict[str, float]:
    """The map's own numbers among the variant's metrics."""
    if isinstance(found, NotMapped):
        return {}
    carried = [link for link in found.links if link.packet.carriers]
    values = {"overhead_octets_per_inner_packet": _mean(link.overhead for link in carried)}
    for name, up in (("up", True), ("down", False)):
        if delays := _delays(carried, up=up):
            values[f"tunnel_delay_{name}_seconds"] = round(median(delays), 6)
    return values


def _delays(links: Iterable[Link], *, up: bool) -> list[float]:
    return [link.delay for link in links if link.delay is not None and link.up == up]


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return round(fmean(numbers), 3) if numbers else 0.0


def _spread(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    numbers = {"least": min(values), "median": median(values), "mean": fmean(values), "most": max(values)}
    return {name: round(value, 6) for name, value in numbers.items()}


def _flow(shape: FlowShape) -> dict[str, Any]:
    return {
        "flow": shape.flow,
        "action": shape.action,
        "packets_up": shape.packets_up,
        "packets_down": shape.packets_down,
        "outer_octets_up": shape.octets_up,
        "outer_octets_down": shape.octets_down,
        "first_outer_frame": shape.first_frame,
        "last_outer_frame": shape.last_frame,
        "seconds": round(shape.ended_at - shape.started_at, 6),
        "pause_before_seconds": round(shape.pause_before, 6),
        "alone": shape.alone,
        "packets_of_own_size": shape.own_sizes,
    }

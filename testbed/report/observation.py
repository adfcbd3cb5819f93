"""An `Observation` for people: what `testbed observe` prints. Every captured string is made visible first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from heapq import nlargest

from testbed.facts import Kind
from testbed.observer import Flow, Observation, Tunnel
from testbed.observer.model import Certainty
from testbed.report.text import shorten, visible

_ROWS = 40  # of each table; --json has the rest
_WIDTH = 120
PLAIN_LAYERS = 3  # IP, transport and the tunnel itself
# Of all headers, those that tell who somebody is; --json has the rest.
_PERSONAL = frozenset({"authorization", "cookie", "from", "proxy-authorization", "referer", "set-cookie", "user-agent"})


def observation_text(observation: Observation) -> str:
    """Plain text, one section per thing an observer asks: names, tunnels, what was readable, who talked to whom."""
    return "\n".join(_lines(observation)) + "\n"


def _lines(observation: Observation) -> Iterator[str]:
    yield f"{observation.frames} frames, {observation.octets} octets" + (
        f", {observation.dropped} dropped by the tap" if observation.dropped else ""
    )
    yield from _section(
        "Tunnels",
        [_tunnel_line(tunnel) for tunnel in observation.tunnels],
    )
    yield from _section("Names", [f"{n.name}  ({n.via}, frame {n.frame})" for n in observation.names])
    hints = [
        f"{h.what}: {h.value}  ({h.about}, frame {h.frames[0]}){f': {h.rule}' if h.rule else ''}"
        for h in observation.hints
    ]
    yield from _section("Hints", hints)
    yield from _section(
        "In clear", [f"{what}: {value}  (frame {frame})" for frame, what, value in _readable(observation)]
    )
    yield from _conversations(observation.flows)
    yield from _section("Warnings", observation.warnings)


def _tunnel_line(tunnel: Tunnel) -> str:
    ends = f"{tunnel.client} -> {tunnel.server}"
    within = f", in {' > '.join(tunnel.layers[:-PLAIN_LAYERS])}" if len(tunnel.layers) > PLAIN_LAYERS else ""
    cost = "" if tunnel.certainty is Certainty.CERTAIN else f" [{tunnel.false_positives}]"
    sure = f"{tunnel.certainty.value} at frame {tunnel.frame}"
    return f"{tunnel.protocol} over {tunnel.transport}{within}: {ends}, {sure}: {tunnel.rule}{cost}"


def _readable(observation: Observation) -> list[tuple[int, str, str]]:
    """What was sent in clear, by frame: contents, and the headers that tell who somebody is."""
    readable = [(clear.frame, clear.what, clear.value) for clear in observation.cleartext]
    readable += [
        (sighting.frames[0], sighting.kind.value, sighting.value)
        for sighting in observation.sightings
        if sighting.kind is Kind.HTTP_HEADER and sighting.value.partition(":")[0].lower() in _PERSONAL
    ]
    return sorted(readable, key=lambda row: row[0])


def _conversations(flows: Sequence[Flow]) -> Iterator[str]:
    """In order of time; of very many, those that carried most."""
    if not flows:
        return
    began = min(flow.started_at for flow in flows)
    kept = nlargest(_ROWS, flows, key=lambda flow: flow.sent.octets + flow.received.octets)
    rows = [_flow_line(flow, began) for flow in sorted(kept, key=lambda flow: (flow.started_at, flow.first_frame))]
    largest = f"the {_ROWS} largest; " if len(flows) > _ROWS else ""
    since = f"{datetime.fromtimestamp(began, UTC):%Y-%m-%d %H:%M:%S} UTC"
    yield from _section(f"Conversations  ({largest}seconds since {since}; packets and octets there + back)", rows)
    if len(flows) > _ROWS:
        yield f"  … and {len(flows) - _ROWS} smaller ones (--json lists all)"


def _flow_line(flow: Flow, began: float) -> str:
    application = f" {flow.application}" if flow.application else ""
    lasted = flow.ended_at - flow.started_at
    packets = f"{flow.sent.packets}+{flow.received.packets} packets"
    return (
        f"+{flow.started_at - began:.3f}  {flow.protocol}{application} {flow.client} -> {flow.server}: {packets}, "
        f"{flow.sent.octets}+{flow.received.octets} octets, for {lasted:.3f} s"
    )


def _section(title: str, rows: Sequence[str] | Iterable[str]) -> Iterator[str]:
    listed = list(rows)
    if not listed:
        return
    yield ""
    yield title
    for row in listed[:_ROWS]:
        yield "  " + shorten(visible(row), _WIDTH)
    if len(listed) > _ROWS:
        yield f"  … and {len(listed) - _ROWS} more (--json lists all)"

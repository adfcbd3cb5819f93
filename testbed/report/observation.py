"""An `Observation` for people: what `testbed observe` prints. Every captured string is made visible first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from testbed.observer import Flow, Observation, Tunnel
from testbed.observer.model import Certainty
from testbed.report.text import shorten, visible

_ROWS = 40  # of each table; --json has the rest
_WIDTH = 100
PLAIN_LAYERS = 3  # IP, transport and the tunnel itself


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
    yield from _section("In clear", [f"{c.what}: {c.value}  (frame {c.frame})" for c in observation.cleartext])
    yield from _section("Conversations", [_flow_line(flow) for flow in observation.flows])
    yield from _section("Warnings", observation.warnings)


def _tunnel_line(tunnel: Tunnel) -> str:
    ends = f"{tunnel.client} -> {tunnel.server}"
    within = f", in {' > '.join(tunnel.layers[:-PLAIN_LAYERS])}" if len(tunnel.layers) > PLAIN_LAYERS else ""
    cost = "" if tunnel.certainty is Certainty.CERTAIN else f" [{tunnel.false_positives}]"
    sure = f"{tunnel.certainty.value} at frame {tunnel.frame}"
    return f"{tunnel.protocol} over {tunnel.transport}{within}: {ends}, {sure}: {tunnel.rule}{cost}"


def _flow_line(flow: Flow) -> str:
    application = f" {flow.application}" if flow.application else ""
    seconds = flow.ended_at - flow.started_at
    packets = f"{flow.sent.packets}+{flow.received.packets} packets"
    return (
        f"{flow.protocol}{application} {flow.client} -> {flow.server}: {packets}, "
        f"{flow.sent.octets}+{flow.received.octets} octets, {seconds:.3f} s"
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

"""Numbers for the drawings of the HTML report: which way each site's traffic takes, octets over time, hex dumps.

The drawings' shapes are in the templates; here is what must be computed from the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from itertools import groupby

from testbed.report.packets import PacketLine, PacketView
from testbed.report.summary import is_tunnel_interface
from testbed.result import VariantResult

_PRIVATE = tuple(ip_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"))
_BINS = 72
_OCTETS_SHOWN = 1600
_OCTETS_PER_ROW = 16


@dataclass(frozen=True, slots=True)
class WayView:
    """The ways that exist in one variant, for its drawing and for the sentence that says the same."""

    tunnel: bool
    web_direct: bool
    web_inside: bool
    private_direct: bool
    private_refused: bool  # an action that meant a private site failed
    private_inside: bool
    sentence: str


def ways_of(variant: VariantResult) -> WayView:
    """Which sites the kernel reaches through the tunnel, and which beside it."""
    private_sites = {str(row.get("site")) for row in variant.egress if _is_private(row.get("address"))}
    ways: dict[tuple[bool, bool], list[str]] = {}
    for row in variant.egress:
        if row.get("error"):
            continue
        site, inside = str(row.get("site")), is_tunnel_interface(variant, row.get("interface"))
        ways.setdefault((site in private_sites, inside), []).append(site)
    return WayView(
        tunnel=variant.tunnel is not None,
        web_direct=(False, False) in ways,
        web_inside=(False, True) in ways,
        private_direct=(True, False) in ways,
        private_refused=any(
            not act.ok and any(site in act.target for site in private_sites) for act in variant.actions
        ),
        private_inside=(True, True) in ways,
        sentence=_sentence(variant, ways),
    )


def _sentence(variant: VariantResult, ways: Mapping[tuple[bool, bool], Sequence[str]]) -> str:
    inside = dict.fromkeys(site for (_, tunnelled), sites in ways.items() if tunnelled for site in sites)
    beside = dict.fromkeys(site for (_, tunnelled), sites in ways.items() if not tunnelled for site in sites)
    if variant.tunnel is None:
        return "No tunnel: everything crosses the ISP as the client sent it."
    if not inside:
        return "A tunnel is up, but no site's traffic takes it."
    if not beside:
        return "Traffic to every site goes through the tunnel."
    return f"Through the tunnel: {', '.join(inside)}. Beside it: {', '.join(beside)}."


def _is_private(address: object) -> bool:
    try:
        parsed = ip_address(str(address))
    except ValueError:
        return False
    return any(parsed in network for network in _PRIVATE if network.version == parsed.version)


@dataclass(frozen=True, slots=True)
class BarView:
    x: int
    up: float
    down: float


@dataclass(frozen=True, slots=True)
class TimelineView:
    """Octets over time in one variant. Units: heights in 0…1 of the fullest bin of all variants; seconds."""

    variant: str
    seconds: float
    octets_up: int
    octets_down: int
    packets: int
    bars: tuple[BarView, ...]


def timelines(lists: Mapping[str, Sequence[PacketLine]], variants: Mapping[str, VariantResult]) -> list[TimelineView]:
    """One timeline per variant on one common scale, so that they can be compared."""
    lines = {name: list(packets) for name, packets in lists.items() if packets}
    longest = max((_span(packets) for packets in lines.values()), default=0.0)
    binned = {name: _binned(packets, longest, _addresses(variants.get(name))) for name, packets in lines.items()}
    fullest = max((size for bins in binned.values() for pair in bins for size in pair), default=0) or 1
    return [
        TimelineView(
            variant=name,
            seconds=_span(lines[name]),
            octets_up=sum(up for up, _ in bins),
            octets_down=sum(down for _, down in bins),
            packets=len(lines[name]),
            bars=tuple(
                BarView(at, round(up / fullest, 3), round(down / fullest, 3))
                for at, (up, down) in enumerate(bins)
                if up or down
            ),
        )
        for name, bins in binned.items()
    ]


def _span(packets: Sequence[PacketLine]) -> float:
    return max(line.time for line in packets) - min(line.time for line in packets)


def _binned(packets: Sequence[PacketLine], longest: float, clients: frozenset[str]) -> list[tuple[int, int]]:
    start = min(line.time for line in packets)
    bins = [[0, 0] for _ in range(_BINS)]
    for line in packets:
        at = min(_BINS - 1, int((line.time - start) / longest * _BINS)) if longest else 0
        bins[at][0 if line.source in clients else 1] += line.length_octets
    return [(up, down) for up, down in bins]


def _addresses(variant: VariantResult | None) -> frozenset[str]:
    """The client's own addresses: what comes from them goes up."""
    if variant is None:
        return frozenset()
    return frozenset(str(address).split("/")[0] for row in variant.interfaces for address in row.get("addresses") or ())


@dataclass(frozen=True, slots=True)
class HexRow:
    """One row of a hex dump: runs of octets that belong to one layer, as (css class, text)."""

    offset: str
    octets: tuple[tuple[str, str], ...]
    text: tuple[tuple[str, str], ...]


def hex_rows(packet: PacketView) -> Iterator[HexRow]:
    """The frame as hexadecimal and as clear text, coloured by layer."""
    octets = packet.octets[:_OCTETS_SHOWN]
    classes = _classes(packet, len(octets))
    for start in range(0, len(octets), _OCTETS_PER_ROW):
        row = list(range(start, min(start + _OCTETS_PER_ROW, len(octets))))
        runs = [(name, list(run)) for name, run in groupby(row, key=lambda at: classes[at])]
        yield HexRow(
            offset=f"{start:04x}",
            octets=tuple((name, " ".join(f"{octets[at]:02x}" for at in run)) for name, run in runs),
            text=tuple((name, "".join(_clear(octets[at]) for at in run)) for name, run in runs),
        )


def octets_not_shown(packet: PacketView) -> int:
    return max(0, len(packet.octets) - _OCTETS_SHOWN)


def _classes(packet: PacketView, length: int) -> list[str]:
    classes = ["layer-none"] * length
    for number, layer in enumerate(packet.layers):
        name = "layer-encrypted" if layer.encrypted else f"layer-{min(number, 5)}"
        for at in range(max(0, layer.start), min(length, layer.end)):
            classes[at] = name
    return classes


def _clear(octet: int) -> str:
    return chr(octet) if 0x20 <= octet < 0x7F else "·"

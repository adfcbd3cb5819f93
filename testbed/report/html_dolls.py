"""A packet opened layer by layer, like nested dolls: IP in UDP in IP, the inner ones sealed for whoever has no key.

The same request twice: as it crosses the line in clear text, and inside the packet that carries it through the tunnel.
What the sealed part holds is known from the client's own tunnel device (`Inside`), never from the capture of the line;
where no pair is certain, the doll stays closed and says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from testbed.report.html_ladder import SEALED, Opened, during
from testbed.report.html_packet import LayerView, layer_view
from testbed.report.own_addresses import client_addresses
from testbed.report.packets import Inside, PacketLine, Packets, PacketView
from testbed.report.words import action_in_words
from testbed.result import ActionRecord, VariantResult

_STRIP_WIDTH = 1000.0
_LEAST_WIDTH = 14.0


@dataclass(frozen=True, slots=True)
class PieceView:
    """A layer's share of the packet's octets, drawn to scale. Units: of a strip 1000 wide"""

    x: float
    width: float
    kind: str
    colour: str
    name: str
    octets: int


@dataclass(frozen=True, slots=True)
class DollsView:
    """Shape: `layers` from the outside in; `inside` are the layers of the packet in the sealed one, or empty"""

    id: str
    title: str
    lead: str
    layers: tuple[LayerView, ...]
    inside: tuple[LayerView, ...]
    strip: tuple[PieceView, ...]
    octets: int
    wrapping: int  # octets of the outer packet that are not the inner one's
    link: int  # of these, the header of the link
    frame: int
    packet_id: str
    inner_frame: int
    inner_id: str
    note: str


def dolls(
    name: str,
    title: str,
    lead: str,
    outer: PacketView,
    inner: PacketView | None = None,
    *,
    frames: tuple[int, int] = (0, 0),
    ids: tuple[str, str] = ("", ""),
    note: str = "",
) -> DollsView:
    """A packet, and the one inside its sealed layer where that is known. Shape: `frames`, `ids` of outer and inner"""
    layers = tuple(layer_view(layer, at, len(outer.octets)) for at, layer in enumerate(outer.layers))
    if inner and not any(layer.kind == "ciphertext" for layer in layers):  # static keys: nothing says that it is sealed
        layers = (*layers[:-1], replace(layers[-1], kind="ciphertext", colour="layer-encrypted", fields=()))
    within = (
        tuple(layer_view(layer, at + 1, len(inner.octets)) for at, layer in enumerate(inner.layers)) if inner else ()
    )
    return DollsView(
        id=name,
        title=title,
        lead=lead,
        layers=layers,
        inside=within,
        strip=tuple(_strip(layers, within)),
        octets=len(outer.octets),
        wrapping=len(outer.octets) - len(inner.octets) if inner else 0,
        link=_link_octets(outer),
        frame=frames[0],
        packet_id=ids[0],
        inner_frame=frames[1],
        inner_id=ids[1],
        note=note,
    )


def _link_octets(packet: PacketView) -> int:
    """The octets before the IP header."""
    starts = [layer.start for layer in packet.layers if layer.name.startswith("Internet Protocol")]
    return max(0, min(starts, default=0))


def _strip(layers: Sequence[LayerView], inside: Sequence[LayerView]) -> Iterator[PieceView]:
    """All octets from first to last; of the sealed layer first what sealing adds, then the packet inside."""
    pieces: list[tuple[LayerView, int, str]] = []
    for layer in layers:
        held = sum(one.octets for one in inside) if layer.kind == "ciphertext" else 0
        if held and held <= layer.octets:
            pieces.append((layer, layer.octets - held, "what sealing adds"))
            pieces += [(one, one.octets, one.name) for one in inside]
        else:
            pieces.append((layer, layer.octets, layer.name))
    shown = [piece for piece in pieces if piece[1] > 0]
    total = sum(octets for _, octets, _ in shown) or 1
    spare = _STRIP_WIDTH - _LEAST_WIDTH * len(shown)
    x = 0.0
    sealed = False
    for layer, octets, name in shown:
        width = _LEAST_WIDTH + max(0.0, spare) * octets / total
        sealed = sealed or layer.kind == "ciphertext"
        kind = "ciphertext" if sealed else layer.kind
        yield PieceView(round(x, 1), round(width, 1), kind, layer.colour, name, octets)
        x += width


def request_dolls(
    bare: tuple[VariantResult, str, Sequence[PacketLine]] | None,
    tunnelled: tuple[VariantResult, str, Sequence[PacketLine]] | None,
    inside: Inside | None,
    packets: Packets,
    opened: Opened,
) -> list[DollsView]:
    """The request of the first page that both variants opened: bare, and in the tunnel."""
    found: list[DollsView] = []
    if bare is not None and (line := _request(bare[0], bare[2], packets, bare[1])) is not None:
        key = (bare[1], line[1].frame)
        lead = f"The client {action_in_words(line[0])}. Every layer can be read by everybody on the way."
        title = f"Variant {bare[0].name}: nothing is sealed"
        found.append(dolls("doll-bare", title, lead, packets[key], frames=(line[1].frame, 0), ids=(opened(key), "")))
    if tunnelled is not None:
        found += _sealed_doll(tunnelled, inside, packets, opened)
    return found


def _sealed_doll(
    tunnelled: tuple[VariantResult, str, Sequence[PacketLine]], inside: Inside | None, packets: Packets, opened: Opened
) -> Iterator[DollsView]:
    variant, file, lines = tunnelled
    title = f"Variant {variant.name}: a packet in a packet"
    request = _request(variant, inside.lines, packets, inside.file) if inside else None
    if (
        inside is not None
        and request is not None
        and (file, outer := inside.outer_of.get(request[1].frame, 0)) in packets
    ):
        keys = (file, outer), (inside.file, request[1].frame)
        lead = (
            f"The client {action_in_words(request[0])}. To a listener the packet ends at the seal; "
            "the client's tunnel device recorded what it put inside."
        )
        yield dolls(
            "doll-sealed", title, lead, packets[keys[0]], packets[keys[1]],
            frames=(outer, request[1].frame), ids=(opened(keys[0]), opened(keys[1])), note=inside.how,
        )  # fmt: skip
        return
    sealed = [line for line in lines if line.protocol in SEALED and (file, line.frame) in packets]
    data = [line for line in sealed if "DATA" in line.summary or line.protocol == "ESP"]
    if data:
        largest = max(data, key=lambda line: line.length_octets)
        note = inside.how if inside else "Nothing recorded what is inside."
        key = (file, largest.frame)
        lead = "The largest sealed packet that the report holds."
        yield dolls(
            "doll-sealed", title, lead, packets[key], frames=(largest.frame, 0), ids=(opened(key), ""), note=note
        )


def _request(
    variant: VariantResult, lines: Sequence[PacketLine], packets: Packets, file: str
) -> tuple[ActionRecord, PacketLine] | None:
    """The packet in which the client asks for its first page: the largest of it that is not TLS; else of any action."""
    clients = client_addresses(variant)
    actions = sorted(variant.actions, key=lambda action: action.verb != "http")
    for action in actions:
        asked = [
            line
            for line in during(action, variant, lines)
            if line.source in clients and (file, line.frame) in packets and _says_something(line)
        ]
        if asked:
            return action, max(asked, key=lambda line: (_is_request(line), line.length_octets))
    return None


def _says_something(line: PacketLine) -> bool:
    return line.protocol not in ("ARP", "ICMPv6") and "Len=0" not in line.summary


def _is_request(line: PacketLine) -> bool:
    return line.summary.startswith(("GET ", "POST ", "HEAD ", "PUT "))


def by_variant(
    variants: Mapping[str, VariantResult], files: Mapping[str, str], lists: Mapping[str, Sequence[PacketLine]]
) -> dict[str, tuple[VariantResult, str, Sequence[PacketLine]]]:
    """Each variant with its observer's capture file and packet list."""
    return {name: (variants[name], files[name], lists[name]) for name in lists if name in variants and name in files}

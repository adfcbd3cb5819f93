"""One packet as the report shows it: its layers as a tree, and its octets layer by layer.

The hex dump is cut where layers begin, each piece under its layer's name and what it is: a header, readable content,
or ciphertext. So the three are told apart by words and by the pattern of the margin, and by colour only besides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from testbed.report.packets import Layer, PacketView

OCTETS_SHOWN = 1600
_OCTETS_PER_ROW = 16
_COLOURS = 6
_MOST_FIELDS = 60
_HEADERS = (
    *("Ethernet", "Link layer", "Internet Protocol", "Internet Control", "User Datagram", "Transmission Control"),
    *("Address Resolution", "OpenVPN", "QUIC header", "WireGuard", "Encapsulating Security Payload", "IPsec"),
)
_KEY_FIELDS = (
    *(("source", "destination"), ("source port", "destination port")),
    *(
        ("opcode",),
        ("request",),
        ("response",),
        ("question",),
        ("server name",),
        ("type",),
        ("begins with",),
        ("kind",),
        ("record 1",),
    ),
)


@dataclass(frozen=True, slots=True)
class LayerView:
    """Shape: `kind` is header, content or ciphertext; `colour` numbers its colour; `line` is its gist"""

    name: str
    kind: str
    colour: str
    octets: int
    line: str
    fields: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class HexBlock:
    """A run of octets of one layer. Shape: `rows` hold offset, hexadecimal and clear text as one line each"""

    name: str
    kind: str
    colour: str
    start: int
    end: int
    rows: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OpenedView:
    layers: tuple[LayerView, ...]
    hex: tuple[HexBlock, ...]
    not_shown: int


def opened_view(packet: PacketView) -> OpenedView:
    return OpenedView(
        layers=tuple(layer_view(layer, at, len(packet.octets)) for at, layer in enumerate(packet.layers)),
        hex=tuple(hex_blocks(packet)),
        not_shown=max(0, len(packet.octets) - OCTETS_SHOWN),
    )


def kind_of(layer: Layer) -> str:
    """Whether a layer is written for the way (a header), for whoever reads it (content), or sealed (ciphertext)."""
    if layer.encrypted:
        return "ciphertext"
    return "header" if layer.name.startswith(_HEADERS) else "content"


def layer_view(layer: Layer, at: int, octets: int) -> LayerView:
    return LayerView(
        name=layer.name,
        kind=kind_of(layer),
        colour=_colour(layer, at),
        octets=max(0, min(layer.end, octets) - max(0, layer.start)),
        line=gist(layer),
        fields=layer.fields[:_MOST_FIELDS],
    )


def gist(layer: Layer) -> str:
    """The one thing to know of a layer: between whom, which message, what name."""
    fields = dict(layer.fields)
    for names in _KEY_FIELDS:
        if all(name in fields for name in names):
            return " → ".join(fields[name] for name in names)
    return ""


def _colour(layer: Layer, at: int) -> str:
    return "layer-encrypted" if layer.encrypted else f"layer-{min(at, _COLOURS - 1)}"


def hex_blocks(packet: PacketView) -> Iterator[HexBlock]:
    """The frame's octets in order, cut where one layer ends and another begins."""
    octets = packet.octets[:OCTETS_SHOWN]
    owners = _owners(packet.layers, len(octets))
    for owner, run in groupby(range(len(octets)), key=lambda at: owners[at]):
        places = list(run)
        layer = packet.layers[owner] if owner >= 0 else None
        yield HexBlock(
            name=layer.name if layer else "not described",
            kind=kind_of(layer) if layer else "header",
            colour=_colour(layer, owner) if layer else "layer-none",
            start=places[0],
            end=places[-1] + 1,
            rows=tuple(_rows(octets, places[0], places[-1] + 1)),
        )


def _owners(layers: Sequence[Layer], length: int) -> list[int]:
    """The layer of each octet; of two that claim one, the inner."""
    owners = [-1] * length
    for number, layer in enumerate(layers):
        start, end = max(0, layer.start), min(length, layer.end)
        owners[start:end] = [number] * max(0, end - start)
    return owners


def _rows(octets: bytes, start: int, end: int) -> Iterator[str]:
    for at in range(start, end, _OCTETS_PER_ROW):
        row = octets[at : min(at + _OCTETS_PER_ROW, end)]
        clear = "".join(chr(octet) if 0x20 <= octet < 0x7F else "." for octet in row)
        yield f"{at:04x}  {row.hex(' '):<{_OCTETS_PER_ROW * 3 - 1}}  {clear}"

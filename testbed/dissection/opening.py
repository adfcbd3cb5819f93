"""A frame while it is being opened: the layers found so far, and a reader that cannot read beyond its octets."""

from __future__ import annotations

from dataclasses import dataclass, field

from testbed.observer.sights.text import is_text
from testbed.report.packets import Layer, PacketView

LONGEST_FIELD = 600  # characters of one value; the octets stand beside it


class Short(Exception):
    """A header claims more octets than there are."""


@dataclass(slots=True)
class Reader:
    """Takes octets of a frame one field after the other, never beyond `end`."""

    data: bytes
    at: int
    end: int

    @property
    def left(self) -> int:
        return self.end - self.at

    def take(self, count: int) -> bytes:
        """Errors: Short"""
        if count > self.left:
            raise Short
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "big")


@dataclass(slots=True)
class Opening:
    """What is known of one frame; each layer replaces protocol and summary by its own."""

    number: int
    data: bytes
    source: str = ""
    destination: str = ""
    protocol: str = "Data"
    summary: str = ""
    layers: list[Layer] = field(default_factory=list)

    def add(self, name: str, start: int, end: int, *fields: tuple[str, object], encrypted: bool = False) -> None:
        texts = tuple((label, str(value)[:LONGEST_FIELD]) for label, value in fields)
        self.layers.append(Layer(name, texts, start, end, encrypted))

    def say(self, protocol: str, summary: str) -> None:
        self.protocol, self.summary = protocol, summary

    def view(self, time: float) -> PacketView:
        return PacketView(
            time, self.source, self.destination, self.protocol, self.summary, tuple(self.layers), self.data
        )


def text_of(octets: bytes) -> str:
    """Octets as text: what is not UTF-8 is spelled `\\xNN`."""
    return octets.decode("utf-8", "backslashreplace")


def plural(count: int, word: str) -> str:
    return f"{count:,} {word}" + ("" if count == 1 else "s")


def add_data(opening: Opening, start: int, end: int) -> None:
    """Octets of no protocol that is known here: as text where people can read it."""
    octets = opening.data[start:end]
    readable = is_text(octets)
    fields = [("length", plural(end - start, "octet")), *([("text", text_of(octets))] if readable else [])]
    opening.add("Data", start, end, *fields)

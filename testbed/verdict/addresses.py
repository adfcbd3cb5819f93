"""Where an address stands in a capture, in whatever role and however it is written.

    in a header     its octets, in a field that `headers` knows: IP, ARP, quoted by ICMP, inside GRE or IP in IP, …
    anywhere        the sixteen octets of an IPv6 address, or of an IPv4 address mapped into one: never chance
    as text         its usual spelling, and its name for reverse look-ups (34.216.184.93.in-addr.arpa), in every form

The four octets of an IPv4 address outside of a header stand in any long capture by chance, so they count in a header
alone; what DNS answers and other messages say of it, the observer's dissectors tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from testbed.verdict.evidence import TapEvidence
from testbed.verdict.headers import fields
from testbed.verdict.search import CaptureSearch, Hit, Wanted

PLACES_LOOKED_AT = 2_000  # an address of nearly every packet need not be found in all of them


@dataclass(frozen=True, slots=True)
class AddressPlace:
    """Where an address stands. Shape: `display_filter` is Wireshark's for the frame's field."""

    frame: int
    display_filter: str
    where: str


def written_forms(address: str) -> tuple[Wanted, ...]:
    """The texts an address is written as: itself, and its name for reverse look-ups; empty for what is no address."""
    try:
        value = ip_address(address)
    except ValueError:
        return ()
    digits = b"0123456789" if value.version == 4 else b"0123456789abcdefABCDEF:"
    return Wanted(str(value), apart_from=digits), Wanted(value.reverse_pointer, apart_from=digits)


def places(tap: TapEvidence, search: CaptureSearch, address: str) -> Iterator[AddressPlace]:
    """Where the address stands in the frames' octets, header fields first."""
    try:
        value = ip_address(address)
    except ValueError:
        return
    yield from _in_headers(tap, search, value)
    for octets, where in _telling_octets(value):
        for index, _ in search.octets_at(octets, PLACES_LOOKED_AT):
            display_filter = f"frame contains {octets.hex(':')}"
            yield AddressPlace(tap.frames[index].number, display_filter, where)


def _in_headers(tap: TapEvidence, search: CaptureSearch, value: IPv4Address | IPv6Address) -> Iterator[AddressPlace]:
    packed = value.packed
    for index, at in search.octets_at(packed, PLACES_LOOKED_AT):
        frame = tap.frames[index]
        for field in fields(frame.data, tap.link_type):
            if field.at == at and field.octets == len(packed):
                yield AddressPlace(frame.number, f"{field.name} == {value}", field.what)


def _telling_octets(value: IPv4Address | IPv6Address) -> Iterator[tuple[bytes, str]]:
    if isinstance(value, IPv6Address):
        yield value.packed, "in the packet's octets"
    else:
        yield bytes(10) + b"\xff\xff" + value.packed, "in the packet's octets, mapped into an IPv6 address"


def written(search: CaptureSearch, address: str) -> Iterator[Hit]:
    """Where the address stands as text."""
    for wanted in written_forms(address):
        yield from search.find(wanted)

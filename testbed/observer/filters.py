"""Wireshark display filters, spelled so that any captured octets stay a value and never become syntax.

Text is quoted with every octet outside printable ASCII as `\\xNN`; octet fields are searched in Wireshark's own colon
notation, which has no syntax to escape from at all.

Source: wireshark-filter(4)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from testbed.observer.model import Endpoint

LONGEST_NEEDLE_OCTETS = 512
SHORT_OCTETS = 256
PLAIN = frozenset(range(0x20, 0x7F)) - {0x22, 0x5C}
ESCAPES = {octet: f"\\x{octet:02x}" for octet in range(256) if octet not in PLAIN}
PLAIN_STRETCH = re.compile(rb"[ !#-\[\]-~]+")


def quote(value: str | bytes) -> str:
    octets = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    return _quote_short(octets) if len(octets) <= SHORT_OCTETS else _quote(octets)


def _quote(octets: bytes) -> str:
    return '"' + octets.decode("latin-1").translate(ESCAPES) + '"'


_quote_short = lru_cache(maxsize=2048)(_quote)  # the same header lines come by the thousand


def octets(value: bytes) -> str:
    """Octets as Wireshark writes them. A single one needs the leading colonless form it also reads as a byte."""
    return value[:LONGEST_NEEDLE_OCTETS].hex(":")


def equals(field: str, value: str | bytes) -> str:
    return f"{field} == {quote(value)}"


def address(value: str) -> str:
    return f"ipv6.addr == {value}" if ":" in value else f"ip.addr == {value}"


def source(value: str) -> str:
    return f"ipv6.src == {value}" if ":" in value else f"ip.src == {value}"


def either(several: Sequence[str]) -> str:
    return several[0] if len(several) == 1 else " || ".join(f"({each})" for each in several)


def between(protocol: str, one: Endpoint, other: Endpoint) -> str:
    """The filter of one flow: both addresses, and both ports where there are any."""
    terms = [address(one.address)]
    if other.address != one.address:
        terms.append(address(other.address))
    if one.port or other.port:
        terms += [f"{protocol}.port == {port}" for port in dict.fromkeys((one.port, other.port))]
    elif protocol.isdigit():  # one that has no name here
        terms.append(f"(ip.proto == {protocol} || ipv6.nxt == {protocol})")
    elif protocol:
        terms.append(protocol)
    return " && ".join(terms)


def longest_text(value: bytes) -> bytes:
    """The longest stretch of printable ASCII in `value`: what a text field of Wireshark shows unchanged."""
    longest: bytes = max(PLAIN_STRETCH.findall(value), key=len, default=b"")
    return longest[:LONGEST_NEEDLE_OCTETS]

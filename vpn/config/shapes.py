"""Typed arguments: a shape such as `"network [netmask] [gateway] [count]"` turns a directive's words into values.

A shape is a list of kinds: `kind` must be there, `[kind]` may be, `kind…` takes all words that remain (at least
one, `[kind…]` none or more); `a|b|c` is one of these words. Every kind is one function from text to value in
`_KINDS`; its ValueError says what would be right, and the caller adds file, line and option.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Interface, ip_address
from typing import Any

Value = Any  # what a kind makes of a word; the builder of the settings knows which by the option's shape

_NETMASKS = frozenset((0xFFFFFFFF << (32 - bits)) & 0xFFFFFFFF for bits in range(33))
_HOST_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-._")
_NUMBER_MAXIMUM = 2**63 - 1
_LARGEST_BUFFER_OCTETS = 2**31 - 1  # of an int, which the kernel takes
_WIDEST_WINDOW = 65536  # as openvpn


class ShapeError(ValueError):
    """The words do not fit the option; the text says what would."""


@dataclass(frozen=True, slots=True)
class _Slot:
    kind: str
    optional: bool
    many: bool


def read_arguments(shape: str, words: Sequence[str]) -> tuple[Value, ...]:
    """The typed values of `words`; an optional one that is absent is None, a repeated one a tuple at the end.

    Errors: ShapeError
    """
    slots = [_slot(word) for word in shape.split()]
    values: list[Value] = []
    position = 0
    for slot in slots:
        if slot.many:
            rest = words[position:]
            if not rest and not slot.optional:
                raise ShapeError(f"needs: {shape}")
            values.append(tuple(_convert(slot.kind, word) for word in rest))
            position = len(words)
        elif position < len(words):
            values.append(_convert(slot.kind, words[position]))
            position += 1
        elif slot.optional:
            values.append(None)
        else:
            raise ShapeError(f"needs: {shape}")
    if position < len(words):
        expected = f"takes: {shape}" if shape else "takes no argument"
        raise ShapeError(f"{words[position]!r} is one word too many; the option {expected}")
    return tuple(values)


def _slot(text: str) -> _Slot:
    optional = text.startswith("[")
    kind = text.strip("[]")
    many = kind.endswith("…")
    return _Slot(kind.rstrip("…"), optional, many)


def _convert(kind: str, word: str) -> Value:
    if "|" in kind or kind not in _KINDS:  # words to choose from, or one word as it stands
        allowed = kind.split("|")
        if word not in allowed:
            raise ShapeError(f"{word!r}: allowed are {', '.join(allowed)}")
        return word
    try:
        return _KINDS[kind](word)
    except ValueError as error:
        raise ShapeError(f"{word!r}: {error}") from None


def _text(word: str) -> str:
    if "\0" in word or "\n" in word:
        raise ValueError("a NUL or a line end inside a word")
    return word


def _count(word: str) -> int:
    if not word.isascii() or not word.isdigit() or int(word) > _NUMBER_MAXIMUM:
        raise ValueError("a whole number is needed")
    return int(word)


def _count32(word: str) -> int:
    value = _count(word)
    if value > 0xFFFFFFFF:
        raise ValueError("a number below 2^32 is needed")
    return value


def _octets(word: str) -> int:
    value = _count(word)
    if value > _LARGEST_BUFFER_OCTETS:
        raise ValueError("a number of octets below 2 GiB is needed")
    return value


def _window(word: str) -> int:
    value = _positive(word)
    if value > _WIDEST_WINDOW:
        raise ValueError(f"a window is at most {_WIDEST_WINDOW} packets wide")
    return value


def _niceness(word: str) -> int:
    value = -_count(word[1:]) if word.startswith("-") else _count(word)
    if not -20 <= value <= 19:
        raise ValueError("a niceness is a number from -20 to 19")
    return value


def _positive(word: str) -> int:
    value = _count(word)
    if value == 0:
        raise ValueError("a number above zero is needed")
    return value


def _seconds(word: str) -> int:
    value = _count(word)
    if value > 10 * 365 * 86400:
        raise ValueError("more than ten years; seconds are meant")
    return value


def _port(word: str) -> int:
    value = _count(word)
    if not 1 <= value <= 65535:
        raise ValueError("a port is a number from 1 to 65535")
    return value


def _lport(word: str) -> int:
    return 0 if word == "0" else _port(word)


def _mtu(word: str) -> int:
    value = _count(word)
    if not 100 <= value <= 65535:
        raise ValueError("an MTU is a number of octets from 100 to 65535")
    return value


def _host(word: str) -> str:
    """A name or an address. Names are resolved when they are used, so only their form is checked."""
    try:
        return str(ip_address(word.partition("%")[0])) if "%" not in word else word
    except ValueError:
        pass
    if not word or len(word) > 253 or not set(word.lower()) <= _HOST_CHARACTERS:
        raise ValueError("neither an address nor a host name")
    return word


def _address4(word: str) -> IPv4Address:
    try:
        return IPv4Address(word)
    except ValueError:
        raise ValueError("an IPv4 address such as 10.8.0.1 is needed") from None


def _address6(word: str) -> IPv6Address:
    try:
        return IPv6Address(word)
    except ValueError:
        raise ValueError("an IPv6 address such as 2001:db8:8::1 is needed") from None


def _netmask(word: str) -> IPv4Address:
    mask = _address4(word)
    if int(mask) not in _NETMASKS:
        raise ValueError("a netmask such as 255.255.255.0 is needed")
    return mask


def _prefix6(word: str) -> IPv6Interface:
    """Address and prefix length; the length must be written."""
    try:
        if "/" not in word:
            raise ValueError
        return IPv6Interface(word)
    except ValueError:
        raise ValueError("an IPv6 prefix such as 2001:db8:8::/64 is needed") from None


_KINDS: dict[str, Callable[[str], Value]] = {
    "text": _text,
    "file": _text,
    "name": _text,
    "count": _count,
    "count32": _count32,
    "octets": _octets,
    "window": _window,
    "niceness": _niceness,
    "positive": _positive,
    "seconds": _seconds,
    "port": _port,
    "lport": _lport,
    "mtu": _mtu,
    "host": _host,
    "address4": _address4,
    "address6": _address6,
    "netmask": _netmask,
    "network": _text,  # of `route`: an address, a host name or a keyword; the builder of routes reads it
    "gateway": _text,
    "prefix6": _prefix6,
}

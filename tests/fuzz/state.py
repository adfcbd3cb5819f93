"""A core's state as a flat tuple: what is equal before and after a datagram has not been changed by it.

Walks attributes, slots and containers. Left out are counters and clocks (that a stranger's packet was counted, and
that time went by, is no state), settings (frozen), and what other libraries keep for themselves: of a TLS connection
its state's name counts, of ciphers and functions only that they are there. The tuple's length is the state's size.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Any

from OpenSSL import SSL

from vpn.drops import Drops

_ATOMS = (type(None), bool, int, float, str, bytes, complex)
# clocks; the doorkeeper's rate of answers; the agenda's heap, which is only the order of `_listed`
_LEFT_OUT = frozenset({"_now", "_unix_time", "_period_ends_at", "_answers", "_heap"})
_LEFT_OUT_TYPES = (Drops, SSL.Context)
_FOREIGN = ("cryptography", "_cffi_backend", "builtins", "functools", "random")
_names: dict[type, tuple[str, ...]] = {}


def state_of(core: object) -> tuple[Any, ...]:
    """Everything the core remembers, in a fixed order."""
    found: list[Any] = []
    _walk(core, found, set())
    return tuple(found)


def difference(before: tuple[Any, ...], after: tuple[Any, ...]) -> str:
    """Where two states part, for a message."""
    for place, (old, new) in enumerate(zip(before, after, strict=False)):
        if old != new:
            return f"at {place} of {len(before)}/{len(after)}: {_shown(before, place)} became {_shown(after, place)}"
    return f"size {len(before)} became {len(after)}"


def _shown(state: tuple[Any, ...], place: int) -> str:
    return repr(state[max(0, place - 6) : place + 2])[:300]


def _walk(value: Any, found: list[Any], seen: set[int]) -> None:
    kind = type(value)
    if kind in _ATOMS:
        found.append(value)
        return
    if id(value) in seen:
        return
    if kind is dict:
        found.append(len(value))
        for key, item in value.items():
            _walk(key, found, seen)
            _walk(item, found, seen)
        return
    if kind in (list, tuple, deque):
        found.append(len(value))
        for item in value:
            _walk(item, found, seen)
        return
    if isinstance(value, Enum | set | frozenset):
        found.append(frozenset(value) if isinstance(value, set) else value)
        return
    if kind is bytearray:
        found.append(bytes(value))
        return
    seen.add(id(value))
    _walk_object(value, kind, found, seen)


def _walk_object(value: Any, kind: type, found: list[Any], seen: set[int]) -> None:
    if kind is SSL.Connection:
        found.append(value.get_state_string())
        return
    if isinstance(value, _LEFT_OUT_TYPES) or kind.__module__ == "vpn.settings":
        return
    found.append(kind.__name__)
    if callable(value) or kind.__module__.startswith(_FOREIGN):
        return
    for name in _attributes(value, kind):
        item = getattr(value, name, None)
        if type(item) not in _ATOMS:
            found.append(name)
        _walk(item, found, seen)


def _attributes(value: Any, kind: type) -> tuple[str, ...]:
    if kind not in _names:
        slots = [name for base in kind.__mro__ for name in getattr(base, "__slots__", ())]
        _names[kind] = tuple(name for name in slots if name not in _LEFT_OUT)
    own = getattr(value, "__dict__", None)
    return _names[kind] if own is None else (*_names[kind], *(name for name in own if name not in _LEFT_OUT))

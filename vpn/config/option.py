"""What the tables of options are made of: one `Option` per name, and how it is handled."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, Flag, auto


class Handling(Enum):
    USED = auto()  # does what OpenVPN's manual says
    DEPRECATED = auto()  # the same, with a warning in `note`
    IGNORED = auto()  # accepted without effect; `note` says why that is right
    REFUSED = auto()  # an error; `note` says why, or what to use instead


class Role(Flag):
    """Which kinds of configuration an option belongs in."""

    CLIENT = auto()
    SERVER = auto()
    STATIC_KEY = auto()
    TLS = CLIENT | SERVER
    ANY = CLIENT | SERVER | STATIC_KEY


class Scope(Flag):
    """Where else than at the top of a configuration an option may stand."""

    NONE = 0
    INLINE = auto()  # as a block <name>…</name>
    CONNECTION = auto()  # inside of <connection>
    CLIENT_CONFIG = auto()  # in a file of client-config-dir


@dataclass(frozen=True, slots=True)
class Option:
    """One row: name, shape of its arguments (see `shapes`), handling, reason or warning, roles, places."""

    name: str
    shape: str
    handling: Handling = Handling.USED
    note: str = ""
    roles: Role = Role.ANY
    scope: Scope = Scope.NONE


def used(name: str, shape: str = "", *, roles: Role = Role.ANY, scope: Scope = Scope.NONE) -> Option:
    return Option(name, shape, roles=roles, scope=scope)


def key_file(name: str, shape: str = "file", *, roles: Role = Role.TLS) -> Option:
    """An option that names a file, or has its content inline."""
    return Option(name, shape, roles=roles, scope=Scope.INLINE)


def deprecated(name: str, shape: str, warning: str, *, roles: Role = Role.ANY) -> Option:
    return Option(name, shape, Handling.DEPRECATED, warning, roles)


def ignored(name: str, shape: str, reason: str) -> Option:
    return Option(name, shape, Handling.IGNORED, reason)


def refused(name: str, reason: str) -> Option:
    return Option(name, "[text…]", Handling.REFUSED, reason, scope=Scope.INLINE)

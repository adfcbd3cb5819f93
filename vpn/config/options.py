"""A whole configuration's options with typed values: directives checked against the table.

Mistakes are collected: an unknown name (with the nearest known one), words that do not fit the option's shape, an
option that is refused, or one that does not belong in this kind of configuration. What may be used anyway but deserves
a word becomes a warning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from vpn.config.directives import CONNECTION, Directive
from vpn.config.errors import Place, Problem
from vpn.config.option import Handling, Option, Role, Scope
from vpn.config.shapes import ShapeError, Value, read_arguments
from vpn.config.table import OPTIONS, nearest

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")  # shorter than a line of a static key
_ROLE_NAMES = {
    Role.CLIENT: "a client",
    Role.SERVER: "a server",
    Role.STATIC_KEY: "static-key mode",
    Role.TLS: "TLS mode",
    Role.CLIENT | Role.STATIC_KEY: "a client or static-key mode",
}


@dataclass(frozen=True, slots=True, repr=False)
class Entry:
    """One option that was given. Shape: `values` as the option's shape says, an absent optional value as None."""

    option: Option
    values: tuple[Value, ...]
    place: Place
    inline: bool = False

    def __repr__(self) -> str:
        return f"Entry({self.option.name} at {self.place})"


@dataclass(slots=True)
class Options:
    """What a configuration says, in its order, and what is wrong or remarkable about it."""

    role: Role
    entries: list[Entry] = field(default_factory=list)
    connections: list[Options] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def all(self, name: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.option.name == name]

    def last(self, name: str) -> Entry | None:
        """The entry that counts where only one can: the last one given."""
        found = self.all(name)
        return found[-1] if found else None

    def has(self, name: str) -> bool:
        return self.last(name) is not None

    def value(self, name: str, default: Value = None, index: int = 0) -> Value:
        """One value of the last entry of `name`; `default` if the option or that value was not given."""
        entry = self.last(name)
        if entry is None or entry.values[index] is None:
            return default
        return entry.values[index]

    def refuse(self, entry: Entry, message: str) -> None:
        self.problems.append(Problem(entry.place, entry.option.name, message))

    def lack(self, name: str, message: str, place: Place) -> None:
        self.problems.append(Problem(place, name, message))


def role_of(directives: Sequence[Directive]) -> Role:
    """Which kind of configuration this is, by the options that decide it."""
    names = {directive.name for directive in directives}
    if "secret" in names:
        return Role.STATIC_KEY
    modes = [directive.arguments[:1] for directive in directives if directive.name == "mode"]
    if names & {"server", "server-ipv6", "tls-server"} or ("server",) in modes:
        return Role.SERVER
    return Role.CLIENT


def check_directives(directives: Sequence[Directive], role: Role, scope: Scope = Scope.NONE) -> Options:
    """Types every directive. `scope` limits what may stand here, for connection blocks and client files."""
    options = Options(role)
    tolerated = _tolerated_names(directives)
    for directive in directives:
        if directive.name == CONNECTION:
            inner = check_directives(directive.block, role, Scope.CONNECTION)
            options.problems += inner.problems
            options.warnings += inner.warnings
            options.connections.append(inner)
            continue
        if directive.name == "setenv" and directive.arguments[:1] == ("opt",):
            directive = _conditional(directive)
            if directive.name not in OPTIONS:
                continue
        _check_directive(directive, options, scope, tolerated)
    return options


def _tolerated_names(directives: Iterable[Directive]) -> frozenset[str]:
    named = [d.arguments for d in directives if d.name == "ignore-unknown-option"]
    return frozenset(name for names in named for name in names)


def _conditional(directive: Directive) -> Directive:
    """`setenv opt NAME …`: the option NAME where it is known, nothing where it is not."""
    name = directive.arguments[1] if len(directive.arguments) > 1 else ""
    return Directive(name, directive.arguments[2:], directive.place)


def _check_directive(directive: Directive, options: Options, scope: Scope, tolerated: frozenset[str]) -> None:
    option = OPTIONS.get(directive.name)
    problem = None
    if option is None:
        if directive.name not in tolerated:
            problem = _unknown(directive.name)
    elif option.handling is Handling.REFUSED:
        problem = f"not supported: {option.note}"
    elif directive.inline and Scope.INLINE not in option.scope:
        problem = "this option does not take an inline block"
    elif scope and scope not in option.scope:
        problem = "not allowed in this place"
    elif options.role not in option.roles:
        problem = f"belongs only in the configuration of {_ROLE_NAMES.get(option.roles, 'another role')}"
    else:
        problem = _take(directive, option, options)
    if problem:
        options.problems.append(Problem(directive.place, _shown(directive.name), problem))


def _shown(name: str) -> str:
    """A name as errors quote it: what cannot be an option's may be a line of a key whose block lost its tags."""
    return name if _NAME.fullmatch(name) else "(not the name of an option)"


def _unknown(name: str) -> str:
    close = nearest(name)
    return "unknown option" + (f"; did you mean {close}?" if close else "")


def _take(directive: Directive, option: Option, options: Options) -> str | None:
    if directive.inline:
        needed = len(option.shape.split())
        values: tuple[Value, ...] = (directive.arguments[0], *(None for _ in range(needed - 1)))
    else:
        try:
            values = read_arguments(option.shape, directive.arguments)
        except ShapeError as error:
            return str(error)
    if option.handling is Handling.DEPRECATED:
        options.warnings.append(f"{directive.place}: DEPRECATED OPTION: {option.note}")
    options.entries.append(Entry(option, values, directive.place, directive.inline))
    return None

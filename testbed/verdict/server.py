"""The observer `server:<site>`: what a site's own log recorded of who called and what they asked for.

The evidence is the log file, `frame` its line. A log can only speak of a request it recorded: where it has no line of
an action, nothing about that action is called hidden. A site that is a resolver has lines of what it was asked: it
speaks of the names of every action that turned to it, whatever site they are of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from testbed.facts import Fact, Kind
from testbed.result import Evidence, Exposure, FactRef, Verdict
from testbed.scenario.values import SERVER_OBSERVER
from testbed.verdict.evidence import SiteLog

# The field of a log line that tells each kind; kinds that are not here a web server's log cannot know.
FIELDS = {
    Kind.CLIENT_ADDRESS: "source",
    Kind.SERVER_ADDRESS: "local",
    Kind.HTTP_HOST: "host",
    Kind.HTTP_URL: "url",
    Kind.HTTP_HEADER: "headers",
    Kind.HTTP_BODY: "body",
    Kind.TLS_NAME: "sni",
    Kind.QUIC_NAME: "sni",
    Kind.DNS_NAME: "dns",  # of a resolver that is a site
}
VERBS = ("http", "https", "run")


@dataclass(frozen=True, slots=True)
class Line:
    number: int
    record: Mapping[str, Any]


class LogReader:
    """One site's log, asked for facts."""

    def __init__(self, log: SiteLog, facts: Iterable[Fact]) -> None:
        self.log = log
        self._lines = [Line(number, record) for number, record in enumerate(log.records, 1) if record is not None]
        self.facts = list(self._facts_of_log(tuple(facts)))

    def _facts_of_log(self, facts: tuple[Fact, ...]) -> Iterator[Fact]:
        resolves = any("dns" in line.record for line in self._lines)
        called = {fact.action for fact in facts if fact.kind is Kind.SERVER_ADDRESS and fact.site == self.log.site}
        asked = called if resolves else frozenset()
        for fact in facts:
            if fact.kind is Kind.DNS_NAME:
                if fact.action in asked and fact.value != self.log.site:  # its own name is asked of another resolver
                    yield fact
            elif fact.site == self.log.site and fact.kind in FIELDS and (_verb(fact) in VERBS or fact.action in asked):
                yield fact

    @property
    def observer(self) -> str:
        return f"{SERVER_OBSERVER}{self.log.site}"

    def lines_of(self, action: str) -> list[Line]:
        """The lines that an action caused, known by its canaries, or else by the URL or the name it asked for."""
        facts = [fact for fact in self.facts if fact.action == action]
        # A name or a fixed header line is its own needle, and stands in the lines of other actions too.
        tokens = {needle for fact in facts for needle in fact.needles if needle and needle != fact.value}
        lines = [line for line in self._lines if any(token in text for text in _texts(line.record) for token in tokens)]
        urls = {fact.value for fact in facts if fact.kind is Kind.HTTP_URL}
        names = {fact.value for fact in facts if fact.kind is Kind.DNS_NAME}
        return lines or [line for line in self._lines if line.record.get("url") in urls or _name(line.record) in names]

    def find(self, fact: Fact) -> tuple[Evidence, ...]:
        """The lines of the fact's action that tell it."""
        return tuple(
            Evidence(self.log.file, line.number, float(line.record.get("time") or 0.0), "")
            for line in self.lines_of(fact.action)
            if _tells(line.record, fact)
        )

    def judge(self, fact: Fact, control: str) -> Exposure:
        """The cell of one fact. Shape: `control` says where the same look into a log found such a fact, or is empty."""
        ref = FactRef(fact.kind.value, fact.value, fact.action, fact.site)
        evidence = self.find(fact)
        if evidence:
            return Exposure(self.observer, ref, Verdict.SEEN, evidence)
        lines = self.lines_of(fact.action)
        doubt = self._doubt(fact, lines)
        if doubt:
            return Exposure(self.observer, ref, Verdict.UNPROVEN, (), doubt)
        where = ", ".join(f"line {line.number}" for line in lines)
        if fact.kind is Kind.CLIENT_ADDRESS:
            sources = ", ".join(dict.fromkeys(str(_source(line.record)) for line in lines))
            control = control or f"the log names the address each request came from ({sources})"
            reason = f"{self.log.file} {where}: the request came from {sources}; control: {control}"
            return Exposure(self.observer, ref, Verdict.HIDDEN, (), reason)
        if not control:
            reason = "no control: no log of any variant shows that it would record this"
            return Exposure(self.observer, ref, Verdict.UNPROVEN, (), reason)
        reason = f"not in {self.log.file} {where}, which records the request; control: {control}"
        return Exposure(self.observer, ref, Verdict.HIDDEN, (), reason)

    def _doubt(self, fact: Fact, lines: list[Line]) -> str:
        broken = next((number for number, record in enumerate(self.log.records, 1) if record is None), 0)
        if broken:
            return f"{self.log.file} line {broken} cannot be read, so the log may have recorded more"
        if not lines:
            return f"{self.log.file} has no line of {fact.action}: a request that never came proves nothing"
        if fact.kind is Kind.CLIENT_ADDRESS and not all(_source(line.record) for line in lines):
            return f"{self.log.file} names no source address for {fact.action}"
        cut = any(int(line.record.get("body_octets") or 0) > len(str(line.record.get("body") or "")) for line in lines)
        if fact.kind is Kind.HTTP_BODY and cut:
            return f"{self.log.file} keeps only the first part of a body"
        return ""


def _verb(fact: Fact) -> str:
    return fact.action.rpartition("-")[2]


def _name(record: Mapping[str, Any]) -> str | None:
    """The name that a line of a resolver's log was asked for."""
    query = record.get("dns")
    name = query.get("name") if isinstance(query, Mapping) else None
    return name if isinstance(name, str) else None


def _source(record: Mapping[str, Any]) -> str:
    source = record.get("source")
    return str(source[0]) if isinstance(source, list) and source else ""


def _tells(record: Mapping[str, Any], fact: Fact) -> bool:
    field = record.get(FIELDS[fact.kind])
    if fact.kind in (Kind.CLIENT_ADDRESS, Kind.SERVER_ADDRESS):
        if isinstance(field, list) and field and field[0] == fact.value:
            return True
        # A proxy's or a client's own header may tell it too (X-Forwarded-For).
        told = re.compile(rf"(?<![\w.:]){re.escape(fact.value)}(?![\w.:])")
        return any(told.search(text) for text in _texts(record.get("headers")))
    if fact.kind is Kind.HTTP_HEADER and isinstance(field, list):
        lines = {": ".join(map(str, header)).casefold() for header in field if isinstance(header, list)}
        if fact.value.casefold() in lines:
            return True
    if isinstance(field, str) and field == fact.value:
        return True
    return any(needle in text for needle in fact.needles if needle for text in _texts(field))


def _texts(value: Any) -> Iterator[str]:
    """Every text inside a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)

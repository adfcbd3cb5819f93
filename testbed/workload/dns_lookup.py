"""`dns`: ask a resolver for a name, one query per record type, over UDP, TCP, TLS or HTTPS.

Unless the action names another, the server is the one that resolv.conf names now, so that a tunnel that changes it is
obeyed. A resolver that is named without an address is itself looked up first, in clear, as phones do it for their
"private DNS": that lookup is a fact of its own.

Sources: RFC 1035 section 4; dnslib for the messages (15 ms to import, dnspython takes 57).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dnslib

from testbed.facts import Kind
from testbed.workload.attempt import ActionFailed, Attempt
from testbed.workload.dns_channels import Server, open_channel
from testbed.workload.resolve import is_address, resolve_by_system

RESOLV_CONF = Path("/etc/resolv.conf")
DEFAULT_TYPES = ("A", "AAAA")
RCODE_WORDS = {1: "format error", 2: "server failure", 3: "no such name", 4: "not implemented", 5: "refused"}


@dataclass(slots=True)
class _Answers:
    values: list[str] = field(default_factory=list)
    complaint: str = ""


def perform(attempt: Attempt) -> str:
    """Look the action's target up; returns the answers for people."""
    name, tokens = attempt.canaries.expand(attempt.action.target.lower().rstrip("."), "name")
    kinds = attempt.action.types or DEFAULT_TYPES
    for kind in kinds:
        if kind not in dnslib.QTYPE.reverse:
            raise ActionFailed(f"{kind} is not a record type")
    server = find_server(attempt)
    answers = _Answers()
    for message in ask(attempt, server, name, kinds, tokens):
        _collect(message, answers)
    how = "" if attempt.action.over == "udp" else f" over {attempt.action.over}"
    if not answers.values:
        raise ActionFailed(f"{name}: {answers.complaint or 'the name has no such record'}, says {server}{how}")
    return f"{', '.join(answers.values)} from {server}{how}"


def find_server(attempt: Attempt) -> Server:
    """The resolver that the action names, or else the node's first. Errors: ActionFailed if there is none."""
    written = attempt.action.server
    if written is None:
        return Server((first_name_server(),))
    address, _, name = written.partition("#")
    if name or is_address(address):
        return Server((address,), name or None, chosen=True)
    return Server(tuple(resolve_by_system(attempt, written, ())), written, chosen=True)


def first_name_server() -> str:
    """The first name server of resolv.conf. Errors: ActionFailed if there is none."""
    try:
        lines = RESOLV_CONF.read_text(errors="replace").splitlines()
    except OSError as error:
        raise ActionFailed(f"{RESOLV_CONF}: {error.strerror}") from None
    words = [line.split() for line in lines]
    server = next((word[1] for word in words if len(word) > 1 and word[0] == "nameserver"), None)
    if server is None:
        raise ActionFailed(f"{RESOLV_CONF} names no name server")
    return server


def ask(attempt: Attempt, server: Server, name: str, kinds: Sequence[str], tokens: tuple[str, ...]) -> Iterator[Any]:
    """The answer to each kind of question about `name`, noted as facts. Errors: ActionFailed."""
    with open_channel(attempt, server) as channel:
        for kind in kinds:
            question = dnslib.DNSRecord.question(name, kind)
            question.header.id = secrets.randbelow(1 << 16)
            message = channel.ask(question, lambda: attempt.note_name(Kind.DNS_NAME, name, tokens))
            for record in message.rr:
                if record.rtype in (dnslib.QTYPE.A, dnslib.QTYPE.AAAA):
                    attempt.note(Kind.DNS_ANSWER, str(record.rdata), attempt.site_of_name(name))
            yield message


def addresses_of(attempt: Attempt, name: str, kinds: Sequence[str], tokens: tuple[str, ...]) -> list[str]:
    """The addresses of `name`, asked for as the action says. Errors: ActionFailed if there is none."""
    found: list[str] = []
    answers = _Answers()
    for message in ask(attempt, find_server(attempt), name, kinds, tokens):
        _collect(message, answers)
        found += [str(record.rdata) for record in message.rr if dnslib.QTYPE[record.rtype] in DEFAULT_TYPES]
    if not found:
        raise ActionFailed(f"{name}: {answers.complaint or 'the name has no address'}")
    return found


def _collect(message: Any, answers: _Answers) -> None:
    if message.header.rcode:
        answers.complaint = RCODE_WORDS.get(message.header.rcode, f"response code {message.header.rcode}")
    answers.values += [str(record.rdata) for record in message.rr]

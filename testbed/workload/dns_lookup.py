"""`dns`: ask the node's first name server for a name, in one UDP query per record type; over TCP where it is truncated.

The server is the one resolv.conf names now, so that a tunnel that changes it is obeyed. An answer counts only if it
comes from the server asked and repeats id and question.

Sources: RFC 1035 section 4; RFC 5452 section 9; dnslib for the messages (15 ms to import, dnspython takes 57).
"""

from __future__ import annotations

import secrets
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dnslib

from testbed.facts import Kind
from testbed.workload.attempt import ActionFailed, Attempt, in_words

RESOLV_CONF = Path("/etc/resolv.conf")
PORT = 53
TRIES = 2
DEFAULT_TYPES = ("A", "AAAA")
RCODE_WORDS = {1: "format error", 2: "server failure", 3: "no such name", 4: "not implemented", 5: "refused"}
_HOSTILE = (
    dnslib.DNSError,
    ValueError,
    TypeError,
    LookupError,
    RecursionError,
    OverflowError,
)  # what parsing may raise


@dataclass(slots=True)
class _Answers:
    values: list[str] = field(default_factory=list)
    complaint: str = ""


def perform(attempt: Attempt) -> str:
    """Look the action's target up; returns the answers for people."""
    name, tokens = attempt.canaries.expand(attempt.action.target.lower().rstrip("."), "name")
    server = first_name_server()
    answers = _Answers()
    for kind in attempt.action.types or DEFAULT_TYPES:
        if kind not in dnslib.QTYPE.reverse:
            raise ActionFailed(f"{kind} is not a record type")
        _note_answers(attempt, name, _lookup(attempt, server, name, kind, tokens), answers)
    if not answers.values:
        raise ActionFailed(f"{name}: {answers.complaint or 'the name has no such record'}, says {server}")
    return f"{', '.join(answers.values)} from {server}"


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


def _note_answers(attempt: Attempt, name: str, message: Any, answers: _Answers) -> None:
    if message.header.rcode:
        answers.complaint = RCODE_WORDS.get(message.header.rcode, f"response code {message.header.rcode}")
    for record in message.rr:
        value = str(record.rdata)
        answers.values.append(value)
        if record.rtype in (dnslib.QTYPE.A, dnslib.QTYPE.AAAA):
            attempt.note(Kind.DNS_ANSWER, value, attempt.site_of_name(name))


def _lookup(attempt: Attempt, server: str, name: str, kind: str, tokens: tuple[str, ...]) -> Any:
    failure = ""
    wait_s = attempt.action.timeout / (TRIES + 1)
    for _ in range(TRIES):
        try:
            message = _exchange(attempt, server, name, kind, tokens, socket.SOCK_DGRAM, wait_s)
            if message.header.tc:
                message = _exchange(attempt, server, name, kind, tokens, socket.SOCK_STREAM, attempt.remaining_s())
            return message
        except OSError as error:
            failure = in_words(error)
    raise ActionFailed(f"name server {server}: {failure}")


def _exchange(
    attempt: Attempt,
    server: str,
    name: str,
    kind: str,
    tokens: tuple[str, ...],
    transport: socket.SocketKind,
    wait_s: float,
) -> Any:
    question = dnslib.DNSRecord.question(name, kind)
    question.header.id = secrets.randbelow(1 << 16)
    packed = bytes(question.pack())
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, transport) as sock:
        sock.settimeout(min(wait_s, attempt.remaining_s()))
        sock.connect((server, PORT))
        sock.sendall(packed if transport == socket.SOCK_DGRAM else len(packed).to_bytes(2, "big") + packed)
        attempt.note_name(Kind.DNS_NAME, name, tokens)
        attempt.note_ends(sock, None)
        while True:
            sock.settimeout(min(wait_s, attempt.remaining_s()))
            untrusted = sock.recv(65535) if transport == socket.SOCK_DGRAM else _receive_framed(sock)
            message = parse_answer(untrusted, question)
            if message is not None:
                return message


def parse_answer(untrusted: bytes, question: Any) -> Any:
    """The message, if it answers `question`; None for anything else that may have arrived."""
    try:
        message = dnslib.DNSRecord.parse(untrusted)
    except _HOSTILE:
        return None
    if message.header.id != question.header.id or not message.header.qr or len(message.questions) != 1:
        return None
    return message if message.q.qname == question.q.qname and message.q.qtype == question.q.qtype else None


def _receive_framed(sock: socket.socket) -> bytes:
    with sock.makefile("rb") as stream:
        length = int.from_bytes(stream.read(2), "big")
        octets = stream.read(length)
    if not length or len(octets) < length:
        raise ConnectionResetError("the stream ended inside a message")
    return octets

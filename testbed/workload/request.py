"""What the workload process is asked to do: frozen values, and the JSON on its stdin and stdout.

One JSON object on stdin, then end of file. The keys of an action are those of `testbed.scenario.Action` (its `asdict`
is accepted as it is), plus `group`:

    {"variant": "with", "secret": "00112233445566778899aabbccddeeff",      128 bits; canaries are derived from it
     "actions": [{"id": "1-dns", "verb": "dns", "target": "www.example.com", "site": "www.example.com", "types": ["A"],
                  "timeout": 5.0},
                 {"id": "2-https", "verb": "https", "target": "https://www.example.com/account", "method": "POST",
                  "headers": [["X-Note", "{canary}"]], "body": "note={canary}", "family": "ipv6", "version": "2",
                  "over": "doh", "server": "203.0.113.53#dns.example.net"},
                 {"id": "3-ping", "verb": "ping", "target": "www.example.com", "count": 2, "interval": 0.2},
                 {"id": "4-run", "verb": "run", "argv": ["curl", "https://www.example.com/{canary}"]}],
     "sites": {"www.example.com": ["93.184.216.34", "2001:db8:4::34"]},      which site an address or a name belongs to
     "client_addresses": ["192.168.0.13", "2001:db8:1::13"],                 the client's own, outside of any tunnel
     "ca_certificate": "/path/ca.pem", "ca_bundle": "/path/bundle.pem", "keylog": "/path/keys.log"}

`over` (udp, tcp, dot, doh) and `server` say how the action's names are asked for: by default through the system's own
lookup (`dns`: by its first name server). A server is a name, an address, or `address#name`. All keys but `variant`,
`secret` and `actions` may be missing. Actions run in order, each after the one before it; one with `at` (seconds after
the start) begins then, whatever else still runs, and the next ones follow it. Neighbours with the same `group` number
run in parallel. `{canary}` in a target, header, body or argument becomes a token. `tunnel_device` is not counted among
the client's links. On stdout, one JSON object per line, flushed:

    {"event": "began", "time": 1700000000.0}                                 the start that `at` counts from
    {"event": "start", "id": "1-dns", "time": 1700000000.1}
    {"event": "end", "id": "1-dns", "record": {ActionRecord}, "facts": [{Fact}], "output": "what a run printed"}
    {"event": "done", "facts": [volume and timing of the whole workload, action "session"]}
    {"event": "error", "error": "..."}                                       a bad request; exit code 1

`output` is there for `run` only. Exit code 0 means that every action was tried, not that every one succeeded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

VERBS = ("dns", "http", "https", "ping", "run")
FAMILIES = ("any", "ipv4", "ipv6")
VERSIONS = ("1.1", "2", "3")
TRANSPORTS = ("udp", "tcp", "dot", "doh")
_SECRET = re.compile(r"[0-9a-f]{32,}", re.ASCII)


class RequestError(ValueError):
    """The request is not what this module describes. The message begins with the key's path."""


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do. Units: `timeout`, `interval` and `at` in seconds."""

    id: str
    verb: str
    target: str = ""
    site: str | None = None
    family: str = "any"
    types: tuple[str, ...] = ()
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    body: str | None = None
    version: str = "1.1"
    over: str = "udp"
    server: str | None = None
    argv: tuple[str, ...] = ()
    count: int = 1
    interval: float = 0.2
    timeout: float = 5.0
    at: float | None = None
    group: int | None = None


@dataclass(frozen=True, slots=True)
class WorkloadRequest:
    """Everything one workload process does. `secret` never leaves it except as the tokens derived from it."""

    variant: str
    secret: str = field(repr=False)
    actions: tuple[Action, ...]
    sites: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    client_addresses: tuple[str, ...] = ()
    ca_certificate: str | None = None
    ca_bundle: str | None = None
    keylog: str | None = None
    tunnel_device: str = ""

    @classmethod
    def from_json(cls, text: str | bytes) -> WorkloadRequest:
        """The request in `text`, checked. Errors: RequestError names the key at fault."""
        try:
            untrusted = json.loads(text)
        except ValueError as error:
            raise RequestError(f"request: not JSON: {error}") from None
        _check_keys(untrusted, cls, "request")
        if not _SECRET.fullmatch(str(untrusted.get("secret"))):
            raise RequestError("request.secret: must be at least 128 bits in lower-case hexadecimal")
        if not isinstance(untrusted.get("variant"), str):
            raise RequestError("request.variant: must be text")
        if not isinstance(untrusted.get("actions"), list):
            raise RequestError("request.actions: must be a list")
        values: dict[str, Any] = dict(untrusted)
        values["actions"] = tuple(_parse_action(item, number) for number, item in enumerate(untrusted["actions"]))
        values["sites"] = {site: tuple(addresses) for site, addresses in untrusted.get("sites", {}).items()}
        values["client_addresses"] = tuple(untrusted.get("client_addresses", ()))
        return cls(**values)


def _check_keys(untrusted: Any, wanted: type[WorkloadRequest] | type[Action], path: str) -> None:
    if not isinstance(untrusted, dict):
        raise RequestError(f"{path}: must be an object")
    for key in untrusted:
        if key not in {entry.name for entry in fields(wanted)}:
            raise RequestError(f"{path}.{key}: unknown key")


_TEXTS = ("id", "verb", "target", "family", "method")
_NUMBERS = ("interval", "timeout", "at")


def _parse_action(untrusted: Any, number: int) -> Action:
    path = f"request.actions[{number}]"
    _check_keys(untrusted, Action, path)
    values: dict[str, Any] = {"id": None, "verb": None, **untrusted}
    for key in _TEXTS:
        if not isinstance(values.get(key, ""), str):
            raise RequestError(f"{path}.{key}: must be text")
    for key in _NUMBERS:
        value = values.get(key, 1.0)
        if key == "at" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 3600:
            raise RequestError(f"{path}.{key}: must be a number of seconds up to 3600")
    for key in ("types", "argv"):
        values[key] = _texts(values.get(key, ()), f"{path}.{key}")
    values["headers"] = tuple(_header(item, f"{path}.headers") for item in values.get("headers") or ())
    _check_action(values, path)
    return Action(**values)


def _check_action(values: Mapping[str, Any], path: str) -> None:
    if values["verb"] not in VERBS:
        raise RequestError(f"{path}.verb: {values['verb']!r} is none of {', '.join(VERBS)}")
    for key, words in (("family", FAMILIES), ("version", VERSIONS), ("over", TRANSPORTS)):
        if values.get(key, words[0]) not in words:
            raise RequestError(f"{path}.{key}: {values[key]!r} is none of {', '.join(words)}")
    if not isinstance(values.get("server"), (str, type(None))):
        raise RequestError(f"{path}.server: must be text")
    if values["verb"] == "run" and not values["argv"]:
        raise RequestError(f"{path}.argv: needs at least the program")
    if values["verb"] != "run" and not values.get("target"):
        raise RequestError(f"{path}.target: missing")
    count = values.get("count", 1)
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= 10_000:
        raise RequestError(f"{path}.count: must be a whole number from 1 to 10000")


def _texts(untrusted: Any, path: str) -> tuple[str, ...]:
    if not isinstance(untrusted, (list, tuple)) or not all(isinstance(item, str) for item in untrusted):
        raise RequestError(f"{path}: must be a list of texts")
    return tuple(untrusted)


def _header(untrusted: Any, path: str) -> tuple[str, str]:
    pair = _texts(untrusted, path)
    if len(pair) != 2 or any(character in text for text in pair for character in "\r\n\0") or not pair[0]:
        raise RequestError(f"{path}: each must be a name and a value without line breaks")
    return pair[0], pair[1]

"""What an HTTP request of the workload says, whatever version carries it: URL, headers and body with their canaries.

A canary goes into the URL, into a cookie and into the body, unless the scenario has put one there. `note` turns what
was sent into facts. Header lines are noted as they stand on the wire: from HTTP/2 on, in lower case.

Sources: RFC 9110; RFC 9113 section 8.2 for the case of header names.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from testbed.facts import Kind
from testbed.workload.attempt import ActionFailed, Attempt
from testbed.workload.canary import PLACEHOLDER
from testbed.workload.resolve import is_address

PORTS = {"http": 80, "https": 443}
FIXED_NEEDLE_LETTERS = 8  # a shorter fixed header value would be found anywhere by chance
BODY_VALUE_LETTERS = 1024


@dataclass(frozen=True, slots=True)
class Target:
    """A URL with its canaries in place. Shape: `authority` is `host[:port]`, without the scheme's default port."""

    scheme: str
    host: str
    port: int
    path: str
    host_tokens: tuple[str, ...]
    path_tokens: tuple[str, ...]

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


@dataclass(frozen=True, slots=True)
class Message:
    """Headers and body to send, and which of them are facts with which needles."""

    headers: tuple[tuple[str, str], ...]
    header_needles: dict[str, str]  # header line -> what gives it away
    body: bytes | None
    body_tokens: tuple[str, ...]


def plan_target(attempt: Attempt) -> Target:
    """The URL of the action, with a canary in its query unless it has one already. Errors: ActionFailed."""
    written = attempt.action.target
    try:
        parts = urlsplit(written if "://" in written else f"{attempt.action.verb}://{written}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ActionFailed(f"{written}: {error}") from None
    if parts.scheme not in PORTS or not host:
        raise ActionFailed(f"{written}: not an http or https URL")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if PLACEHOLDER not in path:
        path += f"{'&' if parts.query else '?'}visit={PLACEHOLDER}"
    host, host_tokens = attempt.canaries.expand(host, "name")
    path, path_tokens = attempt.canaries.expand(path, "url")
    return Target(parts.scheme, host, port or PORTS[parts.scheme], path, host_tokens, path_tokens)


def plan_message(attempt: Attempt) -> Message:
    """What to send below the request line: the action's own headers and body, a canary in a cookie and the body."""
    action, canaries = attempt.action, attempt.canaries
    written = list(action.headers)
    names = {name.lower() for name, _ in written}
    body: str | None = None
    body_tokens: tuple[str, ...] = ()
    if action.body is not None or action.method in ("POST", "PUT", "PATCH"):
        text = action.body if action.body is not None else f"note={PLACEHOLDER}"
        body, body_tokens = canaries.expand(text if PLACEHOLDER in text else f"{text}&note={PLACEHOLDER}", "body")
        if "content-type" not in names:
            written.append(("Content-Type", "application/x-www-form-urlencoded"))
    if "cookie" not in names:
        written.append(("Cookie", f"session={PLACEHOLDER}"))
    headers, needles = [], {}
    for number, (original, value) in enumerate(written):
        name = original if action.version == "1.1" else original.lower()
        expanded, tokens = canaries.expand(value, f"header-{number}-{name.lower()}")
        headers.append((name, expanded))
        if tokens:
            needles[f"{name}: {expanded}"] = tokens[0]
        elif number < len(action.headers) and len(expanded) >= FIXED_NEEDLE_LETTERS:
            # The whole line: a value such as text/html stands in other messages too.
            needles[f"{name}: {expanded}"] = f"{name}: {expanded}"
    if "user-agent" not in names:
        agent = f"testbed-workload/1 (HTTP/{action.version})"
        headers.append(("User-Agent" if action.version == "1.1" else "user-agent", agent))
    return Message(tuple(headers), needles, None if body is None else body.encode(), body_tokens)


def note_message(attempt: Attempt, target: Target, message: Message) -> None:
    """Record the facts of a request that has been sent.

    Those of https are what an observer could only learn by breaking TLS. It has no http-host fact: the name that TLS
    shows is the tls-name, and the one inside cannot be told from it.
    """
    site = attempt.site_of_address(target.host) if is_address(target.host) else attempt.site_of_name(target.host)
    if target.scheme == "http":
        attempt.note(Kind.HTTP_HOST, target.host, site, target.host_tokens or (target.host,))
    attempt.note(Kind.HTTP_URL, target.url, site, target.path_tokens)
    for line, needle in message.header_needles.items():
        attempt.note(Kind.HTTP_HEADER, line, site, (needle,))
    if message.body is not None:
        text = message.body.decode("utf-8", "backslashreplace")
        attempt.note(Kind.HTTP_BODY, text[:BODY_VALUE_LETTERS], site, message.body_tokens)

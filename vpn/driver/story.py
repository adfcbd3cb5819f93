"""What happened, in the words of openvpn's log: events and drops as lines. Pure.

People's tools wait for these lines (`Initialization Sequence Completed`, `Peer Connection Initiated with …`,
`AUTH_FAILED`, `TLS Error: …`, `VERIFY ERROR: …`), so they are spelled as openvpn 2.6 spells them.
"""

from __future__ import annotations

from collections.abc import Mapping

from vpn.driver.transport import show_address
from vpn.events import (
    AuthFailed,
    ClientConnected,
    ClientGone,
    Closed,
    CloseReason,
    Connected,
    Event,
    Floated,
    Information,
    RefusalReason,
    Refused,
    Renegotiated,
    Restart,
    TlsEstablished,
)

READY = "Initialization Sequence Completed"
READY_WITH_ERRORS = f"{READY} With Errors"
# OpenSSL's words where it has some, since they are what people search for.
_VERIFY_REASONS = {
    RefusalReason.UNTRUSTED_CERTIFICATE: "unable to get issuer certificate: not signed by the configured CA",
    RefusalReason.EXPIRED_CERTIFICATE: "certificate has expired or is not yet valid",
    RefusalReason.REVOKED_CERTIFICATE: "certificate revoked",
    RefusalReason.WRONG_PURPOSE: "unsuitable certificate purpose",
    RefusalReason.WRONG_NAME: "certificate has another name than required",
}
_RESTARTS = {
    CloseReason.PING_TIMEOUT: "ping-restart",
    CloseReason.HANDSHAKE_TIMEOUT: "tls-error",
    CloseReason.PUSH_TIMEOUT: "no-push-reply",
    CloseReason.REFUSED: "tls-error",
    CloseReason.AUTH_FAILED: "auth-failure",
    CloseReason.RESTART: "server-pushed-connection-reset",
    CloseReason.TRANSPORT: "connection-reset",
    CloseReason.PEER_EXIT: "remote-exit",
    CloseReason.KEY_EXPIRED: "key-expired",
}
_ENDS = {
    CloseReason.INACTIVE: "Inactivity timeout (--inactive), exiting",
    CloseReason.SESSION_TIMEOUT: "Session timeout, exiting",
    CloseReason.HALT: "Halt command was pushed by server",
    CloseReason.PING_TIMEOUT: "Inactivity timeout (--ping-exit), exiting",
}


def tell_client(event: Event) -> list[str]:
    """The lines of one event of a client; none for events that are told elsewhere."""
    if isinstance(event, TlsEstablished):
        return [
            f"VERIFY OK: depth=0, {event.subject}",
            f"Control Channel: {event.version}, cipher {event.version} {event.cipher}",
        ]
    if isinstance(event, Connected):
        shown = show_address(event.server)
        peer = f", peer-id: {event.peer_id}" if event.peer_id is not None else ""
        return [
            f"[{event.common_name}] Peer Connection Initiated with {shown}",
            f"Data Channel: cipher '{event.cipher}'{peer}",
            *_protocol_options(event.options.protocol_flags),
            *event.options.errors,
        ]
    if isinstance(event, AuthFailed):
        reason = f",{event.reason}" if event.reason else ""
        return [f"AUTH: Received control message: AUTH_FAILED{',TEMP' if event.temporary else ''}{reason}"]
    if isinstance(event, Restart):
        return ["Connection reset command was pushed by server" + (f" ('{event.text}')" if event.text else "")]
    if isinstance(event, Information):
        return [f"Info command was pushed by server ('{event.text}')"]
    return tell_any(event)


def _protocol_options(flags: frozenset[str]) -> list[str]:
    """What the server switched on: `tls-ekm` in it means keys from the TLS exporter, else they are the PRF's."""
    return [f"Protocol options: protocol-flags {' '.join(sorted(flags))}"] if flags else []


def tell_any(event: Event) -> list[str]:
    """The lines of events that both roles have."""
    if isinstance(event, Refused):
        return refusal_lines(event)
    if isinstance(event, Renegotiated):
        return [f"TLS: new session key in use (key id {event.key_id})"]
    if isinstance(event, Floated):
        return [f"peer floated from {show_address(event.old)} to {show_address(event.new)}"]
    return []


def refusal_lines(event: Refused) -> list[str]:
    if event.reason in _VERIFY_REASONS:
        return [f"VERIFY ERROR: {_VERIFY_REASONS[event.reason]}: {event.detail}", "TLS Error: TLS handshake failed"]
    if event.reason is RefusalReason.BAD_CREDENTIALS:
        return [f"TLS Auth Error: Auth Username/Password verification failed for peer: {event.detail}"]
    return [f"TLS Error: {event.reason}: {event.detail}", "TLS Error: TLS handshake failed"]


def closing_lines(event: Closed, *, handshake_seconds: float, retry: bool) -> list[str]:
    """Why a client's association ended, and what comes next."""
    lines: list[str] = []
    if event.reason is CloseReason.HANDSHAKE_TIMEOUT:
        lines.append(
            f"TLS Error: TLS key negotiation failed to occur within {handshake_seconds:g} seconds "
            "(check your network connectivity)"
        )
        lines.append("TLS Error: TLS handshake failed")
    elif event.reason is CloseReason.PING_TIMEOUT and retry:
        lines.append("Inactivity timeout (--ping-restart), restarting")
    elif event.reason in _ENDS:
        lines.append(_ENDS[event.reason])
    elif event.reason is not CloseReason.LOCAL:
        lines.append(f"Connection ended: {event.reason}" + (f": {event.detail}" if event.detail else ""))
    if retry:
        lines.append(f"SIGUSR1[soft,{restart_reason(event)}] received, process restarting")
    return lines


def restart_reason(event: Closed) -> str:
    """Why a client connects anew, in openvpn's words."""
    return _RESTARTS.get(event.reason, "restart")


def tell_server(event: Event) -> list[str]:
    """The lines of one event of a server, beginning with the client as openvpn's do."""
    if isinstance(event, ClientConnected):
        address = show_address(event.address)
        name = client_name(event.common_name or event.username, event.address)
        addresses = [str(a) for a in (event.ifconfig, event.ifconfig_ipv6) if a is not None]
        return [
            f"{name} Control Channel: {event.tls_version}, cipher {event.tls_version} {event.tls_cipher}",
            f"{name} [{event.common_name}] Peer Connection Initiated with {address}",
            f"{name} MULTI: primary virtual IP for {name}: {', '.join(addresses) or '(none)'}",
            f"{name} Data Channel: cipher '{event.cipher}', peer-id: {event.peer_id}",
        ]
    if isinstance(event, ClientGone):
        name = client_name(event.common_name, event.address)
        detail = f": {event.detail}" if event.detail else ""
        if event.reason is CloseReason.PEER_EXIT:
            return [f"{name} SIGTERM[soft,remote-exit] received, client-instance exiting"]
        if event.reason in (CloseReason.INACTIVE, CloseReason.SESSION_TIMEOUT):
            return [f"{name} {_ENDS[event.reason]}"]
        return [f"{name} client-instance ended: {event.reason}{detail}"]
    if isinstance(event, Refused):
        return [f"{show_address(event.address)} {line}" for line in refusal_lines(event)]
    return tell_any(event)


def client_name(common_name: str, address: tuple[str | int, ...]) -> str:
    shown = show_address(address).partition("]")[2]
    return f"{common_name}/{shown}" if common_name else shown


def drop_lines(drops: Mapping[str, int], *, unsent: int, refused_by_kernel: int) -> list[str]:
    """Every counted drop, one per line; one line that says so if there is none."""
    counts = dict(drops)
    counts |= {"NOT_SENT": unsent, "NOT_DELIVERED": refused_by_kernel}
    lines = [f"Dropped: {reason} {count}" for reason, count in sorted(counts.items()) if count]
    return lines or ["Dropped: none"]

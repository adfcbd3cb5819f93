"""What a client makes of pushed options: the data channel's parameters, its timers, its token. Pure.

Source: openvpn-protocol.md section 8.1.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import replace

from vpn.dataplane.channel import Negotiated
from vpn.negotiation import TLS_EKM, cipher_as_client
from vpn.push import PushedOptions
from vpn.push_parser import filter_options, parse_options, without_names
from vpn.settings import ClientSettings, Timers
from vpn.wire.packet import PeerId


def read_configuration(
    texts: Iterable[str], server_options: str, settings: ClientSettings
) -> tuple[PushedOptions, Negotiated]:
    """All options of a complete reply, and what they make of the data channel. Errors: BadPush, NoSharedCipher."""
    options = parse_options(filter_options(texts, settings.pull_filters, nopull=settings.route_nopull))
    if not settings.allow_pull_fqdn:
        options = without_names(options)
    cipher = cipher_as_client(options, server_options, settings.data)
    peer_id = None if options.peer_id is None else PeerId(options.peer_id)
    compression = settings.data.compression if options.compression is None else options.compression
    return options, Negotiated(cipher, TLS_EKM in options.protocol_flags, peer_id, compression)


def pushed_timers(own: Timers, options: PushedOptions) -> Timers:
    """The client's own timers, with the server's in the place of those that it pushed."""
    return replace(
        own,
        ping=float(own.ping if options.ping is None else options.ping),
        ping_restart=float(own.ping_restart if options.ping_restart is None else options.ping_restart),
        ping_exit=float(own.ping_exit if options.ping_exit is None else options.ping_exit),
        inactive=float(own.inactive if options.inactive is None else options.inactive),
        inactive_octets=own.inactive_octets if options.inactive is None else options.inactive_octets,
        session_timeout=float(options.session_timeout or own.session_timeout),
    )


def pushed_token(options: PushedOptions, username: str) -> tuple[str, str] | None:
    """User name and token that take the password's place from now on; None if no token was pushed."""
    if options.auth_token is None:
        return None
    if options.auth_token_user is not None:
        username = _decode_user(options.auth_token_user) or username
    return username, options.auth_token


def _decode_user(text: str) -> str:
    """The user name of auth-token-user, which is base64; empty if it is not."""
    try:
        return base64.b64decode(text, validate=True).decode()
    except ValueError:
        return ""

"""What an end says of itself in its key message: the options string of either role, the peer info of a client. Pure.

Source: openvpn-protocol.md sections 5.1 and 5.2.
"""

from __future__ import annotations

from vpn.negotiation import client_protocol, equals_protocol
from vpn.settings import ClientSettings, KeyDirection, ServerSettings, Wrapping
from vpn.version import IV_VERSION
from vpn.wire.occ import LinkDescription, build_options
from vpn.wire.peer_info import build_peer_info

_LEAST_MTU = 1600  # 2.6 announces what its buffers hold, not what it uses


def options_string(settings: ClientSettings | ServerSettings) -> str:
    """The string that old peers compare; it names the framing, and the cipher only where there is a fallback."""
    control = settings.control
    tls_auth = control.wrapping is Wrapping.TLS_AUTH
    directed = tls_auth and control.direction is not KeyDirection.BIDIRECTIONAL
    return build_options(
        LinkDescription(
            tls_server=isinstance(settings, ServerSettings),
            transport=settings.transport,
            transport_ipv6=settings.transport_ipv6,
            tun_mtu=settings.data.tun_mtu,
            digest=settings.data.digest,
            cipher=settings.data.fallback_cipher,
            compression=settings.data.compression,
            tls_auth=tls_auth,
            key_direction=int(control.direction) if directed else None,
        )
    )


def peer_info(settings: ClientSettings | ServerSettings) -> str:
    """The lines that tell the other end what this one can do. A server says nothing, unless it is point-to-point."""
    if isinstance(settings, ServerSettings) and not settings.point_to_point:
        return ""
    is_client = isinstance(settings, ClientSettings) and settings.pull
    protocol_of = client_protocol if is_client else equals_protocol
    protocol = protocol_of(key_export=settings.tls_key_export, dynamic_tls_crypt=settings.dynamic_tls_crypt)
    ciphers = [cipher.value for cipher in settings.data.data_ciphers]
    mtu = max(settings.data.tun_mtu, _LEAST_MTU)
    extra = settings.peer_info if isinstance(settings, ClientSettings) else ()
    return build_peer_info(protocol, ciphers, mtu, IV_VERSION, extra).build()

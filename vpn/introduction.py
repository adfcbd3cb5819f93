"""What an end says of itself in its key message: the options string of either role, the peer info of a client. Pure.

Source: openvpn-protocol.md sections 5.1 and 5.2.
"""

from __future__ import annotations

from vpn.negotiation import client_protocol
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


def client_peer_info(settings: ClientSettings) -> str:
    """The lines that tell a server what this client can do."""
    protocol = client_protocol(key_export=settings.tls_key_export, dynamic_tls_crypt=settings.dynamic_tls_crypt)
    ciphers = [cipher.value for cipher in settings.data.data_ciphers]
    mtu = max(settings.data.tun_mtu, _LEAST_MTU)
    return build_peer_info(protocol, ciphers, mtu, IV_VERSION, settings.peer_info).build()

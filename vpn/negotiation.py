"""What two peers agree on: cipher, key derivation, renegotiation protection.

The server decides from what the client says of itself (peer info, or an old client's options string) and tells the
client by pushed options; the client accepts only what it offered. Pure.

Sources: openvpn-protocol.md sections 5.2 and 8.1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vpn.push import PushedOptions
from vpn.settings import Cipher, DataSettings
from vpn.wire.occ import options_cipher
from vpn.wire.peer_info import PeerInfo, Protocol

TLS_EKM = "tls-ekm"
CC_EXIT = "cc-exit"
DYN_TLS_CRYPT = "dyn-tls-crypt"


class NoSharedCipher(ValueError):
    """The two ends have no data cipher in common."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """The server's decision about one client. `pushed` are the options that tell the client."""

    cipher: Cipher
    key_export: bool
    data_v2: bool
    exit_message: bool
    dynamic_tls_crypt: bool
    pushed: tuple[str, ...]


def client_protocol(*, key_export: bool, dynamic_tls_crypt: bool) -> Protocol:
    """IV_PROTO of our client: exactly what it implements."""
    protocol = (
        Protocol.DATA_V2
        | Protocol.REQUEST_PUSH
        | Protocol.AUTH_PENDING_KW
        | Protocol.DNS_OPTION
        | Protocol.CC_EXIT_NOTIFY
        | Protocol.AUTH_FAIL_TEMP
    )
    if key_export:
        protocol |= Protocol.TLS_KEY_EXPORT
        if dynamic_tls_crypt:
            protocol |= Protocol.DYN_TLS_CRYPT
    return protocol


def agree_as_server(
    info: PeerInfo, options: str, data: DataSettings, *, key_export: bool, dynamic_tls_crypt: bool
) -> Agreement:
    """Decide for one client. Errors: NoSharedCipher."""
    protocol = info.protocol
    export = key_export and Protocol.TLS_KEY_EXPORT in protocol
    exit_message = Protocol.CC_EXIT_NOTIFY in protocol
    dynamic = dynamic_tls_crypt and export and exit_message and Protocol.DYN_TLS_CRYPT in protocol
    cipher = _choose_cipher(info, options, data)
    pushed = [f"cipher {cipher}"] if info.negotiates_ciphers else []
    flags = [CC_EXIT] * exit_message + [TLS_EKM] * export + [DYN_TLS_CRYPT] * dynamic
    if exit_message:
        pushed.append("protocol-flags " + " ".join(flags))
    elif export:
        pushed.append(f"key-derivation {TLS_EKM}")
    if info.mtu is not None:
        pushed.append(f"tun-mtu {min(info.mtu, data.tun_mtu)}")
    return Agreement(cipher, export, Protocol.DATA_V2 in protocol, exit_message, dynamic, tuple(pushed))


def equals_protocol(*, key_export: bool, dynamic_tls_crypt: bool) -> Protocol:
    """IV_PROTO of an end that is neither client nor server."""
    protocol = Protocol.DATA_V2 | Protocol.NCP_P2P | Protocol.DNS_OPTION | Protocol.CC_EXIT_NOTIFY
    if key_export:
        protocol |= Protocol.TLS_KEY_EXPORT
        if dynamic_tls_crypt:
            protocol |= Protocol.DYN_TLS_CRYPT
    return protocol


def agree_as_equals(
    info: PeerInfo, options: str, data: DataSettings, *, tls_server: bool, key_export: bool, dynamic_tls_crypt: bool
) -> Agreement:
    """What both ends of a point-to-point tunnel work out for themselves: nothing is pushed. Errors: NoSharedCipher.

    Of the ciphers in common the one that the TLS server likes best counts.
    """
    protocol = info.protocol
    export = key_export and Protocol.TLS_KEY_EXPORT in protocol
    dynamic = dynamic_tls_crypt and export and Protocol.DYN_TLS_CRYPT in protocol
    own, theirs = [cipher.value for cipher in data.data_ciphers], list(info.ciphers)
    first, second = (own, theirs) if tls_server else (theirs, own)
    common = next((name for name in first if name in second), None)
    cipher = Cipher(common) if common else _choose_cipher(info, options, data)
    exit_message = Protocol.CC_EXIT_NOTIFY in protocol
    return Agreement(cipher, export, Protocol.DATA_V2 in protocol, exit_message, dynamic, ())


def protocol_flags(agreement: Agreement) -> str:
    """The agreement as the option that a server would push."""
    flags = [CC_EXIT] * agreement.exit_message + [TLS_EKM] * agreement.key_export
    return " ".join(["protocol-flags", *flags, *[DYN_TLS_CRYPT] * agreement.dynamic_tls_crypt])


def _choose_cipher(info: PeerInfo, options: str, data: DataSettings) -> Cipher:
    offered = info.ciphers or tuple(filter(None, [options_cipher(options)]))
    for cipher in data.data_ciphers:
        if cipher.value in offered:
            return cipher
    if data.fallback_cipher is not None and not info.negotiates_ciphers:
        return data.fallback_cipher
    raise NoSharedCipher("Data channel cipher negotiation failed (no shared cipher)")


def cipher_as_client(pushed: PushedOptions, server_options: str, data: DataSettings) -> Cipher:
    """The cipher a client must use. Errors: NoSharedCipher if it is not one the client offered."""
    allowed = data.data_ciphers
    if pushed.cipher is not None:
        if pushed.cipher in allowed or pushed.cipher is data.fallback_cipher:
            return pushed.cipher
        raise NoSharedCipher(f"the server chose {pushed.cipher}, which data-ciphers does not list")
    named = options_cipher(server_options)
    for cipher in _known(allowed, data.fallback_cipher):
        if cipher.value == named:
            return cipher
    if data.fallback_cipher is not None:
        return data.fallback_cipher
    raise NoSharedCipher("the server pushed no cipher, and data-ciphers-fallback is not set")


def _known(ciphers: Iterable[Cipher], fallback: Cipher | None) -> Iterable[Cipher]:
    yield from ciphers
    if fallback is not None:
        yield fallback

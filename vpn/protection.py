"""From the settings of control-channel protection to the wrapper of one session. Pure."""

from __future__ import annotations

from vpn.crypto.static_key import split_key
from vpn.crypto.wrapping import PlainWrapper, TlsAuthWrapper, TlsCryptWrapper, Wrapper
from vpn.settings import ControlProtection, KeyDirection, Wrapping
from vpn.wire.early import EARLY_COUNTER_BASE


def client_wrapper(protection: ControlProtection, unix_time: int) -> Wrapper:
    """The wrapper of a new session of a client."""
    if protection.wrapping is Wrapping.TLS_CRYPT_V2:
        keys = split_key(protection.static_key, KeyDirection.INVERSE)
        # the high first replay id tells the server that we can start without state there
        return TlsCryptWrapper(keys, unix_time, EARLY_COUNTER_BASE)
    if protection.wrapping is Wrapping.TLS_CRYPT:
        return TlsCryptWrapper(split_key(protection.static_key, KeyDirection.INVERSE), unix_time)
    return _plain_or_tls_auth(protection, unix_time)


def server_wrapper(protection: ControlProtection, unix_time: int, client_key: bytes = b"", sent: int = 0) -> Wrapper:
    """The wrapper of a server for one client; `client_key` with tls-crypt-v2. `sent`: replay ids already used."""
    if protection.wrapping is Wrapping.TLS_CRYPT_V2:
        return TlsCryptWrapper(split_key(client_key, KeyDirection.NORMAL), unix_time, sent)
    if protection.wrapping is Wrapping.TLS_CRYPT:
        return TlsCryptWrapper(split_key(protection.static_key, KeyDirection.NORMAL), unix_time, sent)
    return _plain_or_tls_auth(protection, unix_time, sent)


def _plain_or_tls_auth(protection: ControlProtection, unix_time: int, sent: int = 0) -> Wrapper:
    if protection.wrapping is Wrapping.NONE:
        return PlainWrapper()
    keys = split_key(protection.static_key, protection.direction)
    return TlsAuthWrapper(keys, protection.digest, unix_time, sent)


def base_key(protection: ControlProtection, client_key: bytes = b"") -> bytes:
    """The key that goes into dynamic tls-crypt; empty without wrapping."""
    if protection.wrapping is Wrapping.NONE:
        return b""
    return client_key or protection.static_key

"""TLS, control channel and data channel settings from options."""

from __future__ import annotations

from vpn.config.files import FileReader
from vpn.config.model import Family, Protocol
from vpn.config.option import Role
from vpn.config.options import Entry, Options
from vpn.config.tls_names import DEFAULT_CIPHERS, openssl_ciphers, openssl_ciphersuites
from vpn.crypto.static_key import parse_client_key, parse_server_key, parse_static_key
from vpn.settings import (
    CertificateRole,
    Cipher,
    ClientCertificate,
    Compression,
    ControlProtection,
    DataSettings,
    Digest,
    KeyDirection,
    NameRule,
    TlsSettings,
    TlsVersion,
    Wrapping,
)
from vpn.wire.packet import Malformed

_VERSIONS = {"1.0": TlsVersion.TLS_1_2, "1.1": TlsVersion.TLS_1_2, "1.2": TlsVersion.TLS_1_2, "1.3": TlsVersion.TLS_1_3}
_DIRECTIONS = {None: KeyDirection.BIDIRECTIONAL, "0": KeyDirection.NORMAL, "1": KeyDirection.INVERSE}
_WRAPPINGS = ("tls-auth", "tls-crypt", "tls-crypt-v2")
_CBC = frozenset({Cipher.AES_128_CBC, Cipher.AES_192_CBC, Cipher.AES_256_CBC})
_DEFAULT_MTU = 1500
_FRAMINGS = {
    "stub": Compression.STUB,
    "lz4": Compression.STUB,
    "lzo": Compression.COMP_LZO,
    "stub-v2": Compression.STUB_V2,
    "lz4-v2": Compression.STUB_V2,
    "migrate": Compression.NONE,
}


def build_tls(options: Options, files: FileReader) -> TlsSettings:
    """The TLS end's settings; files named by options are read here."""

    def text(name: str, *, secret: bool = False) -> str:
        entry = options.last(name)
        return files.text(options, entry, secret=secret) if entry else ""

    minimum = _version(options, "tls-version-min", TlsVersion.TLS_1_2)
    maximum = _version(options, "tls-version-max", TlsVersion.TLS_1_3)
    if maximum < minimum and (entry := options.last("tls-version-max")):
        options.refuse(entry, "lower than the lowest version allowed")
    role = options.value("remote-cert-tls")
    if (crl := options.last("crl-verify")) and crl.values[1] == "dir":
        options.refuse(crl, "a directory of serial numbers is not supported; name one CRL file")
    rule = options.value("verify-x509-name", "subject", index=1)
    return TlsSettings(
        ca=text("ca"),
        certificate=text("cert") + text("extra-certs"),
        private_key=text("key", secret=True),
        minimum_version=minimum,
        maximum_version=maximum,
        ciphers=openssl_ciphers(options.value("tls-cipher", DEFAULT_CIPHERS)),
        ciphersuites=openssl_ciphersuites(options.value("tls-ciphersuites", "")),
        remote_cert_tls=CertificateRole(role) if role else None,
        verify_name=options.value("verify-x509-name", ""),
        verify_name_rule=NameRule(rule),
        crl=text("crl-verify"),
        client_certificate=ClientCertificate(options.value("verify-client-cert", "require")),
    )


def _version(options: Options, name: str, default: TlsVersion) -> TlsVersion:
    entry = options.last(name)
    if entry is None:
        return default
    word = entry.values[0]
    if word not in _VERSIONS:
        if name == "tls-version-min" and entry.values[1] == "or-highest":
            return TlsVersion.TLS_1_3
        options.refuse(entry, f"{word!r}: allowed are {', '.join(_VERSIONS)}")
        return default
    if word in ("1.0", "1.1"):
        if name == "tls-version-max":
            options.refuse(entry, "TLS below 1.2 is not supported")
        else:
            options.warnings.append(f"{entry.place}: {name}: TLS below 1.2 is never used; 1.2 is the lowest here")
    return _VERSIONS[word]


def key_direction(options: Options, entry: Entry) -> KeyDirection:
    """The direction beside the key file, else that of `key-direction`."""
    return _DIRECTIONS[entry.values[1] or options.value("key-direction")]


def build_control(options: Options, files: FileReader) -> ControlProtection:
    """How control packets are wrapped; at most one of tls-auth, tls-crypt, tls-crypt-v2 may be given."""
    given = [entry for name in _WRAPPINGS if (entry := options.last(name))]
    if not given:
        return ControlProtection()
    for extra in given[1:]:
        options.refuse(extra, f"cannot be used together with {given[0].option.name}")
    entry = given[0]
    text = files.text(options, entry, secret=True)
    if not text:
        return ControlProtection()
    try:
        return _control_protection(options, entry, text)
    except Malformed as error:
        source = "the inline block" if entry.inline else entry.values[0]
        options.refuse(entry, f"{source}: {error}")
        return ControlProtection()


def _control_protection(options: Options, entry: Entry, text: str) -> ControlProtection:
    wrapping = Wrapping(entry.option.name)
    if wrapping is Wrapping.TLS_AUTH:
        key = parse_static_key(text)
        direction = key_direction(options, entry)
        return ControlProtection(wrapping, static_key=key, direction=direction, digest=build_digest(options))
    if wrapping is Wrapping.TLS_CRYPT:
        return ControlProtection(wrapping, static_key=parse_static_key(text))
    if options.role is Role.SERVER:
        key = parse_server_key(text)
        return ControlProtection(wrapping, server_key=key, force_cookie=entry.values[1] == "force-cookie")
    client_key, wrapped = parse_client_key(text)
    return ControlProtection(wrapping, static_key=client_key, wrapped_client_key=wrapped)


def build_digest(options: Options) -> Digest:
    """`auth`; SHA1 by default, as everywhere in OpenVPN."""
    entry = options.last("auth")
    if entry is None:
        return Digest.SHA1
    word = str(entry.values[0]).upper().replace("SHA-", "SHA")
    if word not in set(Digest):
        reason = "packets without authentication are not supported" if word == "NONE" else "unknown digest"
        options.refuse(entry, f"{entry.values[0]}: {reason}; supported are {', '.join(Digest)}")
        return Digest.SHA1
    return Digest(word)


def build_data(options: Options, protocol: Protocol) -> DataSettings:
    """What the data channel may use."""
    defaults = DataSettings()
    fallback = options.last("data-ciphers-fallback")
    mtu = options.value("tun-mtu", defaults.tun_mtu)
    ciphers = _cipher_list(options) or defaults.data_ciphers
    _warn_of_unused_cipher(options, ciphers)
    mssfix, inner = build_mssfix(options, protocol, mtu)
    return DataSettings(
        data_ciphers=ciphers,
        fallback_cipher=_cipher(options, fallback, fallback.values[0]) if fallback else None,
        digest=build_digest(options),
        compression=build_compression(options),
        tun_mtu=mtu,
        mssfix=mssfix,
        mssfix_inner=inner,
        replay_window=options.value("replay-window", defaults.replay_window),
        replay_time=float(options.value("replay-window", defaults.replay_time, index=1)),
    )


def _cipher_list(options: Options) -> tuple[Cipher, ...]:
    """`data-ciphers`: names with colons between; one after `?` may be unknown, `DEFAULT` stands for the usual ones."""
    entry = options.last("data-ciphers") or options.last("ncp-ciphers")
    if entry is None:
        return ()
    ciphers: list[Cipher] = []
    for word in str(entry.values[0]).split(":"):
        if word.upper() == "DEFAULT":
            ciphers += DataSettings().data_ciphers
        elif word.startswith("?") and word[1:].upper() not in set(Cipher):
            continue
        elif (cipher := _cipher(options, entry, word.removeprefix("?"))) is not None:
            ciphers.append(cipher)
    return tuple(dict.fromkeys(ciphers))


def _cipher(options: Options, entry: Entry, word: str) -> Cipher | None:
    if word.upper() in set(Cipher):
        return Cipher(word.upper())
    options.refuse(entry, f"{word!r}: not a supported cipher; supported are {', '.join(Cipher)}")
    return None


def _warn_of_unused_cipher(options: Options, ciphers: tuple[Cipher, ...]) -> None:
    entry = options.last("cipher")
    if entry is not None and str(entry.values[0]).upper() not in ciphers:
        listed = ":".join(ciphers)
        options.warnings.append(
            f"DEPRECATED OPTION: --cipher set to '{entry.values[0]}' but missing in --data-ciphers ({listed}). "
            "--cipher is ignored for cipher negotiations."
        )


def build_static_cipher(options: Options) -> Cipher:
    """`cipher` of static-key mode, which has no negotiation and cannot use an AEAD cipher."""
    entry = options.last("cipher")
    if entry is None:
        return Cipher.AES_256_CBC
    cipher = _cipher(options, entry, str(entry.values[0]))
    if cipher is not None and cipher not in _CBC:
        options.refuse(entry, f"{cipher}: static-key mode needs a CBC cipher ({', '.join(sorted(_CBC))})")
    return cipher or Cipher.AES_256_CBC


def build_compression(options: Options) -> Compression:
    """The framing that compression options of old peers ask for."""
    if entry := options.last("compress"):
        return _FRAMINGS[entry.values[0] or "stub"]
    return Compression.COMP_LZO if options.has("comp-lzo") else Compression.NONE


def build_mssfix(options: Options, protocol: Protocol, mtu: int) -> tuple[int | None, bool]:
    """The largest outer IP packet a clamped TCP connection may make, or the largest inner one; None: no clamping.

    With the word `fixed` the number is that of the inner packet, and so it is by default where tun-mtu is not the usual
    one: it is tun-mtu itself then, as in openvpn. Without a word the number leaves out the outer IP and UDP headers.
    """
    entry = options.last("mssfix")
    default = DataSettings().mssfix
    if entry is None or entry.values[0] is None:
        return (default, False) if mtu == _DEFAULT_MTU else (mtu, True)
    octets, mode = entry.values
    if octets == 0:
        return None, False
    if octets < 576:
        options.refuse(entry, f"{octets}: below 576 octets")
    if mode == "fixed":
        return int(octets), True
    return int(octets) if mode == "mtu" else int(octets) + (48 if protocol.family is Family.IPV6 else 28), False

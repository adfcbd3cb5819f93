"""The core's configuration: everything a peer needs to know before its first packet, as frozen values.

Keys are octets and certificates are PEM text: whoever reads files (the driver's side) reads them before it makes these
values. Nothing here is read from or written to a file, and no field that is a secret shows in a `repr`. Times are
seconds. Names follow OpenVPN's options, with the option in a comment where the name differs.

Sources: openvpn-protocol.md; openvpn(8) for the defaults.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeAlias

# Where a datagram came from or goes to. Opaque to the core: compared, hashed, echoed, and its text goes into the
# server's cookie. A driver may put more into it than host and port (the local address, for multihome).
Address: TypeAlias = tuple[str | int, ...]


class Transport(StrEnum):
    UDP = "udp"
    TCP = "tcp"


class Wrapping(StrEnum):
    """How control packets are protected below TLS."""

    NONE = "none"
    TLS_AUTH = "tls-auth"
    TLS_CRYPT = "tls-crypt"
    TLS_CRYPT_V2 = "tls-crypt-v2"


class Digest(StrEnum):
    """`auth`: HMAC of tls-auth, of CBC data packets and of static-key mode."""

    SHA1 = "SHA1"
    SHA256 = "SHA256"
    SHA384 = "SHA384"
    SHA512 = "SHA512"


class Cipher(StrEnum):
    AES_128_GCM = "AES-128-GCM"
    AES_192_GCM = "AES-192-GCM"
    AES_256_GCM = "AES-256-GCM"
    CHACHA20_POLY1305 = "CHACHA20-POLY1305"
    AES_128_CBC = "AES-128-CBC"
    AES_192_CBC = "AES-192-CBC"
    AES_256_CBC = "AES-256-CBC"


class KeyDirection(IntEnum):
    """Which half of a static key sends. BIDIRECTIONAL: the first half both ways."""

    NORMAL = 0
    INVERSE = 1
    BIDIRECTIONAL = 2


class TlsVersion(IntEnum):
    TLS_1_2 = 0x0303
    TLS_1_3 = 0x0304


class CertificateRole(StrEnum):
    """`remote-cert-tls`: what the other end's certificate must be good for (key usage and extended key usage)."""

    SERVER = "server"
    CLIENT = "client"


class NameRule(StrEnum):
    """How `verify-x509-name` compares."""

    SUBJECT = "subject"
    NAME = "name"
    NAME_PREFIX = "name-prefix"


class ClientCertificate(StrEnum):
    """`verify-client-cert` of a server."""

    REQUIRE = "require"
    OPTIONAL = "optional"
    NONE = "none"


class Compression(StrEnum):
    """Framing only: nothing is ever compressed. The names are the options' spelling."""

    NONE = "none"
    COMP_LZO = "comp-lzo"  # one leading octet
    STUB = "compress"  # first octet swapped to the end ("compress stub", "compress lz4")
    STUB_V2 = "compress stub-v2"


class Topology(StrEnum):
    SUBNET = "subnet"
    NET30 = "net30"
    P2P = "p2p"


@dataclass(frozen=True, slots=True)
class ControlProtection:
    """The wrapping of control packets and its keys; which fields are used depends on `wrapping`.

    Shape: `static_key` is 256 octets: of tls-auth or tls-crypt, and of a tls-crypt-v2 client the key Kc.
        `wrapped_client_key` is the WKc of a tls-crypt-v2 client; `server_key` the 128 octets of a tls-crypt-v2 server.
        `digest` is used by tls-auth only and follows `auth`.
    """

    wrapping: Wrapping = Wrapping.NONE
    static_key: bytes = field(default=b"", repr=False)
    direction: KeyDirection = KeyDirection.BIDIRECTIONAL
    digest: Digest = Digest.SHA1
    wrapped_client_key: bytes = field(default=b"", repr=False)
    server_key: bytes = field(default=b"", repr=False)
    force_cookie: bool = False  # tls-crypt-v2 server: refuse clients that cannot do the stateless start


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """The TLS end inside the tunnel. Shape: PEM text; `certificate` may hold a chain, own certificate first."""

    ca: str
    certificate: str = ""
    private_key: str = field(default="", repr=False)
    minimum_version: TlsVersion = TlsVersion.TLS_1_2
    maximum_version: TlsVersion = TlsVersion.TLS_1_3
    ciphers: str = ""  # tls-cipher, OpenSSL spelling; TLS 1.2 and below
    ciphersuites: str = ""  # tls-ciphersuites, OpenSSL spelling
    remote_cert_tls: CertificateRole | None = None
    verify_name: str = ""  # verify-x509-name
    verify_name_rule: NameRule = NameRule.SUBJECT
    crl: str = ""
    client_certificate: ClientCertificate = ClientCertificate.REQUIRE


@dataclass(frozen=True, slots=True)
class DataSettings:
    """What the data channel may use. `data_ciphers` in order of preference; the server's order decides."""

    data_ciphers: tuple[Cipher, ...] = (Cipher.AES_256_GCM, Cipher.AES_128_GCM, Cipher.CHACHA20_POLY1305)
    fallback_cipher: Cipher | None = None  # data-ciphers-fallback, for peers that do not negotiate
    digest: Digest = Digest.SHA1  # auth: CBC ciphers only
    compression: Compression = Compression.NONE
    tun_mtu: int = 1500
    mssfix: int | None = 1492  # largest outer IP packet a clamped TCP connection makes; None: no clamping
    mssfix_inner: bool = False  # mssfix … fixed: the largest inner IP packet instead
    replay_window: int = 64  # packets
    replay_time: float = 15.0


@dataclass(frozen=True, slots=True)
class Timers:
    """All in seconds; 0 switches the optional ones off."""

    tls_timeout: float = 2.0  # first retransmission; doubles
    hand_window: float = 60.0
    tran_window: float = 3600.0  # how long a replaced key still opens packets
    reneg_sec: float = 3600.0
    reneg_bytes: int = 0
    reneg_pkts: int = 0
    ping: float = 0.0  # a client's value is replaced by what the server pushes
    ping_restart: float = 120.0
    ping_exit: float = 0.0
    push_request: float = 5.0
    push_timeout: float = 60.0
    inactive: float = 0.0
    inactive_octets: int = 0  # less than this between two looks is no traffic
    session_timeout: float = 0.0


@dataclass(frozen=True, slots=True)
class PullFilter:
    """`pull-filter`: the first whose `prefix` starts a pushed option decides. `action`: accept, ignore or reject."""

    action: str
    prefix: str


@dataclass(frozen=True, slots=True)
class ClientSettings:
    tls: TlsSettings
    control: ControlProtection = field(default_factory=ControlProtection)
    data: DataSettings = field(default_factory=DataSettings)
    timers: Timers = field(default_factory=Timers)
    transport: Transport = Transport.UDP
    transport_ipv6: bool = False  # outer family: sizes of control packets, MSS, the options string
    username: str = ""
    password: str = field(default="", repr=False)
    peer_info: tuple[tuple[str, str], ...] = ()  # extra lines: setenv UV_…, IV_GUI_VER, push-peer-info
    pull: bool = True  # False: point-to-point, where both ends know their own addresses
    pull_filters: tuple[PullFilter, ...] = ()
    route_nopull: bool = False
    allow_pull_fqdn: bool = False  # pushed routes may have host names
    float_server: bool = False  # follow the server to a new address
    explicit_exit_notify: bool = True
    max_packet_octets: int = 1250  # max-packet-size: outer IP packet of the control channel
    tls_key_export: bool = True  # offer the TLS exporter; off: PRF keys as old peers use
    dynamic_tls_crypt: bool = True


@dataclass(frozen=True, slots=True)
class Pool:
    """Virtual addresses of a server. IPv4: first usable is the server's own unless given (`server NET MASK`)."""

    ipv4: IPv4Network | None = None
    ipv6: IPv6Network | None = None
    topology: Topology = Topology.SUBNET


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """One server. `push` holds what the administrator pushes (`push "route …"`) in option syntax.

    The core itself adds topology, route-gateway, tun-ipv6, ifconfig, ifconfig-ipv6, ping, ping-restart, peer-id,
    cipher, protocol-flags, tun-mtu and auth-token: they depend on the client.
    """

    tls: TlsSettings
    pool: Pool
    control: ControlProtection = field(default_factory=ControlProtection)
    data: DataSettings = field(default_factory=DataSettings)
    timers: Timers = field(default_factory=lambda: Timers(ping_restart=0.0))
    transport: Transport = Transport.UDP
    transport_ipv6: bool = False
    push: tuple[str, ...] = ()
    point_to_point: bool = False  # one other end, nothing pushed, no addresses given: all packets are for it
    push_ping: int = 0  # keepalive A B: ping=A, ping_restart=2B here, push_ping=A, push_ping_restart=B
    push_ping_restart: int = 0
    external_admission: bool = False  # ask with AdmissionRequested before a client gets in
    password_required: bool = False  # refuse clients that send no user name
    username_as_common_name: bool = False
    client_to_client: bool = False
    duplicate_cn: bool = False
    max_clients: int = 1024
    auth_token_lifetime: float | None = None  # auth-gen-token; None: no tokens, 0: no expiry
    auth_token_renewal: float = 0.0  # a token not renewed for twice this long is no good; 0: reneg-sec
    cookie: bool = True  # UDP: keep no state before the third packet
    connect_freq_initial: tuple[int, float] = (100, 10.0)  # answers to first packets, per seconds
    max_half_open: int = 256
    explicit_exit_notify: int = 1  # on close: 0 silent, 1 RESTART, 2 RESTART,[N]
    max_packet_octets: int = 1250
    tls_key_export: bool = True
    dynamic_tls_crypt: bool = True


@dataclass(frozen=True, slots=True)
class StaticKeySettings:
    """Static-key mode (`secret`): two peers, one key, no TLS. For teaching: a stolen key opens all recorded traffic."""

    key: bytes = field(repr=False)
    direction: KeyDirection = KeyDirection.BIDIRECTIONAL
    cipher: Cipher = Cipher.AES_256_CBC
    digest: Digest = Digest.SHA1
    compression: Compression = Compression.NONE
    transport: Transport = Transport.UDP
    transport_ipv6: bool = False
    listen: bool = False  # no remote configured: the address of the first authenticated packet becomes the peer
    tun_mtu: int = 1500
    mssfix: int | None = 1492
    mssfix_inner: bool = False
    replay_window: int = 64
    replay_time: float = 15.0
    ping: float = 0.0
    ping_restart: float = 0.0
    ping_exit: float = 0.0
    explicit_exit_notify: bool = False


@dataclass(frozen=True, slots=True)
class ClientOverrides:
    """What one client gets instead of the defaults (client-config-dir, client-connect); answer to AdmissionRequested.

    `ifconfig` is the client's address and, in net30/p2p, its peer; in subnet the netmask follows from the pool.
    """

    ifconfig: IPv4Address | None = None
    ifconfig_ipv6: IPv6Address | None = None
    iroutes: tuple[IPv4Network | IPv6Network, ...] = ()
    push: tuple[str, ...] = ()  # in addition to the server's
    push_reset: bool = False  # without the server's
    disable: bool = False

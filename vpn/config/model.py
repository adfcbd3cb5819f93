"""What a configuration comes to: settings of the core (`vpn.settings`) and settings of the driver, all frozen."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface
from pathlib import Path
from typing import TypeAlias

from vpn.push import PushedOptions
from vpn.settings import ClientSettings, ServerSettings, StaticKeySettings, Transport

DEFAULT_PORT = 1194
CoreSettings: TypeAlias = ClientSettings | ServerSettings | StaticKeySettings


class Family(Enum):
    """Which outer IP version. Shape: the value is what the options call it, without `udp` or `tcp`."""

    ANY = ""
    IPV4 = "4"
    IPV6 = "6"


@dataclass(frozen=True, slots=True)
class Protocol:
    """`proto`."""

    transport: Transport = Transport.UDP
    family: Family = Family.ANY


@dataclass(frozen=True, slots=True)
class Remote:
    """One place where the server may be reached."""

    host: str
    port: int = DEFAULT_PORT
    protocol: Protocol = Protocol()


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """The tun device. Shape: `name` is `tun` for the next free number, else the device's own name."""

    name: str = "tun"
    node: Path = Path("/dev/net/tun")
    persist: bool = False
    queue_length: int | None = None


@dataclass(frozen=True, slots=True)
class SocketSettings:
    """The outer socket. Shape: `local_port` 0 lets the kernel choose; `local` empty means every address."""

    protocol: Protocol = Protocol()
    local: str = ""
    local_port: int = 0
    ipv6_only: bool = False
    multihome: bool = False
    mark: int | None = None
    policy_table: int | None = (
        None  # policy-routing: the tunnel's routes go into this table, for all but marked packets
    )
    bind_device: str = ""
    send_buffer_octets: int | None = None
    receive_buffer_octets: int | None = None
    path_mtu_discovery: str = ""  # mtu-disc: no, maybe, yes


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """How a client tries again. Units: seconds; `attempts` None means for ever."""

    pause: int = 1
    longest_pause: int = 300
    attempts: int | None = None
    connect_timeout: int = 120
    random_order: bool = False


@dataclass(frozen=True, slots=True)
class ServerAddresses:
    """What a server's own tun device gets: in net30 and p2p a peer address beside its own."""

    ipv4: IPv4Interface | None = None
    ipv4_peer: IPv4Address | None = None
    ipv6: IPv6Interface | None = None


@dataclass(frozen=True, slots=True)
class Admission:
    """What a server does itself about who may come in: files per client, a script that checks passwords."""

    client_config_directory: Path | None = None
    client_config_required: bool = False
    verify_command: tuple[str, ...] = ()
    verify_by_file: bool = True
    password_optional: bool = False
    temporary_directory: Path = Path("/tmp")  # noqa: S108 - openvpn's own default of tmp-dir; files in it are made private


@dataclass(frozen=True, slots=True)
class ManagementSettings:
    """Where the management interface listens: the socket file `path`, or a loopback address and port."""

    path: Path | None = None
    host: str = ""
    port: int = 0


@dataclass(frozen=True, slots=True)
class OutputSettings:
    verb: int = 1
    log_file: Path | None = None
    append: bool = False
    timestamps: bool = True
    status_file: Path | None = None
    status_seconds: int = 60
    status_version: int = 1
    keylog_file: Path | None = None
    pid_file: Path | None = None


@dataclass(frozen=True, slots=True)
class DriverSettings:
    """Everything outside of the protocol: device, socket, routes, output.

    `local_options` are the network options of the file itself (route, redirect-gateway, dhcp-option, ifconfig, …) in
    the form of pushed ones, since both are applied together.
    """

    device: DeviceSettings = DeviceSettings()
    socket: SocketSettings = SocketSettings()
    remotes: tuple[Remote, ...] = ()
    retry: RetrySettings = RetrySettings()
    local_options: PushedOptions = field(default_factory=PushedOptions)
    set_addresses: bool = True  # ifconfig-noexec switches it off
    set_routes: bool = True  # route-noexec
    server: ServerAddresses | None = None
    admission: Admission = Admission()
    management: ManagementSettings | None = None
    output: OutputSettings = OutputSettings()
    journal_directory: Path = Path("/run/vpn-journal")  # journal-dir
    ask_credentials: bool = False  # auth-user-pass without a file
    retry_after_auth_failure: bool = False  # auth-retry nointeract, interact
    exit_on_tls_failure: bool = False
    restart_signal_ends: bool = False  # remap-usr1 SIGTERM
    niceness: int = 0


@dataclass(frozen=True, slots=True)
class Configuration:
    core: CoreSettings
    driver: DriverSettings
    warnings: tuple[str, ...] = ()

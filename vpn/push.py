"""Options a server pushes, as one frozen value.

`PushedOptions` is what a client's driver configures the interface, the routes and the resolver from. Options that
only concern the core (cipher, peer-id, protocol-flags, ping, …) are in it too, so that one value tells the story.
Options a 2.6 client ignores are kept by their text in `ignored`; what it cannot read is told in `errors`.

Source: openvpn-protocol.md section 8.1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from vpn.settings import Cipher, Compression, Topology

GATEWAY_WORDS = ("vpn_gateway", "net_gateway", "remote_host")


@dataclass(frozen=True, slots=True)
class Route:
    """`route` or `route-ipv6`. Shape: `gateway` is an address, a word (net_gateway, …) or ""."""

    network: IPv4Network | IPv6Network
    gateway: str = ""
    metric: int | None = None


@dataclass(frozen=True, slots=True)
class NamedRoute:
    """`route` whose network or gateway is a host name or a word; the driver finds the addresses when it sets routes.

    Shape: `network` and `gateway` as they are written, an absent gateway ""
    """

    network: str
    netmask: IPv4Address
    gateway: str = ""
    metric: int | None = None

    @property
    def has_name(self) -> bool:
        """Whether somebody must be asked for an address."""
        return any(
            text and text not in GATEWAY_WORDS and not is_address4(text) for text in (self.network, self.gateway)
        )


def is_address4(text: str) -> bool:
    try:
        IPv4Address(text)
    except ValueError:
        return False
    return True


def is_host_name(text: str) -> bool:
    """Whether `text` has the form of a name that can be asked for."""
    return (
        0 < len(text) < 254 and text.isascii() and text.replace("-", "a").replace(".", "a").replace("_", "a").isalnum()
    )


@dataclass(frozen=True, slots=True)
class RedirectGateway:
    """`redirect-gateway` (or redirect-private, which sets no default route) with its flags."""

    flags: frozenset[str]
    private: bool = False


@dataclass(frozen=True, slots=True)
class DnsServer:
    """`dns server N …`. `addresses`: (address, port or None)."""

    priority: int
    addresses: tuple[tuple[IPv4Address | IPv6Address, int | None], ...]
    resolve_domains: tuple[str, ...] = ()
    dnssec: str = ""
    transport: str = ""
    sni: str = ""


@dataclass(frozen=True, slots=True)
class PushedOptions:
    """The whole configuration a client got, in the order of its lists."""

    topology: Topology = Topology.NET30
    ifconfig: IPv4Interface | None = None  # subnet: address and netmask; net30, p2p: address/32 and `ifconfig_peer`
    ifconfig_peer: IPv4Address | None = None
    ifconfig_ipv6: IPv6Interface | None = None
    ifconfig_ipv6_peer: IPv6Address | None = None
    route_gateway: IPv4Address | None = None
    route_ipv6_gateway: IPv6Address | None = None
    route_metric: int | None = None
    routes: tuple[Route, ...] = ()
    named_routes: tuple[NamedRoute, ...] = ()
    redirect_gateway: RedirectGateway | None = None
    dns_addresses: tuple[IPv4Address | IPv6Address, ...] = ()  # dhcp-option DNS, DNS6
    dns_domain: str = ""  # dhcp-option DOMAIN
    dns_search: tuple[str, ...] = ()  # dhcp-option DOMAIN-SEARCH and dns search-domains
    dns_servers: tuple[DnsServer, ...] = ()
    dhcp_options: tuple[tuple[str, str], ...] = ()  # all of them, as pushed
    block_ipv6: bool = False
    block_outside_dns: bool = False
    ping: int | None = None
    ping_restart: int | None = None
    ping_exit: int | None = None
    inactive: int | None = None
    inactive_octets: int = 0
    session_timeout: int | None = None
    peer_id: int | None = None
    cipher: Cipher | None = None
    protocol_flags: frozenset[str] = frozenset()
    tun_mtu: int | None = None
    compression: Compression | None = None
    explicit_exit_notify: int | None = None
    auth_token: str | None = field(default=None, repr=False)
    auth_token_user: str | None = None
    ignored: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()  # lines for the log about options that cannot be read and are left out

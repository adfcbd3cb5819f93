"""OpenVPN configuration text for both ends of a tunnel, from the scenario's `tunnel` block.

The same text goes to our `vpn` and to the real `openvpn`: whatever differs between two runs then is the program. Pure.

Source: the option names and meanings are OpenVPN 2.6's manual.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

PORT = 1194
DEVICE = "tun0"
INNER_V4 = ipaddress.IPv4Network("10.8.0.0/24")
INNER_V6 = ipaddress.IPv6Network("2001:db8:8::/64")
RESOLVER_V4 = str(INNER_V4[1])
RESOLVER_V6 = str(INNER_V6[1])
DEFAULT_V4 = ipaddress.IPv4Network("0.0.0.0/0")
DEFAULT_V6 = ipaddress.IPv6Network("::/0")


@dataclass(frozen=True, slots=True)
class TunnelSettings:
    """What the configuration of both ends depends on.

    `routes` is None for "all", else the prefixes that go into the tunnel; `keys` is the directory with the
    certificates and keys, named as `python -m vpn pki init` names them.
    """

    server: str  # the address the client connects to
    keys: str
    cipher: str
    control: str  # none | tls-auth | tls-crypt | tls-crypt-v2
    mode: str  # tls | static-key
    transport: str  # udp | tcp
    routes: tuple[str, ...] | None
    dns_in_tunnel: bool


def server_config(settings: TunnelSettings) -> str:
    """The server's configuration file."""
    if settings.mode == "static-key":
        return _lines(*_static_common(settings, own=1, peer=2, direction=0), f"local {settings.server}", f"port {PORT}")
    return _lines(
        "mode server",
        "tls-server",
        *_common(settings, "server"),
        f"local {settings.server}",
        f"port {PORT}",
        "topology subnet",
        f"server {INNER_V4.network_address} {INNER_V4.netmask}",
        f"server-ipv6 {INNER_V6}",
        "dh none",
        "keepalive 10 60",
        *(f'push "{option}"' for option in pushed_options(settings)),
        *_control_wrapping(settings, "server"),
    )


def client_config(settings: TunnelSettings) -> str:
    """The client's configuration file."""
    if settings.mode == "static-key":
        # A static-key peer has nobody to push to it: what a server would push stands in its own file.
        return _lines(
            *_static_common(settings, own=2, peer=1, direction=1), *_remote(settings), *pushed_options(settings)
        )
    return _lines(
        "client",
        *_common(settings, "client"),
        *_remote(settings),
        "remote-cert-tls server",
        *(["explicit-exit-notify 1"] if settings.transport == "udp" else []),
        *_control_wrapping(settings, "client"),
    )


def pushed_options(settings: TunnelSettings) -> list[str]:
    """Routes and resolvers the server tells the client, as words of a `push` option."""
    options = _route_options(settings.routes)
    if settings.dns_in_tunnel:
        options += [f"dhcp-option DNS {RESOLVER_V4}", f"dhcp-option DNS {RESOLVER_V6}"]
    return options


def _route_options(routes: tuple[str, ...] | None) -> list[str]:
    if routes is None:
        return ["redirect-gateway def1 ipv6"]
    prefixes = [ipaddress.ip_network(route) for route in routes]
    flags = [
        flag for flag, present in (("ipv6", DEFAULT_V6 in prefixes), ("!ipv4", DEFAULT_V4 not in prefixes)) if present
    ]
    options = []
    if DEFAULT_V4 in prefixes or DEFAULT_V6 in prefixes:
        options.append(" ".join(["redirect-gateway def1", *flags]))
    for prefix in prefixes:
        if prefix in (DEFAULT_V4, DEFAULT_V6):
            continue
        if isinstance(prefix, ipaddress.IPv4Network):
            options.append(f"route {prefix.network_address} {prefix.netmask}")
        else:
            options.append(f"route-ipv6 {prefix}")
    return options


def _common(settings: TunnelSettings, name: str) -> list[str]:
    keys = settings.keys
    return [
        f"dev {DEVICE}",
        f"proto {_protocol(settings, name)}",
        f"ca {keys}/ca.crt",
        f"cert {keys}/{name}.crt",
        f"key {keys}/{name}.key",
        f"data-ciphers {settings.cipher}",
        "verb 3",
    ]


def _static_common(settings: TunnelSettings, *, own: int, peer: int, direction: int) -> list[str]:
    return [
        f"dev {DEVICE}",
        f"proto {_protocol(settings, 'server' if own == 1 else 'client')}",
        f"ifconfig {INNER_V4[own]} {INNER_V4[peer]}",
        f"ifconfig-ipv6 {INNER_V6[own]}/64 {INNER_V6[peer]}",
        f"secret {settings.keys}/static.key {direction}",
        f"cipher {settings.cipher}",
        "auth SHA256",
        "keepalive 10 60",
        "verb 3",
    ]


def _remote(settings: TunnelSettings) -> list[str]:
    return [f"remote {settings.server} {PORT}", "nobind"]


def _protocol(settings: TunnelSettings, role: str) -> str:
    six = "6" if ipaddress.ip_address(settings.server).version == 6 else ""
    return f"udp{six}" if settings.transport == "udp" else f"tcp{six}-{role}"


def _control_wrapping(settings: TunnelSettings, role: str) -> list[str]:
    keys = settings.keys
    match settings.control:
        case "tls-auth":
            return [f"tls-auth {keys}/static.key {0 if role == 'server' else 1}"]
        case "tls-crypt":
            return [f"tls-crypt {keys}/tls-crypt.key"]
        case "tls-crypt-v2":
            return [f"tls-crypt-v2 {keys}/tls-crypt-v2-{role}.key"]
    return []


def _lines(*lines: str) -> str:
    return "\n".join(lines) + "\n"

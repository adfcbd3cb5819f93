"""Routes whose network or gateway is a name or a word: the addresses behind them, looked up when the routes are set.

    vpn_gateway     the tunnel's own gateway (route-gateway, or the second address of ifconfig)
    net_gateway     the gateway of the default route outside
    remote_host     the server's outer address
    any other       a host name: every IPv4 address it has, asked for before anything is changed

What cannot be found is left out and told, as openvpn does; the other routes are set all the same. Words in the place of
the gateway stay as they are: the plan of routes knows them.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from vpn.driver.routes import IpAddress, Underlay
from vpn.push import GATEWAY_WORDS, NamedRoute, PushedOptions, Route

Lookup = Callable[[str], list[IPv4Address]]


def look_up(name: str) -> list[IPv4Address]:
    """All IPv4 addresses of a name. Errors: OSError."""
    found = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_DGRAM)
    return list(dict.fromkeys(IPv4Address(entry[4][0]) for entry in found))


def with_named_routes(
    options: PushedOptions, server: IpAddress | None, underlay: Underlay, lookup: Lookup = look_up
) -> tuple[PushedOptions, list[str]]:
    """The options with every named route among their routes, and lines for the log about those that have no address."""
    routes: list[Route] = []
    problems: list[str] = []
    for route in options.named_routes:
        try:
            routes += _resolve(route, options, server, underlay, lookup)
        except OSError as error:
            problems.append(f"RESOLVE: Cannot resolve host address: {error.filename} ({error.strerror})")
            problems.append(f"OpenVPN ROUTE: failed to parse/resolve route for host/network: {route.network}")
    return replace(options, routes=(*options.routes, *routes), named_routes=()), problems


def _resolve(
    route: NamedRoute, options: PushedOptions, server: IpAddress | None, underlay: Underlay, lookup: Lookup
) -> list[Route]:
    path = underlay.default4
    words = {
        "vpn_gateway": options.route_gateway or options.ifconfig_peer,
        "net_gateway": path.gateway if path is not None else None,
        "remote_host": server,
    }

    def addresses(text: str) -> list[IPv4Address]:
        if text in words:
            word = words[text]
            if not isinstance(word, IPv4Address):
                raise OSError(0, "there is none", text)
            return [word]
        try:
            return [IPv4Address(text)]
        except ValueError:
            pass
        try:
            return lookup(text)
        except OSError as error:
            raise OSError(error.errno, error.strerror, text) from None

    gateway = route.gateway
    if gateway and gateway not in GATEWAY_WORDS:
        gateway = str(addresses(gateway)[0])
    networks = (IPv4Network(f"{address}/{route.netmask}", strict=False) for address in addresses(route.network))
    return [Route(network, gateway, route.metric) for network in networks]

"""Socket, remotes, device and local network options (routes, DNS, addresses) from options."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network, ip_address
from pathlib import Path

from vpn.config.model import DEFAULT_PORT, DeviceSettings, Family, Protocol, Remote, RetrySettings, SocketSettings
from vpn.config.option import Role
from vpn.config.options import Entry, Options
from vpn.push import (
    GATEWAY_WORDS,
    DnsServer,
    NamedRoute,
    PushedOptions,
    RedirectGateway,
    Route,
    is_address4,
    is_host_name,
)
from vpn.settings import Topology, Transport

INTERFACE_NAME_MAXIMUM = 15  # IFNAMSIZ less the NUL
_RESERVED_TABLES = (0, 253, 254, 255)  # unspecified, default, main, local: rtnetlink(7)
_HOST_MASK = IPv4Address("255.255.255.255")


def parse_protocol(word: str) -> Protocol:
    """`udp`, `udp6`, `tcp4-client`, …; which side connects follows from the role, not from the word."""
    transport = Transport(word[:3])
    rest = word[3:].removesuffix("-client").removesuffix("-server")
    return Protocol(transport, Family(rest))


def build_remotes(options: Options) -> tuple[Remote, ...]:
    """All remotes in order: those of connection blocks first, as openvpn has it, then those outside."""
    remotes: list[Remote] = []
    for scope in [*options.connections, options]:
        default = parse_protocol(scope.value("proto") or options.value("proto", "udp"))
        port = (
            scope.value("rport") or scope.value("port") or options.value("rport") or options.value("port", DEFAULT_PORT)
        )
        for entry in scope.all("remote"):
            host, own_port, word = entry.values
            remotes.append(Remote(host, own_port or port, parse_protocol(word) if word else default))
    forced = options.value("proto-force")
    if forced:
        remotes = [remote for remote in remotes if remote.protocol.transport == forced]
    return tuple(remotes)


def build_socket(options: Options, *, listens: bool) -> SocketSettings:
    """The outer socket. A listener and a static-key peer over UDP have a port; a TLS client only if it asks for it.

    Of `port`, which is both lport and rport, a TLS client takes the remote half alone unless `bind` is there too; the
    manual says otherwise, but openvpn 2.6 does so.
    """
    scope = _first_scope(options)

    def value(name: str) -> object:
        return scope.value(name) or options.value(name)

    protocol = parse_protocol(str(value("proto") or "udp"))
    has_port = listens or options.has("bind")
    if options.role is Role.STATIC_KEY and protocol.transport is Transport.UDP:
        has_port = True
    common = scope.value("port", options.value("port", DEFAULT_PORT)) if has_port else 0
    own_port = scope.value("lport", options.value("lport", common))
    nobind = options.has("nobind") or scope.has("nobind")
    if nobind and (entry := options.last("lport") or options.last("local") or options.last("bind")):
        options.refuse(entry, "cannot be used together with nobind")
    return SocketSettings(
        protocol=protocol,
        local=str(value("local") or ""),
        local_port=0 if nobind else own_port,
        ipv6_only=options.value("bind") == "ipv6only",
        multihome=options.has("multihome"),
        mark=options.value("mark"),
        policy_table=_policy_table(options),
        bind_device=options.value("bind-dev", ""),
        send_buffer_octets=options.value("sndbuf") or None,
        receive_buffer_octets=options.value("rcvbuf") or None,
        path_mtu_discovery=str(value("mtu-disc") or ""),
    )


def _policy_table(options: Options) -> int | None:
    """The table of `policy-routing`: the one named, else the one with the mark's own number, as WireGuard has it."""
    entry = options.last("policy-routing")
    if entry is None:
        return None
    mark = options.value("mark")
    if not mark:
        options.refuse(entry, "needs mark N with N above 0: packets that carry it go around the tunnel")
        return None
    table = int(mark if entry.values[0] is None else entry.values[0])
    if table in _RESERVED_TABLES:
        options.refuse(entry, f"table {table} belongs to the system; name another one")
    return table


def _first_scope(options: Options) -> Options:
    """Where socket options of a profile with connection blocks stand: its first block."""
    return options.connections[0] if options.connections else options


def build_retry(options: Options) -> RetrySettings:
    scope = _first_scope(options)
    entry = scope.last("connect-retry") or options.last("connect-retry")
    defaults = RetrySettings()
    pause, longest = entry.values if entry else (defaults.pause, defaults.longest_pause)
    attempts = scope.value("connect-retry-max", options.value("connect-retry-max"))
    timeout = options.value("connect-timeout") or options.value("server-poll-timeout")
    return RetrySettings(
        pause=pause,
        longest_pause=max(pause, longest or defaults.longest_pause),
        attempts=attempts or None,
        connect_timeout=timeout or defaults.connect_timeout,
        random_order=options.has("remote-random"),
    )


def build_device(options: Options) -> DeviceSettings:
    """`dev tun`, `dev tun3`, or any name with `dev-type tun`."""
    entry = options.last("dev")
    name = str(entry.values[0]) if entry else "tun"
    kind = options.value("dev-type")
    if entry is not None:
        if len(name.encode()) > INTERFACE_NAME_MAXIMUM or "/" in name or name in ("", ".", ".."):
            options.refuse(entry, f"{name!r}: an interface name has 1 to {INTERFACE_NAME_MAXIMUM} octets and no slash")
        elif kind == "tap" or (kind is None and name.startswith("tap")):
            options.refuse(entry, f"{name}: only tun devices (IP packets) are supported, not tap")
        elif kind is None and name != "null" and not name.startswith("tun"):
            options.refuse(entry, f"{name!r}: give the kind of device with dev-type tun")
        elif name == "null":
            options.refuse(entry, "a tunnel without a device is not supported")
    return DeviceSettings(
        name=name,
        node=Path(options.value("dev-node", DeviceSettings().node)),
        persist=options.has("persist-tun"),
        queue_length=options.value("txqueuelen"),
    )


def build_local_options(options: Options) -> PushedOptions:
    """Network options of the file itself, in the form of pushed ones."""
    topology = Topology(options.value("topology", "net30"))
    entries = [entry for entry in options.entries if entry.option.name in ("route", "route-ipv6")]
    routes = [_read_route(options, entry) for entry in entries]
    result = PushedOptions(
        topology=topology,
        routes=tuple(route for route in routes if isinstance(route, Route)),
        named_routes=tuple(route for route in routes if isinstance(route, NamedRoute)),
        route_metric=options.value("route-metric"),
        route_ipv6_gateway=options.value("route-ipv6-gateway"),
        redirect_gateway=_read_redirect(options),
        block_ipv6=options.has("block-ipv6"),
    )
    gateway = options.last("route-gateway")
    if gateway is not None:
        result = replace(result, route_gateway=_read_gateway_address(options, gateway))
    return _with_dns(options, _with_addresses(options, result))


def _with_addresses(options: Options, result: PushedOptions) -> PushedOptions:
    """`ifconfig` and `ifconfig-ipv6`, whose second word depends on the topology."""
    if entry := options.last("ifconfig"):
        own, second = entry.values
        if result.topology is Topology.SUBNET:
            try:
                result = replace(result, ifconfig=IPv4Interface(f"{own}/{second}"))
            except ValueError:
                options.refuse(entry, f"{second}: in topology subnet the second word is a netmask")
        else:
            result = replace(result, ifconfig=IPv4Interface(f"{own}/32"), ifconfig_peer=second)
    if entry := options.last("ifconfig-ipv6"):
        interface, peer = entry.values
        result = replace(result, ifconfig_ipv6=interface, ifconfig_ipv6_peer=peer)
    return result


def _read_gateway_address(options: Options, entry: Entry) -> IPv4Address | None:
    try:
        return IPv4Address(entry.values[0])
    except ValueError:
        options.refuse(entry, f"{entry.values[0]!r}: an IPv4 address is needed")
        return None


def _read_route(options: Options, entry: Entry) -> Route | NamedRoute | None:
    try:
        return _parse_route6(entry) if entry.option.name == "route-ipv6" else _parse_route4(entry)
    except ValueError as error:
        options.refuse(entry, str(error))
        return None


def _parse_route4(entry: Entry) -> Route | NamedRoute:
    network, mask, gateway, metric = entry.values
    if network in GATEWAY_WORDS or is_name(network) or is_name(_default(gateway) or ""):
        netmask = IPv4Network(f"0.0.0.0/{_default(mask) or _HOST_MASK}").netmask
        return NamedRoute(network, netmask, _default(gateway) or "", _parse_metric(metric))
    return Route(parse_network4(network, _default(mask)), _parse_gateway(gateway, IPv4Address), _parse_metric(metric))


def _parse_route6(entry: Entry) -> Route:
    prefix, gateway, metric = entry.values
    return Route(IPv6Network(prefix, strict=False), _parse_gateway(gateway, IPv6Address), _parse_metric(metric))


def is_name(word: str) -> bool:
    """Whether a route's network or gateway is a host name; four numbers are an address, if perhaps a wrong one."""
    if not word or word in GATEWAY_WORDS or is_address4(word) or word.replace(".", "").isdigit():
        return False
    return is_host_name(word)


def parse_network4(network: str, mask: str | None) -> IPv4Network:
    """An IPv4 network from address and netmask. Errors: ValueError with what is allowed."""
    try:
        address = IPv4Address(network)
    except ValueError:
        raise ValueError(f"{network!r}: neither an IPv4 address nor a host name") from None
    try:
        result = IPv4Network(f"{address}/{mask or _HOST_MASK}", strict=False)
    except ValueError:
        raise ValueError(f"{mask!r}: a netmask such as 255.255.255.0 is needed") from None
    if int(result.network_address) != int(address):
        raise ValueError(f"{address} has bits set outside of the netmask {result.netmask}; {result} may be meant")
    return result


def _default(word: str | None) -> str | None:
    return None if word in (None, "default") else word


def _parse_gateway(word: str | None, kind: type[IPv4Address] | type[IPv6Address]) -> str:
    word = _default(word)
    if word is None:
        return ""
    if word in GATEWAY_WORDS:
        return word
    try:
        return str(kind(word))
    except ValueError:
        raise ValueError(f"{word!r}: a gateway is an address, {', '.join(GATEWAY_WORDS)} or default") from None


def _parse_metric(word: str | None) -> int | None:
    word = _default(word)
    if word is None:
        return None
    if not (word.isascii() and word.isdigit()) or int(word) > 0xFFFFFFFF:
        raise ValueError(f"{word!r}: a metric is a whole number")
    return int(word)


def _read_redirect(options: Options) -> RedirectGateway | None:
    """All redirect options together, as openvpn adds their flags up."""
    entries = [entry for entry in options.entries if entry.option.name in ("redirect-gateway", "redirect-private")]
    if not entries:
        return None
    flags = frozenset(flag for entry in entries for flag in entry.values[0])
    private = all(entry.option.name == "redirect-private" for entry in entries)
    return RedirectGateway(flags, private)


def _with_dns(options: Options, result: PushedOptions) -> PushedOptions:
    pairs = tuple((str(e.values[0]), " ".join(e.values[1])) for e in options.all("dhcp-option"))
    addresses: list[IPv4Address | IPv6Address] = []
    for entry in options.all("dhcp-option"):
        kind, words = entry.values
        if kind in ("DNS", "DNS6"):
            try:
                addresses.append(ip_address(words[0]))
            except (ValueError, IndexError):
                options.refuse(entry, f"{kind} needs the address of a resolver")
    search = [word for kind, text in pairs if kind == "DOMAIN-SEARCH" for word in text.split()]
    domains = [text for kind, text in pairs if kind in ("DOMAIN", "ADAPTER_DOMAIN_SUFFIX")]
    servers: dict[int, DnsServer] = {}
    for entry in options.all("dns"):
        try:
            _read_dns(entry, servers, search)
        except ValueError as error:
            options.refuse(entry, str(error))
    return replace(
        result,
        dhcp_options=pairs,
        dns_addresses=tuple(addresses),
        dns_domain=domains[-1] if domains else "",
        dns_search=tuple(search),
        dns_servers=tuple(servers[priority] for priority in sorted(servers)),
    )


def _read_dns(entry: Entry, servers: dict[int, DnsServer], search: list[str]) -> None:
    """`dns search-domains D…` or `dns server N address|resolve-domains|dnssec|transport|sni …`."""
    kind, words = entry.values
    if kind == "search-domains":
        search += words
        return
    if len(words) < 3 or not words[0].lstrip("-").isdigit() or not -128 <= int(words[0]) <= 127:
        raise ValueError("needs: server N address|resolve-domains|dnssec|transport|sni VALUE…")
    priority, what, values = int(words[0]), words[1], tuple(words[2:])
    server = servers.get(priority, DnsServer(priority, ()))
    if what == "address":
        server = replace(server, addresses=server.addresses + tuple(parse_socket_address(word) for word in values))
    elif what == "resolve-domains":
        server = replace(server, resolve_domains=server.resolve_domains + values)
    elif what == "dnssec":
        server = replace(server, dnssec=values[0])
    elif what == "transport":
        server = replace(server, transport=values[0])
    elif what == "sni":
        server = replace(server, sni=values[0])
    else:
        raise ValueError(f"{what!r}: allowed are address, resolve-domains, dnssec, transport, sni")
    servers[priority] = server


def parse_socket_address(word: str) -> tuple[IPv4Address | IPv6Address, int | None]:
    """`192.0.2.1`, `192.0.2.1:53`, `2001:db8::1`, `[2001:db8::1]:53`. Errors: ValueError."""
    host, port = word, ""
    if word.startswith("["):
        host, bracket, rest = word[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{word!r}: an IPv6 address with a port is written [ADDRESS]:PORT")
        port = rest[1:]
    elif word.count(":") == 1:
        host, _, port = word.partition(":")
    if port and not (port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{word!r}: not a port")
    try:
        return ip_address(host), int(port) if port else None
    except ValueError:
        raise ValueError(f"{word!r}: the address of a resolver is needed") from None


def server_network6(entry: Entry) -> tuple[IPv6Network, IPv6Interface]:
    """`server-ipv6`: the network, and the server's own address (the first one) with its prefix length."""
    network = IPv6Network(entry.values[0], strict=False)
    return network, IPv6Interface(f"{network.network_address + 1}/{network.prefixlen}")

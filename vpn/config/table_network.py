"""Options about connections, the interface, addresses, routes and DNS."""

from vpn.config.option import Option, Role, Scope, deprecated, ignored, refused, used

_WINDOWS = "concerns Windows only"
_PROXY = "tunnels through a proxy are not supported; connect to the server directly"
_TAP = "only tun devices (IP packets) are supported, not tap"
_PROTO = "udp|udp4|udp6|tcp|tcp4|tcp6|tcp-client|tcp4-client|tcp6-client|tcp-server|tcp4-server|tcp6-server"
_CONNECTION = Scope.CONNECTION

CONNECTION_OPTIONS: tuple[Option, ...] = (
    used("remote", f"host [port] [{_PROTO}]", roles=Role.CLIENT | Role.STATIC_KEY, scope=_CONNECTION),
    used("remote-random", roles=Role.CLIENT),
    used("proto", _PROTO, scope=_CONNECTION),
    used("proto-force", "udp|tcp", roles=Role.CLIENT),
    used("local", "host", scope=_CONNECTION),
    used("port", "port", scope=_CONNECTION),
    used("lport", "lport", scope=_CONNECTION),
    used("rport", "port", scope=_CONNECTION),
    used("bind", "[ipv6only]", scope=_CONNECTION),
    used("nobind", scope=_CONNECTION),
    used("float", scope=_CONNECTION),
    used("multihome"),
    used("mark", "count32"),
    used("bind-dev", "name"),
    used("sndbuf", "octets"),
    used("rcvbuf", "octets"),
    used("connect-retry", "positive [positive]", scope=_CONNECTION),
    used("connect-retry-max", "count", scope=_CONNECTION),
    used("connect-timeout", "positive", scope=_CONNECTION),
    used("server-poll-timeout", "positive", scope=_CONNECTION),
    used("resolv-retry", "text"),
    used("explicit-exit-notify", "[count]", scope=_CONNECTION),
    used("mtu-disc", "no|maybe|yes", scope=_CONNECTION),
    refused("remote-random-hostname", "write the host name you mean"),
    refused("http-proxy", _PROXY),
    refused("http-proxy-option", _PROXY),
    refused("http-proxy-user-pass", _PROXY),
    refused("http-proxy-override", _PROXY),
    refused("socks-proxy", _PROXY),
    refused("ip-remote-hint", "write the address with remote"),
    refused("port-share", "sharing the port with another service is not supported"),
    refused("ipchange", "scripts on a change of address are not supported"),
    ignored("http-proxy-retry", "[text…]", "no proxies are used"),
    ignored("http-proxy-timeout", "count", "no proxies are used"),
    ignored("socks-proxy-retry", "[text…]", "no proxies are used"),
    ignored("tcp-nodelay", "", "TCP_NODELAY is always set"),
    ignored("socket-flags", "text…", "TCP_NODELAY is always set; other flags have no effect here"),
    ignored("persist-local-ip", "", "a local address is written in the configuration"),
    ignored("persist-remote-ip", "", "the server's name is resolved again for each connection"),
    ignored("preresolve", "", "the server's name is resolved when it is wanted, and again for each connection"),
    ignored("passtos", "", "outer packets carry no traffic class of inner ones"),
    ignored("mtu-test", "", "tunnel packets are sized by tun-mtu and mssfix"),
    ignored("fast-io", "", "packets are always moved in batches"),
    ignored("tcp-queue-limit", "count", "a slow connection's queue is bounded by octets here"),
    ignored("bcast-buffers", "count", "there is no broadcast on a tun device"),
)

INTERFACE_OPTIONS: tuple[Option, ...] = (
    used("dev", "name"),
    used("dev-type", "tun|tap"),
    used("dev-node", "file"),
    used("tun-mtu", "mtu", scope=_CONNECTION),
    used("txqueuelen", "count32"),
    used("persist-tun"),
    used("topology", "subnet|net30|p2p"),
    used("ifconfig", "address4 address4"),
    used("ifconfig-ipv6", "prefix6 address6"),
    used("ifconfig-noexec"),
    used("mssfix", "[count] [mtu|fixed]", scope=_CONNECTION),
    refused("fragment", "packets are not cut below the tunnel; lower tun-mtu or use mssfix"),
    refused("lladdr", _TAP),
    refused("link-mtu", "set tun-mtu instead"),
    refused("udp-mtu", "set tun-mtu instead"),
    refused("client-nat", "address translation of single clients is not supported"),
    refused("shaper", "rate limits are set outside of the tunnel (tc, or the lab's links)"),
    ignored("ifconfig-nowarn", "", "no such warning is given"),
    ignored("disable-dco", "", "packets never take a kernel path"),
    ignored("tun-mtu-extra", "count", "concerns tap devices"),
    ignored("tun-mtu-max", "count", "tun-mtu is taken as pushed"),
    deprecated("tun-ipv6", "", "--tun-ipv6 is not needed any more: a tun device always carries IPv6"),
)

ROUTE_OPTIONS: tuple[Option, ...] = (
    used("route", "network [text] [gateway] [text]"),
    used("route-ipv6", "prefix6 [gateway] [text]"),
    used("route-gateway", "text"),
    used("route-ipv6-gateway", "address6"),
    used("route-metric", "count32"),
    used("route-noexec"),
    used(
        "policy-routing", "[count32]", roles=Role.CLIENT | Role.STATIC_KEY
    ),  # ours: a table of its own instead of main
    used("route-nopull", roles=Role.CLIENT),
    used("redirect-gateway", "[def1|local|autolocal|bypass-dhcp|bypass-dns|block-local|ipv6|!ipv4…]"),
    used("redirect-private", "[def1|local|autolocal|bypass-dhcp|bypass-dns|block-local|ipv6|!ipv4…]"),
    used("block-ipv6"),
    used("dhcp-option", "name [text…]"),
    used("dns", "server|search-domains text…"),
    used("pull", roles=Role.CLIENT),
    used("pull-filter", "accept|ignore|reject text", roles=Role.CLIENT),
    refused("allow-recursive-routing", "the route to the server always stays outside of the tunnel"),
    ignored("route-delay", "[count] [count]", "routes are set as soon as the interface is up"),
    used("allow-pull-fqdn", roles=Role.CLIENT),
    ignored("max-routes", "[count]", "the number of routes is unlimited, as in OpenVPN since 2.4"),
    ignored("block-outside-dns", "", "pushed resolvers replace the present ones, so that there is none outside to ask"),
    *(
        ignored(name, "[text…]", _WINDOWS)
        for name in ("route-method", "ip-win32", "register-dns", "tap-sleep", "dhcp-renew", "dhcp-release")
    ),
    *(ignored(name, "[text…]", _WINDOWS) for name in ("pause-exit", "service", "show-net-up", "windows-driver")),
    refused("route-table", "since OpenVPN 2.7: the tunnel's routes are set in the table that every program uses"),
    refused("route-up", "scripts after routes are not supported"),
    refused("route-pre-down", "scripts before routes are removed are not supported"),
)

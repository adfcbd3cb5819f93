"""A client, its ISP, and beyond a transit network a VPN server with a private site, and the web.

    client -- isp -- transit -+- vpn -- private
                              `- web

The VPN server and the sites lie behind `transit`, so that the ISP forwards only what the client sends and receives.
The same file runs under Mininet itself:

    mn --custom topologies/client_isp_server.py --topo client_isp_server --controller none --test pingall

Options that Mininet knows keep its names (`ip`, `defaultRoute`, `params1`, `params2`); ours, which it ignores, are
`ip6` beside `ip`, `forwards`, `routes` (prefix -> gateway, both families), `resolver` (the addresses at which the node
resolves names for the client), `nameserver` (addresses of the authoritative server it runs), and at a VPN server `nat`
(prefixes that are translated to the node's own address wherever they leave) and `protects` (prefixes that nothing may
reach from the other links). Addresses are those of the article "What a VPN hides" and of 2001:db8::/32.
"""

import sys

from mininet.topo import Topo

TUNNEL_PREFIXES = ("10.8.0.0/24", "2001:db8:8::/64")
PRIVATE_PREFIXES = ("10.20.0.0/24", "2001:db8:20::/64")


class ClientIspServer(Topo):  # type: ignore[misc]  # mininet has no types
    """client - isp - transit - {vpn - private, web}; every link carries IPv4 and IPv6."""

    def build(self) -> None:
        self._add_ends()
        self._add_routers()
        self._link("client", "192.168.0.13/24", "2001:db8:1::13/64", "isp", "192.168.0.1/24", "2001:db8:1::1/64")
        self._link("isp", "192.0.2.1/30", "2001:db8:2::1/64", "transit", "192.0.2.2/30", "2001:db8:2::2/64")
        self._link("transit", "198.51.100.1/24", "2001:db8:3::1/64", "vpn", "198.51.100.10/24", "2001:db8:3::10/64")
        self._link("transit", "93.184.216.1/24", "2001:db8:4::1/64", "web", "93.184.216.34/24", "2001:db8:4::34/64")
        self._link("vpn", "10.20.0.1/24", "2001:db8:20::1/64", "private", "10.20.0.10/24", "2001:db8:20::10/64")

    def _add_ends(self) -> None:
        self.addHost("client", ip="192.168.0.13/24", defaultRoute="via 192.168.0.1", routes={"::/0": "2001:db8:1::1"})
        self.addHost(
            "web",
            ip="93.184.216.34/24",
            defaultRoute="via 93.184.216.1",
            routes={"::/0": "2001:db8:4::1"},
            nameserver=("93.184.216.53", "2001:db8:4::53"),
        )
        self.addHost(
            "private",
            ip="10.20.0.10/24",
            defaultRoute="via 10.20.0.1",
            routes={"::/0": "2001:db8:20::1"},
            nameserver=("10.20.0.53", "2001:db8:20::53"),
        )

    def _add_routers(self) -> None:
        self._router(
            "isp",
            "192.168.0.1/24",
            {"0.0.0.0/0": "192.0.2.2", "::/0": "2001:db8:2::2"},
            resolver=("192.168.0.1", "2001:db8:1::1"),
        )
        self._router(
            "transit",
            "192.0.2.2/30",
            {
                "192.168.0.0/24": "192.0.2.1",
                "2001:db8:1::/64": "2001:db8:2::1",
                "10.20.0.0/24": "198.51.100.10",
                "2001:db8:20::/64": "2001:db8:3::10",
            },
        )
        self._router(
            "vpn",
            "198.51.100.10/24",
            {"0.0.0.0/0": "198.51.100.1", "::/0": "2001:db8:3::1"},
            terminates=True,
            nat=TUNNEL_PREFIXES,
            protects=PRIVATE_PREFIXES,
        )

    def _router(self, name: str, ip: str, routes: dict[str, str], **options: object) -> None:
        self.addHost(name, ip=ip, forwards=True, routes=routes, **_router_class(), **options)

    def _link(self, node1: str, ip1: str, ip6_1: str, node2: str, ip2: str, ip6_2: str) -> None:
        self.addLink(node1, node2, params1={"ip": ip1, "ip6": ip6_1}, params2={"ip": ip2, "ip6": ip6_2})


def _router_class() -> dict[str, object]:
    """Return the option that makes a node a router under Mininet, and none elsewhere.

    `mn` has loaded `mininet.node` before it reads this file; nothing else may load it (it needs distutils, which
    Python 3.12 no longer has).
    """
    mininet_node = sys.modules.get("mininet.node")
    if mininet_node is None:
        return {}

    class Router(mininet_node.Node):  # type: ignore[name-defined,misc]
        """A Mininet host that forwards IPv4 and holds the routes of its `routes` option."""

        def config(self, routes: dict[str, str] | None = None, **params: object) -> object:
            configured = super().config(**params)
            self.cmd("sysctl -w net.ipv4.ip_forward=1")
            for prefix, gateway in (routes or {}).items():
                if ":" not in prefix:
                    self.cmd("ip", "route", "replace", prefix, "via", gateway)
            return configured

    return {"cls": Router}


topos = {"client_isp_server": ClientIspServer}

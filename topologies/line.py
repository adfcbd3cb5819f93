"""Two ends with a router between them, for measuring: nothing on the way but what every tunnel has to cross.

    client -- isp -- server

Both ends take in what they get with GRO, as real network cards do; the isp's ends, where a tap may stand, without. The
same file runs under Mininet itself (`mn --custom topologies/line.py --topo line …`). Options as in `client_isp_server`.
"""

import sys

from mininet.topo import Topo

CLIENT, SERVER = "192.168.0.13", "198.51.100.10"


class Line(Topo):  # type: ignore[misc]  # mininet has no types
    """client - isp - server; both links carry IPv4 and IPv6."""

    def build(self) -> None:
        self.addHost("client", ip=f"{CLIENT}/24", defaultRoute="via 192.168.0.1", routes={"::/0": "2001:db8:1::1"})
        self.addHost("server", ip=f"{SERVER}/24", defaultRoute="via 198.51.100.1", routes={"::/0": "2001:db8:3::1"})
        self.addHost("isp", ip="192.168.0.1/24", forwards=True, **_router_class())
        self._link("client", f"{CLIENT}/24", "2001:db8:1::13/64", "192.168.0.1/24", "2001:db8:1::1/64")
        self._link("server", f"{SERVER}/24", "2001:db8:3::10/64", "198.51.100.1/24", "2001:db8:3::1/64")

    def _link(self, end: str, ip: str, ip6: str, isp_ip: str, isp_ip6: str) -> None:
        self.addLink(end, "isp", params1={"ip": ip, "ip6": ip6}, params2={"ip": isp_ip, "ip6": isp_ip6})


def _router_class() -> dict[str, object]:
    """Return the option that makes a node a router under Mininet (see `client_isp_server`), and none elsewhere."""
    mininet_node = sys.modules.get("mininet.node")
    if mininet_node is None:
        return {}

    class Router(mininet_node.Node):  # type: ignore[name-defined,misc]
        """A Mininet host that forwards IPv4."""

        def config(self, **params: object) -> object:
            configured = super().config(**params)
            self.cmd("sysctl -w net.ipv4.ip_forward=1")
            return configured

    return {"cls": Router}


topos = {"line": Line}

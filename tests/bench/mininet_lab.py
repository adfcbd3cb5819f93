"""Builds and drops client-router-server with the distribution's Mininet, as often as told; prints the seconds as JSON.

Run by the system's Python, not by the project's: it is what `bench_lab` compares with.
"""

import json
import sys
import time

from mininet.net import Mininet
from mininet.topo import Topo


class ClientRouterServer(Topo):  # type: ignore[misc]
    def build(self) -> None:
        self.addHost("client", ip="10.0.1.2/24", defaultRoute="via 10.0.1.1")
        self.addHost("router", ip="10.0.1.1/24")
        self.addHost("server", ip="10.0.2.2/24", defaultRoute="via 10.0.2.1")
        self.addLink("client", "router", params1={"ip": "10.0.1.2/24"}, params2={"ip": "10.0.1.1/24"})
        self.addLink("router", "server", params1={"ip": "10.0.2.1/24"}, params2={"ip": "10.0.2.2/24"})


def once() -> float:
    started_at = time.perf_counter()
    net = Mininet(topo=ClientRouterServer(), controller=None, build=False)
    net.build()
    net.start()
    net.stop()
    return time.perf_counter() - started_at


print(json.dumps([once() for _ in range(int(sys.argv[1]))]))

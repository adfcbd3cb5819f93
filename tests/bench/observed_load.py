"""Records a capture of some size with real programs: curl, dig, openssl, iperf3 and ping over one wire.

Run in namespaces of its own by `bench_observer`; the servers are those of the observer's interop test. The mix is that
of an access link: name lookups, many short connections, some TLS, and downloads that make most of the packets.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.interop.observed_traffic import make_certificate, start_servers
from tests.lab.two_nodes import SERVER, TwoNodes, main, tcpdump

BULK_SHARE = 0.8
MEGABYTE_PACKETS = 1200  # full frames and their acknowledgements, roughly


def load(nodes: TwoNodes) -> Any:
    """Talk until about as many packets as asked for are recorded."""
    wanted = int((nodes.directory / "packets").read_text())
    make_certificate(nodes.directory)
    start_servers(nodes)
    nodes.up()
    for port in (53, 80, 443):
        nodes.listens("server", port)
    file = nodes.directory / "load.pcap"
    with tcpdump(nodes, "server", "s0", file):
        while packets(nodes) < wanted * (1 - BULK_SHARE):
            one_round(nodes, wanted)
        nodes.start("server", "iperf3", "-s")
        nodes.listens("server", 5201)
        while (missing := wanted - packets(nodes)) > 0:
            megabytes = max(1, min(missing // MEGABYTE_PACKETS, 20))
            nodes.run("client", "iperf3", "-c", SERVER, "-n", f"{megabytes}M", "-b", "600M", "-R")
    return {"packets": packets(nodes), "octets": file.stat().st_size}


def one_round(nodes: TwoNodes, wanted: int) -> None:
    """Name lookups, web pages with a connection each, and a few over TLS; fewer where little is asked for."""
    many = min(200, max(3, wanted // 500))
    names = nodes.directory / "names"
    names.write_text("".join(f"name{number}.example.com A\n" for number in range(many)))
    nodes.run("client", "dig", f"@{SERVER}", "+tries=1", "+time=5", "-f", str(names))
    curl = ("curl", "-sS", "--noproxy", "*", "-H", "Connection: close", "-o", "/dev/null")
    resolve = ("--resolve", f"www.example.com:80:{SERVER}", "--resolve", f"www.example.com:443:{SERVER}")
    nodes.run("client", *curl, *resolve, f"http://www.example.com/page?number=[1-{many}]")
    nodes.run("client", *curl, *resolve, "-k", f"https://www.example.com/?number=[1-{max(2, many // 20)}]")
    nodes.run("client", "ping", "-n", "-q", "-c", "5", "-i", "0.01", SERVER)


def packets(nodes: TwoNodes) -> int:
    with nodes.inside("server"):
        text = Path("/proc/thread-self/net/dev").read_text()
    counters = next(line for line in text.splitlines() if "s0:" in line).split()
    return int(counters[2]) + int(counters[10])


if __name__ == "__main__":
    main({"load": load})

"""A client, a resolver's node and a server's node in private namespaces, joined by veth links, to test services in.

    client 192.168.0.13, 2001:db8:1::13 ── .1 isp 192.0.2.1 ── .2 web 93.184.216.34, .35, .53, 2001:db8:4::34, ::53

Each node is a namespace held by a `cat` on a pipe from the test process, so nothing outlives it, killed or not. The
client has a mount namespace with a resolv.conf, hosts and nsswitch.conf of its own. The lab's builder is not used on
purpose: these tests judge the services, whatever builds the lab.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testbed.services.request import Authority, Record, Resolver, ServicesRequest, Site, Zone
from testbed.services.zones import zones_of_sites

ROOT = Path(__file__).resolve().parents[2]
WWW = Site("www.example.com", "web", ("93.184.216.34", "2001:db8:4::34"))
SHOP = Site("shop.example.net", "web", ("93.184.216.35",), http=True, https=False)
AUTHORITY = ("93.184.216.53", "2001:db8:4::53")
RESOLVER = ("192.168.0.1", "2001:db8:1::1")
LONG_TEXT = "all work and no play " * 100
EXTRA = Zone(
    "test",
    (
        Record("alias.test", "CNAME", "www.example.com"),
        Record("long.test", "TXT", LONG_TEXT),
        Record("v4.test", "A", "93.184.216.34"),
    ),
)

_LINKS = """
client link add c0 type veth peer name i0 netns {isp}
isp link add i1 type veth peer name w0 netns {web}
client addr add 192.168.0.13/24 dev c0
client addr add 2001:db8:1::13/64 dev c0 nodad
isp addr add 192.168.0.1/24 dev i0
isp addr add 2001:db8:1::1/64 dev i0 nodad
isp addr add 192.0.2.1/30 dev i1
isp addr add 2001:db8:2::1/64 dev i1 nodad
web addr add 192.0.2.2/30 dev w0
web addr add 2001:db8:2::2/64 dev w0 nodad
web addr add 93.184.216.34/32 dev lo
web addr add 93.184.216.35/32 dev lo
web addr add 93.184.216.53/32 dev lo
web addr add 2001:db8:4::34/128 dev lo nodad
web addr add 2001:db8:4::53/128 dev lo nodad
client link set lo up
client link set c0 up
isp link set i0 up
isp link set i1 up
web link set lo up
web link set w0 up
client route add default via 192.168.0.1
client -6 route add default via 2001:db8:1::1
isp route add 93.184.216.0/24 via 192.0.2.2
isp -6 route add 2001:db8:4::/64 via 2001:db8:2::2
isp route add unreachable 10.20.0.0/24
web route add default via 192.0.2.1
web -6 route add default via 2001:db8:2::1
"""


@dataclass(slots=True)
class Net:
    """The nodes, and what runs in them."""

    directory: Path
    holders: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def run(self, argv: Sequence[str], node: str = "client", **options: Any) -> subprocess.CompletedProcess[str]:
        command = [*self._enter(node), *argv]
        environment = {**options.pop("env", os.environ), "PYTHONPATH": str(ROOT)}
        patience_s = options.pop("timeout", 30)
        return subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=patience_s, env=environment, **options
        )

    def workload(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """The lines that a workload process in the client's node writes."""
        done = self.run([sys.executable, "-m", "testbed.workload"], input=json.dumps(request))
        assert done.stderr == "", done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def log(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.directory / "logs" / f"{name}.jsonl").read_text().splitlines()]

    @property
    def ca(self) -> Path:
        return self.directory / "ca.pem"

    def curl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(["curl", "-sS", "--max-time", "20", "--cacert", str(self.ca), *arguments])

    def dig(self, *arguments: str) -> str:
        return self.run(["dig", "+time=3", "+tries=1", *arguments]).stdout

    def resolver(self, address: str) -> None:
        """Make the client's resolv.conf name that server."""
        self.resolv_conf.write_text(f"nameserver {address}\noptions timeout:2 attempts:1\n")

    @property
    def resolv_conf(self) -> Path:
        return self.directory / "resolv.conf"

    def _enter(self, node: str) -> list[str]:
        return ["nsenter", "--mount", "--net", f"--target={self.holders[node].pid}", "--"]


@contextmanager
def services_net(directory: Path) -> Iterator[Net]:
    """The nodes with their links, nothing served yet."""
    net = Net(directory)
    (directory / "logs").mkdir()
    (directory / "nsswitch.conf").write_text("hosts: files dns\n")
    (directory / "hosts").write_text("127.0.0.1 localhost\n")
    net.resolver(RESOLVER[0])
    with ExitStack() as stack:
        for name in ("client", "isp", "web"):
            holder = stack.enter_context(_holder(name == "client", directory))
            net.holders[name] = holder
        for line in _LINKS.strip().splitlines():
            node, arguments = line.format(**{name: h.pid for name, h in net.holders.items()}).split(" ", 1)
            done = net.run(["ip", *arguments.split()], node)
            assert done.returncode == 0, f"{line}: {done.stderr}"
        for key in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
            net.run(["sh", "-c", f"echo 1 > /proc/sys/{key}"], "isp")
        yield net


@contextmanager
def serving(net: Net, request: ServicesRequest | None = None) -> Iterator[subprocess.Popen[str]]:
    """A services process, ready; at the end it must take SIGTERM as a wish to end well."""
    with start_services(net, request) as process:
        assert process.stdout is not None
        line = json.loads(process.stdout.readline())
        assert line["ready"], line
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0


@contextmanager
def start_services(net: Net, request: ServicesRequest | None = None) -> Iterator[subprocess.Popen[str]]:
    descriptors = {name: os.open(f"/proc/{holder.pid}/ns/net", os.O_RDONLY) for name, holder in net.holders.items()}
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "testbed.services"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            pass_fds=tuple(descriptors.values()),
        )
    finally:
        wanted = (request or default_request(net, descriptors)).to_json()
        wanted = json.dumps({**json.loads(wanted), "nodes": descriptors})
        for descriptor in descriptors.values():
            os.close(descriptor)
    assert process.stdin is not None
    with process:
        process.stdin.write(wanted)
        process.stdin.close()
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def default_request(net: Net, descriptors: dict[str, int] | None = None) -> ServicesRequest:
    """Two sites, one authoritative server and the isp's resolver."""
    sites = (WWW, SHOP)
    zones = (*zones_of_sites(sites, AUTHORITY, root=True), EXTRA)
    return ServicesRequest(
        nodes=descriptors or dict.fromkeys(net.holders, 0),
        log_directory=str(net.directory / "logs"),
        ca_certificate=str(net.ca),
        sites=sites,
        authorities=(Authority("web", AUTHORITY, zones),),
        resolvers=(Resolver("isp", RESOLVER, {".": AUTHORITY}),),
    )


@contextmanager
def _holder(own_files: bool, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose namespaces are the node; it ends when its stdin does."""
    mounts = [
        f"mount --bind {directory / name} $(readlink -f /etc/{name})"
        for name in ("resolv.conf", "hosts", "nsswitch.conf")
    ]
    script = " && ".join([*(mounts if own_files else []), "echo ready", "exec cat"])
    process = subprocess.Popen(
        ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == b"ready\n"
        try:
            yield process
        finally:
            process.stdin.close()
            process.wait(10)

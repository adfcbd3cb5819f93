"""What `test_tap` has done in namespaces of their own; each function returns what the test then judges."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from typing import Any

from testbed.capture import tap
from tests.lab.two_nodes import CLIENT, ROOT, SERVER, TwoNodes, ip, main, output, tcpdump, wait_until

TINY_RING = 8192
FLOOD = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(int(sys.argv[2])):
    s.sendto(number.to_bytes(4, "big") * 300, (sys.argv[1], 9))
"""


def flood(nodes: TwoNodes, count: int) -> None:
    nodes.run("client", sys.executable, "-c", FLOOD, SERVER, str(count))


def from_the_first_packet(nodes: TwoNodes) -> Any:
    """The ring is opened on a link that is down; the process that drains it starts long after the traffic."""
    packet_socket = nodes.open_tap("server", "s0")
    nodes.up()
    flood(nodes, 300)
    tapped = nodes.start_tap(packet_socket, "server:client")
    return {"stats": tapped.stop()}


def link_goes_down_and_up(nodes: TwoNodes) -> Any:
    packet_socket = nodes.open_tap("server", "s0")
    nodes.up()
    tapped = nodes.start_tap(packet_socket, "server:client")
    flood(nodes, 10)
    ip("ip", "-n", "server", "link", "set", "s0", "down")
    ip("ip", "-n", "server", "link", "set", "s0", "up")
    ip("ip", "-n", "server", "route", "replace", CLIENT, "dev", "s0")
    nodes.wait_for_link("client", "c0")
    flood(nodes, 10)
    return {"stats": tapped.stop()}


def from_the_first_packet_busy(nodes: TwoNodes) -> Any:
    """The same with a tap that turns whole blocks round in place."""
    packet_socket = nodes.open_tap("server", "s0")
    nodes.up()
    flood(nodes, 300)
    return {"stats": nodes.start_tap(packet_socket, "server:client", busy=1).stop()}


def beside_tcpdump(nodes: TwoNodes) -> Any:
    return _beside_tcpdump(nodes)


def beside_tcpdump_busy(nodes: TwoNodes) -> Any:
    return _beside_tcpdump(nodes, busy=1)


def _beside_tcpdump(nodes: TwoNodes, **shape: int) -> Any:
    packet_socket = nodes.open_tap("server", "s0")
    nodes.up()
    tapped = nodes.start_tap(packet_socket, "server:client", **shape)
    with tcpdump(nodes, "server", "s0", nodes.directory / "tcpdump.pcap"):
        nodes.start("server", "iperf3", "-s", "-1")
        nodes.listens("server", 5201)
        nodes.run("client", "iperf3", "-c", SERVER, "-n", "30M", "-b", "400M")
        flood(nodes, 2000)
    return {"stats": tapped.stop()}


def tiny_ring(nodes: TwoNodes) -> Any:
    """A ring of two pages under a flood, with a tap's process that cannot run while the flood lasts."""
    packet_socket = nodes.open_tap("server", "s0", ring_octets=TINY_RING)
    nodes.up()
    flood(nodes, 5000)
    tapped = nodes.start_tap(packet_socket, "server:client", ring_octets=TINY_RING)
    return {"stats": tapped.stop(), "received": interface_packets("server", "s0")}


def interface_packets(node: str, device: str) -> int:
    """Packets of both directions, as the kernel counts them on the interface."""
    counters = [f"/sys/class/net/{device}/statistics/{way}_packets" for way in ("rx", "tx")]
    return sum(int(line) for line in output(node, "cat", *counters).split())


def snap_length(nodes: TwoNodes) -> Any:
    packet_socket = nodes.open_tap("server", "s0", snap_octets=96)
    nodes.up()
    tapped = nodes.start_tap(packet_socket, "server:client", snap_octets=96)
    flood(nodes, 50)
    return {"stats": tapped.stop()}


def tun_device(nodes: TwoNodes) -> Any:
    return _tun_device(nodes)


def tun_device_busy(nodes: TwoNodes) -> Any:
    return _tun_device(nodes, busy=1)


def device_gone(nodes: TwoNodes) -> Any:
    """The tunnel has come and gone before the tap's process is there."""
    ip("ip", "-n", "client", "tuntap", "add", "dev", "tun0", "mode", "tun")
    packet_socket = nodes.open_tap("client", "tun0")
    ip("ip", "-n", "client", "link", "delete", "tun0")
    return nodes.start_tap(packet_socket, "client:tun0").stop()


def _tun_device(nodes: TwoNodes, **shape: int) -> Any:
    """A TUN device: raw IP, no link layer."""
    ip("ip", "-n", "client", "tuntap", "add", "dev", "tun0", "mode", "tun")
    packet_socket = nodes.open_tap("client", "tun0")
    ip("ip", "-n", "client", "address", "add", "10.8.0.2/24", "dev", "tun0")
    holder = nodes.start("client", sys.executable, "-c", TUN_HOLDER, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    ip("ip", "-n", "client", "link", "set", "tun0", "up")
    tapped = nodes.start_tap(packet_socket, "client:tun0", **shape)
    nodes.run("client", sys.executable, "-c", FLOOD, "10.8.0.1", "5")
    return {"stats": tapped.stop()}


TUN_HOLDER = """
import fcntl, os, struct, sys
fd = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", b"tun0", 0x1001))
print("open", flush=True)
sys.stdin.read()
"""


def loopback(nodes: TwoNodes) -> Any:
    packet_socket = nodes.open_tap("client", "lo")
    tapped = nodes.start_tap(packet_socket, "client:lo")
    nodes.run("client", sys.executable, "-c", FLOOD, "127.0.0.1", "5")
    return {"stats": tapped.stop()}


def parent_dies(nodes: TwoNodes) -> Any:
    """The tap's parent is killed; the tap must end by itself, and its file be whole."""
    packet_socket = nodes.open_tap("server", "s0")
    nodes.up()
    path = nodes.directory / "server:client.pcapng"
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    argv = ["-m", "testbed.capture", "--socket", str(packet_socket.fileno()), "--output", str(file)]
    argv += ["--interface-name", "server:client"]
    start = (
        "import subprocess, sys\n"
        f"argv = [sys.executable, *{argv!r}]\n"
        "process = subprocess.Popen(argv, close_fds=False, stdout=subprocess.DEVNULL)\n"
        "print(process.pid, flush=True)\n"
        "sys.stdin.read()"
    )
    os.set_inheritable(packet_socket.fileno(), True)
    os.set_inheritable(file, True)
    pipe = subprocess.PIPE
    parent = subprocess.Popen(
        [sys.executable, "-c", start], stdin=pipe, stdout=pipe, text=True, close_fds=False, cwd=ROOT
    )
    assert parent.stdout is not None
    tap_process = int(parent.stdout.readline())
    wait_until(lambda: path.stat().st_size > 0, "the tap writes")
    flood(nodes, 20)
    handle = os.pidfd_open(tap_process)
    parent.kill()
    parent.wait()
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return {"ended": bool(poll.poll(10_000))}


def strange_link(nodes: TwoNodes) -> Any:
    """An interface whose packets are neither Ethernet nor raw IP is refused in words."""
    ip("ip", "-n", "client", "tuntap", "add", "dev", "tun0", "mode", "tun")
    nodes.run("client", sys.executable, "-c", TUN_BECOMES_PPP)
    return refusal(nodes, "tun0")


TUN_BECOMES_PPP = """
import fcntl, os, struct
fd = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", b"tun0", 0x1001))
fcntl.ioctl(fd, 0x400454CD, 512)
"""


def no_such_interface(nodes: TwoNodes) -> Any:
    return refusal(nodes, "nowhere0")


def refusal(nodes: TwoNodes, device: str) -> dict[str, str]:
    try:
        nodes.open_tap("client", device)
    except tap.TapError as error:
        return {"refused": str(error)}
    return {"refused": ""}


if __name__ == "__main__":
    main({name: value for name, value in globals().items() if callable(value)})

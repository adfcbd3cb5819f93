"""Traffic in a lab is what it would be on wires, between the nodes that may talk, through programs of its nodes."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from testbed.lab.bubble import Bubble, Conductor
from testbed.lab.build import Lab
from testbed.lab.errors import LabBuildError, LabFailed
from testbed.lab.namespaces import entered_network
from testbed.lab.node import Node
from testbed.lab.plan import LabPlan, plan_lab

pytestmark = pytest.mark.root

InLab = Callable[..., Any]
WEB, WEB6, PRIVATE, PRIVATE6 = "93.184.216.34", "2001:db8:4::34", "10.20.0.10", "2001:db8:20::10"
PATIENCE_SECONDS = 20.0
ETH_P_ALL, ETH_HEADER_OCTETS, UDP_SEGMENT = 3, 14, 103


def run(node: Node, *argv: str) -> tuple[int, str]:
    process = node.spawn(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    text = process.communicate(timeout=PATIENCE_SECONDS)[0].decode()
    return process.returncode, text


def ones_sum(data: bytes) -> int:
    """Return the Internet checksum of `data` (RFC 1071), slowly and plainly; 0 where the sum inside it is right."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def sums_are_right(frame: bytes) -> bool:
    """Whether the IPv4 header's and the TCP or UDP checksum of an Ethernet frame are those a receiver computes."""
    packet = frame[ETH_HEADER_OCTETS:]
    header = (packet[0] & 15) * 4
    length = struct.unpack_from("!H", packet, 2)[0]
    segment = packet[header:length]
    pseudo = packet[12:20] + struct.pack("!BBH", 0, packet[9], len(segment))
    return ones_sum(packet[:header]) == 0 and ones_sum(pseudo + segment) == 0


def exchange(lab: Lab, octets: int) -> None:
    """Send TCP both ways between client and web."""
    listener = lab.node("web").socket()
    listener.bind((WEB, 8080))
    listener.listen()
    client = lab.node("client").socket()
    client.connect((WEB, 8080))
    server = listener.accept()[0]
    for sender, receiver in ((client, server), (server, client)):
        child = os.fork()
        if child == 0:
            sender.sendall(bytes(octets))
            os._exit(0)
        left = octets
        while left:
            left -= len(receiver.recv(1 << 16))
        os.waitpid(child, 0)
    for used in (client, server, listener):
        used.close()


def test_frames_at_the_tap_are_those_of_a_wire(in_lab: InLab) -> None:
    taps: list[socket.socket] = []

    def attach(lab: Lab) -> None:
        tap = lab.node("isp").socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        tap.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        tap.bind(("isp-eth0", ETH_P_ALL))
        tap.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # ENETDOWN: that is the point
        taps.append(tap)

    def work(lab: Lab) -> Any:
        exchange(lab, 400_000)
        with lab.node("client").socket(socket.AF_INET, socket.SOCK_DGRAM) as superpackets:
            superpackets.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
            superpackets.sendto(bytes(20_000), (WEB, 9))
        taps[0].setblocking(False)
        frames = []
        while True:
            try:
                frames.append(taps[0].recv(1 << 17))
            except BlockingIOError:
                break
        ipv4 = [frame for frame in frames if frame[12:14] == b"\x08\x00" and frame[23] in (6, 17)]
        udp = [frame for frame in ipv4 if frame[23] == 17]
        return {
            "longest": max(map(len, frames)),
            "tcp": len(ipv4) - len(udp),
            "udp": [len(frame) for frame in udp],
            "wrong": sum(not sums_are_right(frame) for frame in ipv4),
        }

    seen = in_lab(work, attach)
    assert seen["longest"] == 1500 + ETH_HEADER_OCTETS
    assert seen["tcp"] > 2 * 400_000 / 1500
    assert seen["udp"] == [1000 + 42] * 20
    assert seen["wrong"] == 0


def test_a_tap_that_binds_before_links_come_up_gets_the_first_packet(in_lab: InLab) -> None:
    taps: list[socket.socket] = []
    states: list[str] = []

    def attach(lab: Lab) -> None:
        tap = lab.node("isp").socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        tap.bind(("isp-eth0", ETH_P_ALL))
        tap.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # ENETDOWN: that is the point
        tap.settimeout(PATIENCE_SECONDS)
        taps.append(tap)
        states.extend(link["state"] for link in lab.node("isp").interfaces() if link["name"] != "lo")

    def work(lab: Lab) -> Any:
        run(lab.node("client"), "ping", "-c1", "-W5", WEB)
        frames = [taps[0].recv(2048)]
        while frames[-1][12:14] != b"\x08\x06":  # the first ARP question precedes the first IPv4 packet
            frames.append(taps[0].recv(2048))
        return {"states": states, "ipv4_before_arp": sum(frame[12:14] == b"\x08\x00" for frame in frames)}

    assert in_lab(work, attach) == {"states": ["down", "down"], "ipv4_before_arp": 0}


@pytest.mark.parametrize("address", [WEB, WEB6, "203.0.113.7", "2001:db8:77::7", "198.51.100.10", "2001:db8:3::10"])
def test_the_client_reaches_the_public_nodes_at_once(in_lab: InLab, address: str) -> None:
    code, text = in_lab(lambda lab: run(lab.node("client"), "ping", "-c1", "-W5", address))
    assert code == 0, text


@pytest.mark.parametrize(("address", "words"), [(PRIVATE, "Packet filtered"), (PRIVATE6, "prohibited")])
def test_the_private_site_is_refused_from_outside_and_reached_from_the_vpn_node(
    in_lab: InLab, address: str, words: str
) -> None:
    def work(lab: Lab) -> Any:
        return [run(lab.node(name), "ping", "-c1", "-W5", address) for name in ("client", "web", "vpn")]

    (client, client_says), (web, _), (vpn, _) = in_lab(work)
    assert client != 0
    assert words in client_says
    assert web != 0
    assert vpn == 0


def open_tun(node: Node, name: str) -> int:
    """Return a tun device of `node`: what comes out of a tunnel's server."""
    with entered_network(node.netns_fd):
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1001))  # TUNSETIFF, IFF_TUN | IFF_NO_PI
    for argv in (
        ["ip", "addr", "add", "10.8.0.1/24", "dev", name],
        ["ip", "addr", "add", "2001:db8:8::1/64", "dev", name, "nodad"],
        ["ip", "link", "set", name, "up"],
    ):
        assert run(node, *argv)[0] == 0
    return tun


def udp_packet(source: str, target: str) -> bytes:
    """Return an IP packet with a UDP datagram from port 5000 to port 7."""
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    addresses = socket.inet_pton(family, source) + socket.inet_pton(family, target)
    datagram = struct.pack("!HHHH", 5000, 7, 12, 0) + b"echo"
    pseudo = addresses + struct.pack("!HH", 17, len(datagram))
    datagram = datagram[:6] + struct.pack("!H", ones_sum(pseudo + datagram)) + datagram[8:]
    if family == socket.AF_INET6:
        return struct.pack("!IHBB", 6 << 28, len(datagram), 17, 64) + addresses + datagram
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), 1, 0, 64, 17, 0) + addresses
    return header[:10] + struct.pack("!H", ones_sum(header)) + header[12:] + datagram


@pytest.mark.parametrize(
    ("inner", "server", "node", "translated"),
    [
        ("10.8.0.2", WEB, "web", "198.51.100.10"),
        ("2001:db8:8::2", WEB6, "web", "2001:db8:3::10"),
        ("10.8.0.2", PRIVATE, "private", "10.20.0.1"),
        ("2001:db8:8::2", PRIVATE6, "private", "2001:db8:20::1"),
    ],
)
def test_what_comes_out_of_the_tunnel_has_the_vpn_nodes_address_and_is_answered(
    in_lab: InLab, inner: str, server: str, node: str, translated: str
) -> None:
    def work(lab: Lab) -> Any:
        tun = open_tun(lab.node("vpn"), "tun0")
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        with lab.node(node).socket(family, socket.SOCK_DGRAM) as site:
            site.bind((server, 7))
            site.settimeout(PATIENCE_SECONDS)
            os.write(tun, udp_packet(inner, server))
            data, peer = site.recvfrom(100)
            site.sendto(b"answer", peer)
        while b"answer" not in (packet := os.read(tun, 2000)):
            pass  # the kernel's own multicast on the new device
        target = packet[24:40] if ":" in server else packet[16:20]
        os.close(tun)
        return data.decode(), peer[0], socket.inet_ntop(family, target)

    assert tuple(in_lab(work)) == ("echo", translated, inner)


def test_a_change_of_resolver_reaches_a_running_program(in_lab: InLab) -> None:
    def work(lab: Lab) -> Any:
        script = "cat /etc/resolv.conf; echo; read line; cat /etc/resolv.conf"
        program = lab.node("client").spawn(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert program.stdout is not None
        before = [program.stdout.readline().decode() for _ in range(3)]
        lab.node("client").set_resolver(["10.8.0.1"])
        after = program.communicate(b"\n", timeout=PATIENCE_SECONDS)[0].decode()
        return before, after, run(lab.node("web"), "cat", "/etc/resolv.conf")[1]

    before, after, other = in_lab(work)
    assert before == ["nameserver 192.168.0.1\n", "nameserver 2001:db8:1::1\n", "\n"]
    assert after == "nameserver 10.8.0.1\n"
    assert "nameserver" not in other


def test_a_node_has_its_own_names_and_a_small_environment(in_lab: InLab) -> None:
    def work(lab: Lab) -> Any:
        os.environ["SECRET_OF_THE_HOST"] = "1"
        client = lab.node("client")
        environment = client.spawn(["env"], env={"ADDED": "yes"}, stdout=subprocess.PIPE, cwd="/usr")
        return {
            "hosts": run(client, "getent", "hosts", "a.example")[1].split(),
            "own": run(client, "getent", "ahostsv4", "client")[1].split()[0],
            "nsswitch": run(client, "grep", "hosts:", "/etc/nsswitch.conf")[1],
            "env": environment.communicate(timeout=PATIENCE_SECONDS)[0].decode(),
            "sys": run(client, "ls", "/sys/class/net")[1].split(),
            "passwd": run(client, "getent", "passwd", "root")[0],
        }

    seen = in_lab(work)
    assert seen["hosts"] == ["203.0.113.7", "a.example"]
    assert seen["own"] == "192.168.0.13"
    assert seen["nsswitch"] == "hosts: files dns\n"
    names = {line.partition("=")[0] for line in seen["env"].splitlines()}
    assert names <= {"PATH", "HOME", "LANG", "ADDED", "PWD", "OLDPWD"}
    assert {"PATH", "LANG", "ADDED"} <= names
    assert seen["sys"] == ["client-eth0", "lo"]
    assert seen["passwd"] == 0


def test_closing_a_lab_ends_its_programs_even_stubborn_ones(in_lab: InLab) -> None:
    def work(lab: Lab) -> Any:
        gentle = lab.node("client").spawn(["sleep", "1000"])
        stubborn = lab.node("web").spawn(
            ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1000; done"], stdout=subprocess.PIPE
        )
        assert stubborn.stdout is not None
        stubborn.stdout.readline()
        lab.close()
        return gentle.returncode, stubborn.returncode

    assert in_lab(work) == [-signal.SIGTERM, -signal.SIGKILL]


def test_events_and_the_result_reach_the_front_and_an_error_comes_with_its_traceback() -> None:
    events: list[Any] = []

    def works(conductor: Conductor) -> Any:
        conductor.send({"step": 1})
        conductor.send("é" * 200_000)
        return {"pid": os.getpid()}

    with Bubble() as bubble:
        assert bubble.run(works, events.append) == {"pid": 2}
    assert events == [{"step": 1}, "é" * 200_000]

    def fails(_conductor: Conductor) -> Any:
        raise ValueError("of its own making")

    with Bubble() as bubble, pytest.raises(LabFailed, match="ValueError: of its own making") as caught:
        bubble.run(fails)
    assert "in fails" in caught.value.trace

    def dies(_conductor: Conductor) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    with Bubble() as bubble, pytest.raises(LabFailed, match="killed by SIGKILL"):
        bubble.run(dies)


def test_the_bubble_has_none_of_the_fronts_descriptors_but_those_it_was_given(tmp_path: Path) -> None:
    def names(_conductor: Conductor) -> Any:
        found = []
        for entry in os.listdir("/proc/self/fd"):
            try:
                found.append(os.readlink(f"/proc/self/fd/{entry}"))
            except FileNotFoundError:
                continue
        return found

    with open(tmp_path / "secret", "w") as _secret, open(tmp_path / "given", "w") as given, Bubble() as bubble:
        found = bubble.run(names, kept_descriptors=(given.fileno(),))
    assert not [name for name in found if name.endswith("/secret")]
    assert [name for name in found if name.endswith("/given")]


def test_a_kept_lab_outlives_its_function_until_it_is_closed() -> None:
    def work(_conductor: Conductor) -> Any:
        subprocess.Popen(["sleep", "1000"])
        return os.readlink("/proc/self/ns/pid")

    def alive(namespace: str) -> bool:
        for entry in os.listdir("/proc"):
            try:
                if entry.isdigit() and os.readlink(f"/proc/{entry}/ns/pid") == namespace:
                    return True
            except OSError:
                continue
        return False

    with Bubble() as bubble:
        namespace = bubble.run(work, keep=True)
        assert alive(namespace)
    assert not alive(namespace)


def test_what_the_kernel_refuses_is_named() -> None:

    from mininet.topo import Topo

    topo = Topo()
    topo.addHost("a")
    topo.addHost("b")
    topo.addLink("a", "b", addr1="01:00:00:00:00:01", params1={"ip": "10.0.0.1/24"}, params2={"ip": "10.0.0.2/24"})
    plan: LabPlan = plan_lab(topo)

    def work(_conductor: Conductor) -> Any:
        try:
            Lab.build(plan)
        except LabBuildError as error:
            return str(error), os.listdir("/run/netns")
        return None

    with Bubble() as bubble:
        assert bubble.run(work) == ["the kernel refused link a-eth0 - b-eth0: Cannot assign requested address", []]

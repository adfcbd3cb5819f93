"""What the driver does to a host (device, addresses, routes, resolver), as `ip` shows it, and how it takes it back."""

from __future__ import annotations

import itertools
import json
import os
import stat
import subprocess
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface, ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from testbed.lab.bubble import Bubble
from vpn.config.model import DeviceSettings, DriverSettings, OutputSettings
from vpn.driver.errors import HostError
from vpn.driver.keylog import KeyLog
from vpn.driver.log import Log
from vpn.driver.netlink import Netlink, add_route, delete_route, device_index
from vpn.driver.network import TunnelNetwork
from vpn.driver.resolver import ResolverFile
from vpn.driver.routes import IpAddress, KernelRoute
from vpn.driver.tun import TunDevice
from vpn.push import PushedOptions, RedirectGateway, Route
from vpn.settings import Topology

pytestmark = pytest.mark.root

SERVER = ip_address("198.51.100.10")
PUSHED = PushedOptions(
    topology=Topology.SUBNET,
    ifconfig=IPv4Interface("10.8.0.2/24"),
    ifconfig_ipv6=IPv6Interface("2001:db8:8::1000/64"),
    route_gateway=IPv4Address("10.8.0.1"),
    routes=(Route(IPv4Network("10.20.0.0/24"), "", 7),),
    redirect_gateway=RedirectGateway(frozenset({"def1", "ipv6"})),
    dns_addresses=(IPv4Address("10.8.0.1"),),
    dns_search=("corp.example",),
)


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=10).stdout


def apart(function: Callable[[], Any]) -> Any:
    """Runs `function` in namespaces of its own with one link, `up0`, and a default route over it."""

    def body(_conductor: object) -> Any:
        ip("link", "set", "lo", "up")
        ip("link", "add", "up0", "type", "veth", "peer", "name", "up1")
        for link in ("up0", "up1"):
            ip("link", "set", link, "up")
        ip("addr", "add", "192.168.0.13/24", "dev", "up0")
        ip("addr", "add", "2001:db8:1::13/64", "dev", "up0", "nodad")
        ip("route", "add", "default", "via", "192.168.0.1")
        ip("route", "add", "default", "via", "2001:db8:1::1")
        return function()

    with Bubble() as bubble:
        return bubble.run(body)


def settings(name: str = "tun7") -> DriverSettings:
    return DriverSettings(device=DeviceSettings(name=name), output=OutputSettings(verb=0))


def routes() -> list[str]:
    shown = ip("route") + ip("-6", "route")
    return sorted(line.strip() for line in shown.splitlines() if not line.startswith("fe80"))


def test_a_client_sets_up_what_was_pushed_and_takes_all_of_it_back() -> None:
    def body() -> dict[str, Any]:
        resolver = Path("/etc/resolv.conf")
        before = (routes(), resolver.read_text(), resolver.stat().st_ino)
        network = TunnelNetwork(settings(), Log(OutputSettings(verb=0)))
        network.look_at_underlay(SERVER)
        network.set_up_client(PUSHED, SERVER, 1400)
        during = {
            "link": json.loads(ip("-j", "addr", "show", "tun7"))[0],
            "routes": routes(),
            "resolver": resolver.read_text(),
        }
        network.close()
        after = (routes(), resolver.read_text(), resolver.stat().st_ino)
        return {"same": before == after, "gone": not os.path.exists("/sys/class/net/tun7"), **during}

    found = apart(body)
    assert found["same"]
    assert found["gone"]
    assert found["link"]["mtu"] == 1400
    assert "UP" in found["link"]["flags"]
    addresses = {(a["local"], a["prefixlen"]) for a in found["link"]["addr_info"] if a["scope"] == "global"}
    assert addresses == {("10.8.0.2", 24), ("2001:db8:8::1000", 64)}
    assert "198.51.100.10 via 192.168.0.1 dev up0 proto static" in found["routes"]
    assert "10.20.0.0/24 via 10.8.0.1 dev tun7 proto static metric 7" in found["routes"]
    assert "0.0.0.0/1 via 10.8.0.1 dev tun7 proto static" in found["routes"]
    assert sum("dev tun7 proto static" in line for line in found["routes"]) == 7
    assert found["resolver"].splitlines()[1:] == ["search corp.example", "nameserver 10.8.0.1"]


def test_a_replaced_default_route_comes_back() -> None:
    def body() -> list[list[str]]:
        before = routes()
        network = TunnelNetwork(settings(), Log(OutputSettings(verb=0)))
        network.look_at_underlay(SERVER)
        pushed = PushedOptions(
            topology=Topology.SUBNET,
            ifconfig=PUSHED.ifconfig,
            route_gateway=PUSHED.route_gateway,
            redirect_gateway=RedirectGateway(frozenset({"autolocal"})),
        )
        network.set_up_client(pushed, SERVER, 1500)
        during = routes()
        network.close()
        return [before, during, routes()]

    before, during, after = apart(body)
    assert after == before
    assert [line for line in during if line.startswith("default via") and "2001" not in line] == [
        "default via 10.8.0.1 dev tun7 proto static"
    ]


def test_a_route_that_the_kernel_refuses_is_an_error_of_the_set_up() -> None:
    def body() -> bool:
        network = TunnelNetwork(settings(), Log(OutputSettings(verb=0)))
        network.look_at_underlay(SERVER)
        wrong = PushedOptions(
            topology=Topology.SUBNET,
            ifconfig=PUSHED.ifconfig,
            routes=(Route(IPv4Network("10.20.0.0/24"), "172.16.0.1"),),
        )
        network.set_up_client(wrong, SERVER, 1500)
        return network.has_errors

    assert apart(body)


def test_a_host_route_that_was_there_before_stays() -> None:
    def body() -> tuple[list[str], list[str]]:
        ip("route", "add", "198.51.100.10", "via", "192.168.0.1")
        before = routes()
        network = TunnelNetwork(settings(), Log(OutputSettings(verb=0)))
        network.look_at_underlay(SERVER)
        network.set_up_client(PUSHED, SERVER, 1500)
        network.close()
        return before, routes()

    before, after = apart(body)
    assert before == after


def test_a_persistent_device_is_taken_as_it_is_and_left_without_our_addresses() -> None:
    def body() -> str:
        ip("tuntap", "add", "dev", "mine", "mode", "tun")
        network = TunnelNetwork(settings("mine"), Log(OutputSettings(verb=0)))
        network.look_at_underlay(SERVER)
        network.set_up_client(PUSHED, SERVER, 1500)
        network.close()
        return ip("-j", "addr", "show", "mine")

    (device,) = json.loads(apart(body))
    assert [a for a in device["addr_info"] if a["scope"] == "global"] == []


def test_a_numbered_device_gets_the_next_free_number() -> None:
    def body() -> list[str]:
        ip("tuntap", "add", "dev", "tun0", "mode", "tun")
        devices = [TunDevice(Path("/dev/net/tun")) for _ in range(2)]
        for device in devices:
            device.attach("tun", 1500)
        return [device.name for device in devices]

    assert apart(body) == ["tun1", "tun2"]


def test_a_name_that_another_kind_of_device_has_is_refused_with_the_reason() -> None:
    def body() -> str:
        with pytest.raises(HostError) as caught:
            TunDevice(Path("/dev/net/tun")).attach("up0", 1500)
        return str(caught.value)

    assert "not a tun device" in apart(body)


def test_a_packet_written_to_the_device_is_read_by_the_kernel_and_the_other_way_round() -> None:
    """An ICMP echo request from the peer comes in through the device; the kernel's answer comes out of it."""

    def body() -> str:
        import select

        from scapy.layers.inet import ICMP, IP

        tun = TunDevice(Path("/dev/net/tun"))
        tun.attach("tun7", 1500)
        ip("addr", "add", "10.8.0.2", "peer", "10.8.0.1", "dev", "tun7")
        ip("link", "set", "tun7", "up")
        tun.write_packets([bytes(IP(src="10.8.0.1", dst="10.8.0.2") / ICMP(id=5, seq=9) / b"payload")])
        while True:
            assert select.select([tun.fileno()], [], [], 5)[0]
            for packet in itertools.chain(*(batch for batch in tun.read_packets() if isinstance(batch, list))):
                answer = IP(packet)
                if answer.version == 4 and answer.haslayer(ICMP) and answer[ICMP].type == 0:
                    return f"{answer.dst} {answer[ICMP].id} {answer[ICMP].seq} {bytes(answer[ICMP].payload).decode()}"

    assert apart(body) == "10.8.0.1 5 9 payload"


def test_the_kernels_routes_are_read_as_ip_reads_them() -> None:
    def body() -> list[str]:
        ip("route", "add", "default", "via", "192.168.0.9", "metric", "900")
        kernel = Netlink()
        return [
            str(kernel.default_route(4)),
            str(kernel.default_route(6)),
            str(kernel.path_to(ip_address("192.0.2.1"))),
            str(kernel.path_to(ip_address("192.168.0.200"))),
            str(kernel.path_to(ip_address("127.0.0.1"))),
            str([str(network) for network in kernel.networks_of(device_index("up0"))]),
        ]

    assert apart(body) == [
        "0.0.0.0/0 via 192.168.0.1",
        "::/0 via 2001:db8:1::1 metric 1024",
        "192.0.2.1/32 via 192.168.0.1",
        "192.168.0.200/32",
        "None",
        "['192.168.0.0/24', '2001:db8:1::/64']",
    ]


def test_each_of_a_batch_of_requests_gets_its_own_answer() -> None:
    def body() -> list[str]:
        kernel, link = Netlink(), device_index("up0")
        good = KernelRoute(ip_network("203.0.113.0/24"), link, ip_address("192.168.0.1"))
        bad = KernelRoute(ip_network("203.0.114.0/24"), link, ip_address("172.16.0.1"))
        answers = kernel.apply(
            [add_route(good), add_route(bad), add_route(good), delete_route(good), delete_route(good)]
        )
        return [str(answer) for answer in answers]

    first, second, third, fourth, fifth = apart(body)
    assert (first, fourth) == ("None", "None")
    assert second.startswith("add the route 203.0.114.0/24 via 172.16.0.1: Network is unreachable")
    assert third == "add the route 203.0.113.0/24 via 192.168.0.1: File exists"
    assert fifth == "delete the route 203.0.113.0/24 via 192.168.0.1: No such process"


def test_a_resolver_file_changed_by_somebody_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 192.0.2.1\n")
    resolver = ResolverFile(path)
    assert resolver.nameservers() == (ip_address("192.0.2.1"),)
    resolver.apply(*resolver.plan([ip_address("10.8.0.1")], [], "tun0"))
    assert resolver.nameservers() == (ip_address("10.8.0.1"),)
    path.write_text("nameserver 192.0.2.9\n")
    assert not resolver.restore()
    assert path.read_text() == "nameserver 192.0.2.9\n"


def test_a_resolver_file_set_twice_comes_back_as_it_was_at_first(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("# mine\nnameserver 192.0.2.1\n")
    resolver = ResolverFile(path)
    for server in ("10.8.0.1", "10.9.0.1"):
        resolver.apply(*resolver.plan([ip_address(server)], [], "tun0"))
    assert resolver.restore()
    assert path.read_text() == "# mine\nnameserver 192.0.2.1\n"


def test_the_log_shows_control_characters_escaped_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = Log(OutputSettings(verb=3, log_file=path, timestamps=False))
    log.write("peer said: x\nInitialization Sequence Completed\x1b[0m", 1)
    log.write("too detailed", 4)
    log.close()
    assert path.read_text() == "peer said: x\\nInitialization Sequence Completed\\x1b[0m\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_key_log_is_for_its_owner_alone_and_no_link(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    log = KeyLog(path)
    log.write(b"CLIENT_RANDOM 00 11")
    log.close()
    assert path.read_text() == "CLIENT_RANDOM 00 11\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    trap = tmp_path / "trap"
    trap.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HostError):
        KeyLog(trap)


def test_a_client_waits_until_its_addresses_are_this_hosts_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def body() -> list[str]:
        waited: list[str] = []

        def wait(_paths: object, addresses: Sequence[IpAddress]) -> list[IpAddress]:
            waited.extend(map(str, addresses))
            return []

        monkeypatch.setattr("vpn.driver.network.await_local", wait)
        network = TunnelNetwork(settings(), Log(OutputSettings(verb=0)))
        network.look_at_underlay(SERVER)
        network.set_up_client(PUSHED, SERVER, 1400)
        network.close()
        return waited

    assert apart(body) == ["10.8.0.2", "2001:db8:8::1000"]

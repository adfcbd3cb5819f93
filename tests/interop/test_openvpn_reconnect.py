"""Connections that break, come back and change keys, and the sockets they use, with openvpn on the other side."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.interop.role_pairs import has_new_key, pairs, ping, wait_for_new_key
from tests.interop.tunnel_configs import PUSH_ALL, PUSH_SPLIT, Setup, make_keys
from tests.interop.tunnel_lab import (
    INNER_SERVER,
    OPENVPN,
    OURS,
    READY,
    SERVER,
    SERVER6,
    WEB,
    TunnelLab,
    in_lab,
)

pytestmark = [pytest.mark.root, pytest.mark.interop]

SECOND, SECOND6 = "198.51.100.11", "2001:db8:3::11"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_keys(tmp_path_factory.mktemp("pki") / "keys")


@pairs
def test_a_client_comes_back_after_its_server_was_killed(
    server_program: str, client_program: str, keys: Path, tmp_path: Path
) -> None:
    setup = Setup(keys, PUSH_SPLIT, client_only=("connect-retry 1 1", "ping 1", "ping-restart 3", "hand-window 5"))
    # The server's own pushed keepalive would win.
    server_config = setup.server().replace("keepalive 10 60\n", "ping 1\n")

    def body(lab: TunnelLab) -> None:
        server, client = lab.connect(server_program, server_config, client_program, setup.client())
        server.process.kill()
        server.wait()
        client.wait_for("Inactivity timeout (--ping-restart), restarting")
        again = lab.tunnel(server_program, "vpn", server_config)
        again.wait_for(READY)
        client.wait_for(READY, count=2)
        ping(lab, INNER_SERVER)

    in_lab(body, tmp_path)


def test_with_persist_tun_nothing_goes_around_the_tunnel_while_it_is_down(keys: Path, tmp_path: Path) -> None:
    """Echo requests run all the time; what leaves towards the site on the physical link is counted by tcpdump."""
    timers = ("connect-retry 1 1", "ping 1", "ping-restart 3", "hand-window 5")
    setup = Setup(keys, PUSH_ALL, client_only=(*timers, "persist-tun"))
    server_config = setup.server().replace("keepalive 10 60\n", "ping 1\n")

    def body(lab: TunnelLab) -> None:
        link, capture = str(lab.egress(WEB)), lab.folder / "outside.pcap"
        server, client = lab.connect(OPENVPN, server_config, OURS, setup.client())
        routes, resolver = lab.routes(), lab.resolv_conf()
        watcher = lab.start(
            "client", ["tcpdump", "--immediate-mode", "-i", link, "-U", "-w", str(capture), "icmp", "and", "host", WEB]
        )
        watcher.wait_for("listening on")
        pinger = lab.start("client", ["ping", "-n", "-i", "0.05", WEB])
        server.process.kill()
        client.wait_for("process restarting")
        client.wait_for("link remote", count=2)
        assert (lab.routes(), lab.resolv_conf()) == (routes, resolver)
        again = lab.tunnel(OPENVPN, "vpn", server_config)
        client.wait_for(READY, count=2)
        ping(lab, INNER_SERVER)
        assert (lab.routes(), lab.resolv_conf()) == (routes, resolver)
        pinger.stop(signal.SIGINT)
        again.stop()
        watcher.stop(signal.SIGINT)
        assert "Preserving previous TUN/TAP instance" in client.text()
        assert lab.output("client", "tcpdump", "-n", "-r", str(capture)) == ""

    in_lab(body, tmp_path)


@pairs
@pytest.mark.parametrize("initiator", ["client", "server"])
def test_no_packet_is_lost_while_either_side_renegotiates(
    initiator: str, server_program: str, client_program: str, keys: Path, tmp_path: Path
) -> None:
    often = ("reneg-sec 2",)
    setup = Setup(
        keys,
        PUSH_SPLIT,
        client_only=often if initiator == "client" else (),
        server_only=often if initiator == "server" else (),
    )

    def body(lab: TunnelLab) -> None:
        server, client = lab.connect(server_program, setup.server(), client_program, setup.client())
        for number in (1, 2):
            while not has_new_key(client, client_program, number):
                ping(lab, INNER_SERVER, count=20, under_way=2, pause=0.02)
            wait_for_new_key(server, server_program, number)
        assert client.text().count(READY) == 1

    in_lab(body, tmp_path)


@pairs
def test_a_client_restarts_when_nothing_comes_and_goes_on_once_something_does(
    server_program: str, client_program: str, keys: Path, tmp_path: Path
) -> None:
    timers = ("connect-retry 1 1", "ping 1", "ping-restart 2", "hand-window 4")
    setup = Setup(keys, PUSH_SPLIT, client_only=timers)
    server_config = setup.server().replace("keepalive 10 60\n", "ping 1\n")

    def body(lab: TunnelLab) -> None:
        server, client = lab.connect(server_program, server_config, client_program, setup.client())
        server.process.send_signal(signal.SIGSTOP)
        client.wait_for("SIGUSR1[soft,ping-restart] received, process restarting")
        server.process.send_signal(signal.SIGCONT)
        client.wait_for(READY, count=2)
        ping(lab, INNER_SERVER)

    in_lab(body, tmp_path)


@pytest.mark.parametrize(("first", "second"), [(SERVER, SECOND), (SERVER6, SECOND6)])
@pytest.mark.parametrize(("server_program", "client_program"), [(OURS, OPENVPN), (OURS, OURS), (OPENVPN, OURS)])
def test_a_server_with_two_addresses_answers_from_the_one_that_was_asked(
    server_program: str, client_program: str, first: str, second: str, keys: Path, tmp_path: Path
) -> None:
    """Without multihome the kernel would answer from its first address, and the client would take it for a stranger."""
    proto = "udp6" if ":" in first else "udp"
    setup = Setup(keys, PUSH_SPLIT, second, proto, server_only=("multihome",))
    server_config = "".join(line + "\n" for line in setup.server().splitlines() if not line.startswith("local "))

    def body(lab: TunnelLab) -> None:
        words = lab.output("vpn", "ip", "-o", "addr", "show", "to", first).split()
        device, length = words[1], words[3].partition("/")[2]
        lab.output("vpn", "ip", "addr", "add", f"{second}/{length}", "dev", device, *(["nodad"] * (":" in first)))
        _, client = lab.connect(server_program, server_config, client_program, setup.client())
        assert f"{second}:1194" in client.text() or f"[{second}]:1194" in client.text()
        ping(lab, INNER_SERVER)

    in_lab(body, tmp_path)


@pytest.mark.parametrize("program", [OPENVPN, OURS])
def test_the_ports_and_the_address_of_the_file_are_those_of_the_sockets(
    program: str, keys: Path, tmp_path: Path
) -> None:
    """The sockets as `ss` shows them: ours and openvpn's from the same texts."""
    setup = Setup(keys, PUSH_SPLIT)
    server_config = setup.server().replace("port 1194\n", "port 4711\n")
    texts = {
        "bound": setup.client().replace("nobind\n", "lport 5001\nlocal 192.168.0.13\n").replace(" 1194", " 4711"),
        "rport": setup.client().replace("nobind\n", "lport 5002\nrport 4711\n").replace(f"{SERVER} 1194", SERVER),
        "port": setup.client().replace("nobind\n", "port 4711\n").replace(f"{SERVER} 1194", SERVER),
        "nobind": setup.client().replace(" 1194", " 4711"),
    }

    def body(lab: TunnelLab) -> None:
        other = OURS if program == OPENVPN else OPENVPN
        lab.tunnel(other, "vpn", server_config).wait_for(READY)
        assert f"{SERVER}:4711" in lab.output("vpn", "ss", "-Huan")
        for name, expected in (
            ("bound", r"192\.168\.0\.13:5001$"),
            ("rport", r"(0\.0\.0\.0|\*):5002$"),
            ("port", r"(0\.0\.0\.0|\*):(?!4711|500)\d+$"),  # of a client's `port` only the remote half counts
            ("nobind", r"(0\.0\.0\.0|\*):(?!4711|500)\d+$"),
        ):
            client = lab.tunnel(program, "client", texts[name])
            client.wait_for(READY)
            sockets = [line.split()[3] for line in lab.output("client", "ss", "-Huan").splitlines()]
            assert any(re.search(expected, own) for own in sockets), (name, sockets)
            client.stop()

    in_lab(body, tmp_path)

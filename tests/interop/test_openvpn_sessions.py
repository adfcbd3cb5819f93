"""What happens to sessions once they stand, against openvpn in both roles: moving, tokens, limits, being sent away.

Protection, ciphers and transports are the matrix's (test_openvpn_matrix.py), passwords and certificates those of
test_openvpn_identity.py. A second client runs in the node `web`.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.interop.role_pairs import is_answered, pairs, ping
from tests.interop.tunnel_configs import PUSH_SPLIT, Setup, make_keys
from tests.interop.tunnel_lab import (
    INNER_SERVER,
    INNER_SERVER6,
    OPENVPN,
    READY,
    SERVER,
    Program,
    TunnelLab,
    in_lab,
)
from tests.sim.network import datagrams
from vpn.config.load import load_configuration
from vpn.events import ClientConnected, ClientGone, CloseReason, Event
from vpn.server import ServerCore
from vpn.settings import ServerSettings

pytestmark = [pytest.mark.root, pytest.mark.interop]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_keys(tmp_path_factory.mktemp("pki") / "keys")


def join(lab: TunnelLab, program: str, node: str, config: str, *extra: str) -> Program:
    client = lab.tunnel(program, node, config, *extra)
    client.wait_for(READY)
    return client


def without_duplicates(config: str) -> str:
    return config.replace("duplicate-cn\n", "")


@pairs
def test_a_client_that_moves_is_followed_and_renegotiates_from_its_new_address(
    server_program: str, client_program: str, keys: Path, tmp_path: Path
) -> None:
    setup = Setup(keys, PUSH_SPLIT, client_only=("reneg-sec 2",))

    def body(lab: TunnelLab) -> None:
        server, client = lab.connect(server_program, setup.server(), client_program, setup.client())
        ping(lab, INNER_SERVER)
        device = lab.egress("192.168.0.1")
        lab.output("client", "ip", "addr", "add", "192.168.0.77/24", "dev", str(device))
        lab.output("client", "ip", "route", "change", "default", "via", "192.168.0.1", "src", "192.168.0.77")
        ping(lab, INNER_SERVER)
        seen = client.text().count("Control Channel: TLSv1.3")
        server.wait_for("192.168.0.77:")
        client.wait_for("Control Channel: TLSv1.3", count=seen + 1)
        ping(lab, INNER_SERVER6)
        assert client.text().count(READY) == 1

    in_lab(body, tmp_path)


CHECK_ONCE = """#!/bin/sh
echo asked >> "$0.log"
[ "$(tail -n 1 "$1")" = "open sesame" ]
"""


@pairs
def test_a_token_takes_the_passwords_place_at_renegotiations_and_the_password_its_place_when_it_expires(
    server_program: str, client_program: str, keys: Path, tmp_path: Path
) -> None:
    check, login = tmp_path / "check", tmp_path / "login"
    check.write_text(CHECK_ONCE)
    check.chmod(0o755)
    login.touch(0o600)
    login.write_text("alice\nopen sesame\n")
    asked = Path(f"{check}.log")
    rules = (f"auth-user-pass-verify {check} via-file", "script-security 2", "auth-gen-token 3 4", "hand-window 2")
    setup = Setup(
        keys,
        PUSH_SPLIT,
        server_only=rules,
        client_only=(f"auth-user-pass {login}", "auth-retry nointeract", "reneg-sec 1"),
    )

    def body(lab: TunnelLab) -> None:
        _, client = lab.connect(server_program, setup.server(), client_program, setup.client())
        client.wait_for("Control Channel: TLSv1.3", count=3)
        ping(lab, INNER_SERVER)
        assert asked.read_text().count("asked") == 1
        client.wait_for("AUTH_FAILED")
        client.wait_for("process restarting")
        if client_program == OPENVPN:
            return  # it does come again with the password, but only after a pause of ten seconds
        client.wait_for(READY, count=2)
        ping(lab, INNER_SERVER)
        assert asked.read_text().count("asked") == 2

    in_lab(body, tmp_path)


@pairs
def test_seventy_pushed_routes_arrive_though_they_take_several_messages(
    server_program: str, client_program: str, keys: Path, tmp_path: Path
) -> None:
    wanted = [f"10.{100 + number}.0.0" for number in range(70)]
    setup = Setup(keys, tuple(f"route {network} 255.255.0.0" for network in wanted))

    def body(lab: TunnelLab) -> None:
        lab.connect(server_program, setup.server(), client_program, setup.client())
        found = {line.split("/")[0] for line in lab.routes() if "dev tun0" in line}
        assert set(wanted) <= found

    in_lab(body, tmp_path)


@pairs
def test_a_client_comes_again_when_its_server_restarts(
    server_program: str, client_program: str, keys: Path, tmp_path: Path
) -> None:
    setup = Setup(keys, PUSH_SPLIT)

    def body(lab: TunnelLab) -> None:
        server, client = lab.connect(server_program, setup.server(), client_program, setup.client())
        assert server.stop(signal.SIGTERM) == 0
        client.wait_for("Connection reset command was pushed by server")
        again = lab.tunnel(server_program, "vpn", setup.server())
        again.wait_for(READY)
        client.wait_for(READY, count=2)
        ping(lab, INNER_SERVER)

    in_lab(body, tmp_path)


@pairs
def test_net30_gives_the_client_its_own_four_addresses(
    server_program: str, client_program: str, keys: Path, tmp_path: Path
) -> None:
    setup = Setup(keys, PUSH_SPLIT)

    def body(lab: TunnelLab) -> None:
        server = setup.server().replace("topology subnet", "topology net30")
        lab.connect(server_program, server, client_program, setup.client())
        assert "inet 10.8.0.6 peer 10.8.0.5/32" in lab.output("client", "ip", "address", "show", "tun0")
        ping(lab, INNER_SERVER)
        ping(lab, "10.8.0.6", node="vpn")

    in_lab(body, tmp_path)


@pairs
def test_a_network_behind_a_client_is_reached_and_no_other_source_passes(
    server_program: str, client_program: str, keys: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "ccd"
    folder.mkdir()
    (folder / "alice").write_text("iroute 10.55.0.0 255.255.255.0\niroute-ipv6 2001:db8:55::/64\n")
    own = (f"client-config-dir {folder}", "route 10.55.0.0 255.255.0.0", "route-ipv6 2001:db8:55::/64")
    setup = Setup(keys, PUSH_SPLIT, server_only=own)

    def body(lab: TunnelLab) -> None:
        lab.connect(server_program, setup.server(), client_program, setup.client())
        for address in ("10.55.0.1/24", "10.55.9.1/24", "2001:db8:55::1/64"):
            lab.output("client", "ip", "address", "add", address, "dev", "lo", "nodad")
        ping(lab, "10.55.0.1", node="vpn")
        ping(lab, "2001:db8:55::1", node="vpn")
        ping(lab, INNER_SERVER, source="10.55.0.1")
        assert not is_answered(lab, INNER_SERVER, source="10.55.9.1")

    in_lab(body, tmp_path)


@pairs
def test_clients_reach_each_other_without_the_servers_kernel(
    server_program: str, client_program: str, keys: Path, tmp_path: Path
) -> None:
    alice = Setup(keys, PUSH_SPLIT, server_only=("client-to-client",))
    bob = Setup(keys, PUSH_SPLIT, client_name="bob")

    def body(lab: TunnelLab) -> None:
        lab.connect(server_program, alice.server(), client_program, alice.client())
        join(lab, client_program, "web", bob.client())
        for name in ("net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0"):
            lab.output("vpn", "sysctl", "-w", name)
        ping(lab, "10.8.0.3")
        ping(lab, "2001:db8:8::1001")
        ping(lab, "10.8.0.2", node="web")

    in_lab(body, tmp_path)


@pairs
@pytest.mark.parametrize("cipher", ["AES-128-CBC", "AES-192-CBC"])
def test_packets_pass_with_the_smaller_cbc_ciphers(
    server_program: str, client_program: str, cipher: str, keys: Path, tmp_path: Path
) -> None:
    setup = Setup(keys, PUSH_SPLIT, cipher=cipher, both=("auth SHA256",))

    def body(lab: TunnelLab) -> None:
        lab.connect(server_program, setup.server(), client_program, setup.client())
        ping(lab, INNER_SERVER, octets=1300)
        ping(lab, INNER_SERVER6)

    in_lab(body, tmp_path)


@pairs
def test_a_full_server_lets_the_next_client_in_once_another_leaves(
    server_program: str, client_program: str, keys: Path, tmp_path: Path
) -> None:
    alice = Setup(keys, PUSH_SPLIT, server_only=("max-clients 1",), client_only=("explicit-exit-notify 1",))
    bob = Setup(keys, PUSH_SPLIT, client_name="bob", client_only=("hand-window 20",))

    def body(lab: TunnelLab) -> None:
        server, first = lab.connect(server_program, alice.server(), client_program, alice.client())
        second = lab.tunnel(client_program, "web", bob.client())
        # openvpn says nothing to the client that is too many; ours asks it to come again
        server.wait_for("maximum number of clients" if server_program == OPENVPN else "max-clients")
        ping(lab, INNER_SERVER)
        assert READY not in second.text()
        first.stop()
        second.wait_for(READY)
        ping(lab, INNER_SERVER, node="web")

    in_lab(body, tmp_path)


@pairs
@pytest.mark.parametrize("duplicates", [False, True])
def test_a_second_client_with_the_same_certificate(
    server_program: str, client_program: str, duplicates: bool, keys: Path, tmp_path: Path
) -> None:
    setup = Setup(keys, PUSH_SPLIT)
    server = setup.server() if duplicates else without_duplicates(setup.server())

    def body(lab: TunnelLab) -> None:
        lab.connect(server_program, server, client_program, setup.client())
        ping(lab, INNER_SERVER)
        join(lab, client_program, "web", setup.client())
        ping(lab, INNER_SERVER, node="web")
        if duplicates:
            ping(lab, INNER_SERVER)
            return
        assert not is_answered(lab, INNER_SERVER)

    in_lab(body, tmp_path)


LIMITS = {
    "inactive 1": "Inactivity timeout (--inactive), exiting",
    "session-timeout 2": "Session timeout, exiting",
}


@pairs
@pytest.mark.parametrize("limit", LIMITS)
def test_a_server_ends_sessions_that_are_idle_or_too_long(
    server_program: str, client_program: str, limit: str, keys: Path, tmp_path: Path
) -> None:
    setup = Setup(keys, PUSH_SPLIT, server_only=(limit,))

    def body(lab: TunnelLab) -> None:
        server, _ = lab.connect(server_program, setup.server(), client_program, setup.client())
        ping(lab, INNER_SERVER)
        server.wait_for(LIMITS[limit])
        assert not is_answered(lab, INNER_SERVER)
        assert server.process.poll() is None

    in_lab(body, tmp_path)


@pairs
@pytest.mark.parametrize("limit", LIMITS)
def test_a_client_leaves_when_a_pushed_limit_is_reached(
    server_program: str, client_program: str, limit: str, keys: Path, tmp_path: Path
) -> None:
    setup = Setup(keys, (*PUSH_SPLIT, limit))

    def body(lab: TunnelLab) -> None:
        _, client = lab.connect(server_program, setup.server(), client_program, setup.client())
        client.wait_for(LIMITS[limit])
        assert client.wait() == 0

    in_lab(body, tmp_path)


def serve(core: ServerCore, lab: TunnelLab, react: Callable[[Event], bool], seconds: float = 15.0) -> None:
    """Carries datagrams for `core` at the server's address until `react` has seen what it waits for."""
    deadline = time.monotonic() + seconds
    with lab.lab.node("vpn").socket(socket.AF_INET, socket.SOCK_DGRAM, 0) as transport:
        transport.bind((SERVER, 1194))
        core.start(time.monotonic(), int(time.time()))
        while (now := time.monotonic()) < deadline:
            due = core.next_timeout()
            wait = deadline - now if due is None else min(due, deadline) - now
            if select.select([transport], [], [], max(0.0, wait))[0]:
                datagram, address = transport.recvfrom(4096)
                core.receive_datagram(datagram, address, time.monotonic(), int(time.time()))
            else:
                core.advance(time.monotonic(), int(time.time()))
            done = False
            while (event := core.next_event()) is not None:
                done = react(event) or done
            for datagram, address in datagrams(core):
                transport.sendto(datagram, address)
            if done:
                return
    raise AssertionError("the core did not say what was waited for")


@pytest.mark.parametrize(
    ("restart", "line"),
    [
        (False, "Halt command was pushed by server"),
        (True, "Connection reset command was pushed by server"),
    ],
)
def test_openvpn_obeys_when_our_server_sends_one_client_away(
    restart: bool, line: str, keys: Path, tmp_path: Path
) -> None:
    setup = Setup(keys, PUSH_SPLIT)
    config = tmp_path / "server.conf"
    config.write_text(setup.server())
    settings = load_configuration(config, []).core
    assert isinstance(settings, ServerSettings)

    def body(lab: TunnelLab) -> None:
        core = ServerCore(settings, random_bytes=os.urandom)

        def react(event: Event) -> bool:
            if isinstance(event, ClientConnected):
                core.disconnect(event.peer, time.monotonic(), restart=restart)
            return isinstance(event, ClientGone) and event.reason is CloseReason.LOCAL

        client = lab.tunnel(OPENVPN, "client", setup.client())
        serve(core, lab, react)
        client.wait_for(line)
        if not restart:
            assert client.wait() == 0

    in_lab(body, tmp_path)

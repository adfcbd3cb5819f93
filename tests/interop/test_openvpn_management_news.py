"""What the management interface tells unasked, ours beside openvpn's, at a server and at a client.

The other end is a real openvpn each time. What differs on purpose is in DEVIATIONS.md.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.interop.role_pairs import ping
from tests.interop.tunnel_configs import PUSH_SPLIT, Setup, make_keys
from tests.interop.tunnel_lab import INNER_SERVER, OPENVPN, OURS, READY, TunnelLab, in_lab

pytestmark = [pytest.mark.root, pytest.mark.interop]

ADDRESS, PORT = "127.0.0.1", 7505
PATIENCE_SECONDS = 30
UNTOLD = ("RESOLVE", "AUTH")  # of openvpn's states
programs = pytest.mark.parametrize("program", [OPENVPN, OURS])


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_keys(tmp_path_factory.mktemp("pki") / "keys")


class Listener:
    """A caller that keeps what it is told apart from what it is answered."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._file = connected.makefile("rb")
        self.news: list[str] = []

    def _line(self) -> str:
        line = self._file.readline().decode()
        assert line.endswith("\r\n"), "hung up on"
        return line.rstrip("\r\n")

    def ask(self, command: str, *, until: str = "") -> list[str]:
        """The answer's lines; `until` END for those of many."""
        self._socket.sendall(f"{command}\n".encode())
        answer: list[str] = []
        while not answer or (until and answer[-1] != until):
            line = self._line()
            (self.news if line.startswith(">") else answer).append(line)
        return answer

    def wait_for(self, pattern: str) -> str:
        """The first piece of news that has been or will be told and matches."""
        until = time.monotonic() + PATIENCE_SECONDS
        while not (found := [line for line in self.news if re.match(pattern, line)]):
            assert time.monotonic() < until, f"not told {pattern!r}, but {self.news[-20:]}"
            self.news.append(self._line())
        return found[0]

    def octets(self) -> list[int]:
        """The next count of a client's octets: received and sent."""
        self.news.clear()
        return [int(count) for count in self.wait_for(">BYTECOUNT:").partition(":")[2].split(",")]


@contextmanager
def listener(lab: TunnelLab, node: str) -> Iterator[Listener]:
    with lab.lab.node(node).socket(socket.AF_INET, socket.SOCK_STREAM, 0) as connected:
        connected.settimeout(PATIENCE_SECONDS)
        connected.connect((ADDRESS, PORT))
        yield Listener(connected)


def shape(line: str) -> str:
    """A line without its moment, and without which address of the pool it was."""
    line = re.sub(r"\b\d{9,}\b", "T", line)
    return re.sub(r"\b10\.8\.0\.\d+\b", "INNER", re.sub(r"\b2001:db8:8::\w+\b", "INNER6", line))


def states(lines: list[str]) -> list[str]:
    shaped = [shape(line) for line in lines if line != "END"]
    return [line for line in shaped if line.split(",")[1] not in UNTOLD]


def test_a_client_goes_through_the_states_of_openvpns(keys: Path, tmp_path: Path) -> None:
    setup = Setup(keys, PUSH_SPLIT, client_only=(f"management {ADDRESS} {PORT}",))

    def story(program: str) -> dict[str, list[str]]:
        def body(lab: TunnelLab) -> dict[str, list[str]]:
            _, client = lab.connect(OPENVPN, setup.server(), program, setup.client())
            with listener(lab, "client") as caller:
                found = {"so far": states(caller.ask("state all", until="END"))}
                assert caller.ask("state on") == ["SUCCESS: real-time state notification set to ON"]
                assert caller.ask("signal SIGUSR1") == ["SUCCESS: signal SIGUSR1 thrown"]
                client.wait_for(READY, count=2)
                caller.wait_for(">STATE:[0-9]+,CONNECTED")
                found["again"] = states([line.removeprefix(">STATE:") for line in caller.news if "STATE" in line])
                found["not a server"] = [*caller.ask("kill alice"), *caller.ask("client-kill 0")]
                caller.ask("signal SIGTERM")
                found["end"] = [shape(caller.wait_for(">STATE:[0-9]+,EXITING"))]
            return found

        (tmp_path / program).mkdir()
        result = in_lab(body, tmp_path / program)
        assert isinstance(result, dict)
        return result

    ours, theirs = story(OURS), story(OPENVPN)
    # openvpn asks for its configuration together with the key exchange; ours says when it does
    ours["so far"] = [line for line in ours["so far"] if ",GET_CONFIG," not in line]
    ours["again"] = [line for line in ours["again"] if ",GET_CONFIG," not in line]
    assert ours == theirs


@programs
def test_a_client_tells_its_octets(program: str, keys: Path, tmp_path: Path) -> None:
    setup = Setup(keys, PUSH_SPLIT, client_only=(f"management {ADDRESS} {PORT}",))

    def body(lab: TunnelLab) -> None:
        lab.connect(OPENVPN, setup.server(), program, setup.client())
        with listener(lab, "client") as caller:
            assert caller.ask("bytecount 1") == ["SUCCESS: bytecount interval changed"]
            handshake = caller.octets()
            assert all(octets > 1000 for octets in handshake)
            ping(lab, INNER_SERVER)
            until = time.monotonic() + PATIENCE_SECONDS
            while not all(now > then for now, then in zip(caller.octets(), handshake, strict=True)):
                assert time.monotonic() < until

    in_lab(body, tmp_path)


@programs
def test_a_server_tells_who_comes_and_how_much_each_moves(program: str, keys: Path, tmp_path: Path) -> None:
    setup = Setup(keys, PUSH_SPLIT, server_only=(f"management {ADDRESS} {PORT}",))

    def body(lab: TunnelLab) -> None:
        lab.tunnel(program, "vpn", setup.server()).wait_for(READY)
        with listener(lab, "vpn") as caller:
            assert caller.ask("log on") == ["SUCCESS: real-time log notification set to ON"]
            assert caller.ask("bytecount 1") == ["SUCCESS: bytecount interval changed"]
            lab.tunnel(OPENVPN, "client", setup.client()).wait_for(READY)
            assert caller.wait_for(">CLIENT:ESTABLISHED") == ">CLIENT:ESTABLISHED,0"
            for name, value in (("common_name", "alice"), ("trusted_ip", r"192\.168\.0\.13"), ("IV_VER", r"2\.\d")):
                caller.wait_for(f">CLIENT:ENV,{name}={value}")
            caller.wait_for(r">LOG:\d+,I,(alice/)?192\.168\.0\.13:\d+ \[alice\] Peer Connection Initiated with")
            assert re.fullmatch(r">BYTECOUNT_CLI:0,\d+,\d+", caller.wait_for(">BYTECOUNT_CLI"))
            (load,) = caller.ask("load-stats")
            assert re.fullmatch(r"SUCCESS: nclients=1,bytesin=\d{3,},bytesout=\d{3,}", load)
            (state, end) = caller.ask("state", until="END")
            assert (shape(state), end) == ("T,CONNECTED,SUCCESS,INNER,,,198.51.100.10,1194,INNER6", "END")

    in_lab(body, tmp_path)

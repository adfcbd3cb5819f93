"""The management interface of a server, ours beside openvpn's: the same questions, the same form of answers.

The client is a real openvpn each time. What differs on purpose is in DEVIATIONS.md.
"""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.interop.role_pairs import ping
from tests.interop.tunnel_configs import PUSH_SPLIT, Setup, make_keys
from tests.interop.tunnel_lab import INNER_SERVER, OPENVPN, OURS, READY, WEB, TunnelLab, in_lab

pytestmark = [pytest.mark.root, pytest.mark.interop]

ADDRESS, PORT = "127.0.0.1", 7505
RESET = "Connection reset command was pushed by server"
HALT = "Halt command was pushed by server"
servers = pytest.mark.parametrize("server_program", [OPENVPN, OURS])
transports = pytest.mark.parametrize("proto", ["udp", "tcp"])


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_keys(tmp_path_factory.mktemp("pki") / "keys")


class Console:
    """A caller of the management interface."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._file = connected.makefile("rb")

    def line(self) -> str:
        """The next line that is no news of what goes on; "" once the other side has hung up."""
        while (line := self._file.readline().decode()).startswith((">LOG", ">CLIENT")):
            pass
        assert not line or line.endswith("\r\n")
        return line.rstrip("\r\n")

    def say(self, command: str) -> None:
        self._socket.sendall(f"{command}\n".encode())

    def ask(self, command: str) -> str:
        self.say(command)
        return self.line()

    def ask_text(self, command: str) -> list[str]:
        """An answer of many lines, END at its end."""
        lines = [self.ask(command)]
        while lines[-1] != "END":
            lines.append(self.line())
        return lines


@contextmanager
def console(lab: TunnelLab, path: Path | None = None) -> Iterator[Console]:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if path
        else lab.lab.node("vpn").socket(socket.AF_INET, socket.SOCK_STREAM, 0)
    ) as connected:
        connected.settimeout(15)
        connected.connect(str(path) if path else (ADDRESS, PORT))
        caller = Console(connected)
        assert caller.line() == ">INFO:OpenVPN Management Interface Version 5 -- type 'help' for more info"
        yield caller


def managed(keys: Path, proto: str = "udp", where: str = f"{ADDRESS} {PORT}") -> Setup:
    return Setup(keys, PUSH_SPLIT, proto=proto, server_only=(f"management {where}",))


def shape(line: str) -> str:
    """A line without what differs from run to run."""
    line = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "DATE", line)
    return re.sub(r"\d+", "N", line)


QUESTIONS = (
    "nonsense",
    "pid",
    "kill",
    "client-kill",
    "kill nobody",
    "kill 192.0.2.1:1",
    "kill 192.0.2.1:0",
    "kill 192.0.2.1:99999",
    "kill name:5",
    "client-kill 99",
    "client-kill x",
    "signal SIGNONE",
    "status 9",
    "log",
    "log x",
    "log 0",
    "log off",
    "state x",
    "state off",
    "bytecount",
    "bytecount 0",
    "verb 99",
)


def test_our_answers_have_the_form_of_openvpns(keys: Path, tmp_path: Path) -> None:
    def answers(program: str) -> dict[str, list[str]]:
        def body(lab: TunnelLab) -> dict[str, list[str]]:
            setup = managed(keys)
            lab.connect(program, setup.server(), OPENVPN, setup.client())
            with console(lab) as caller:
                found = {question: [shape(caller.ask(question))] for question in QUESTIONS}
                for question in ("status", "status 1", "status 2", "status 3"):
                    lines = [shape(line) for line in caller.ask_text(question)]
                    found[question] = sorted(line for line in lines if not line.startswith("TITLE"))
                found["version"] = [line.split(" Version:")[0] for line in caller.ask_text("version")]
                assert "kill cn                : Kill the client instance(s) having common name cn." in caller.ask_text(
                    "help"
                )
                caller.say("quit")
                assert caller.line() == ""
            return found

        (tmp_path / program).mkdir()
        result = in_lab(body, tmp_path / program)
        assert isinstance(result, dict)
        return result

    assert answers(OURS) == answers(OPENVPN)


@servers
@transports
def test_a_client_that_is_killed_by_its_number_is_told_and_comes_again(
    server_program: str, proto: str, keys: Path, tmp_path: Path
) -> None:
    setup = managed(keys, proto)

    def body(lab: TunnelLab) -> None:
        _, client = lab.connect(server_program, setup.server(), OPENVPN, setup.client())
        with console(lab) as caller:
            row = next(line for line in caller.ask_text("status 2") if line.startswith("CLIENT_LIST"))
            assert row.split(",")[1] == "alice"
            assert caller.ask(f"client-kill {row.split(',')[10]}") == "SUCCESS: client-kill command succeeded"
            client.wait_for(RESET)
            client.wait_for(READY, count=2)
        ping(lab, INNER_SERVER)

    in_lab(body, tmp_path)


@servers
def test_a_client_that_is_halted_ends(server_program: str, keys: Path, tmp_path: Path) -> None:
    setup = managed(keys)

    def body(lab: TunnelLab) -> None:
        _, client = lab.connect(server_program, setup.server(), OPENVPN, setup.client())
        with console(lab) as caller:
            row = next(line for line in caller.ask_text("status 2") if line.startswith("CLIENT_LIST"))
            assert caller.ask(f"client-kill {row.split(',')[10]} HALT") == "SUCCESS: client-kill command succeeded"
            client.wait_for(HALT)
            assert client.wait() == 0

    in_lab(body, tmp_path)


@servers
@pytest.mark.parametrize("by", ["name", "address"])
def test_kill_ends_a_client_by_its_name_or_its_address(
    server_program: str, by: str, keys: Path, tmp_path: Path
) -> None:
    setup = replace(managed(keys), server_only=(f"management {ADDRESS} {PORT}", "keepalive 1 3"))

    def body(lab: TunnelLab) -> None:
        _, client = lab.connect(server_program, setup.server(), OPENVPN, setup.client())
        with console(lab) as caller:
            row = next(line for line in caller.ask_text("status 2") if line.startswith("CLIENT_LIST")).split(",")
            wanted = row[1] if by == "name" else row[2]
            expected = "common name 'alice' found, 1 client(s) killed"
            if by == "address":
                expected = f"1 client(s) at address {wanted} killed"
            assert caller.ask(f"kill {wanted}") == f"SUCCESS: {expected}"
            assert not any(line.startswith("CLIENT_LIST") for line in caller.ask_text("status 2"))
        client.wait_for(READY, count=2)
        # openvpn's server says nothing: its client finds out by ping-restart
        assert (RESET in client.text()) == (server_program == OURS)
        assert ("Inactivity timeout (--ping-restart)" in client.text()) == (server_program == OPENVPN)

    in_lab(body, tmp_path)


def test_the_socket_file_is_its_owners_and_goes_with_the_server(keys: Path, tmp_path: Path) -> None:
    path = tmp_path / "m"
    setup = managed(keys, where=f"{path} unix")

    def body(lab: TunnelLab) -> None:
        server, client = lab.connect(OURS, setup.server(), OPENVPN, setup.client())
        assert path.stat().st_mode & 0o777 == 0o600
        with console(lab, path) as caller:
            assert caller.ask("pid") == f"SUCCESS: pid={server.process.pid}"
            assert caller.ask("signal SIGTERM") == "SUCCESS: signal SIGTERM thrown"
            assert caller.line() == ""
        assert server.wait() == 0
        assert not path.exists()
        client.wait_for(RESET)
        again = lab.tunnel(OURS, "vpn", setup.server())
        again.wait_for(READY)
        second = lab.tunnel(OURS, "web", replace(setup, address=WEB).server())  # the same name while somebody listens
        second.wait_for("another program uses this address and port")
        assert second.wait() == 1
        again.stop(signal.SIGKILL)
        assert path.is_socket()
        third = lab.tunnel(OURS, "vpn", setup.server())
        third.wait_for(READY)
        with console(lab, path) as caller:
            assert caller.ask("status") == "OpenVPN CLIENT LIST"

    in_lab(body, tmp_path)


def test_a_caller_stays_when_the_server_restarts_inside_and_commands_reach_the_new_clients(
    keys: Path, tmp_path: Path
) -> None:
    setup = managed(keys)

    def body(lab: TunnelLab) -> None:
        _, client = lab.connect(OURS, setup.server(), OPENVPN, setup.client())
        with console(lab) as caller:
            assert caller.ask("signal SIGUSR1") == "SUCCESS: signal SIGUSR1 thrown"
            client.wait_for(READY, count=2)
            assert caller.ask("kill alice") == "SUCCESS: common name 'alice' found, 1 client(s) killed"
            client.wait_for(READY, count=3)

    in_lab(body, tmp_path)

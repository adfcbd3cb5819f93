"""What a caller of the management interface is told without having asked each time."""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from tests.unit.managed import Recorder, call, readable, serve_until
from vpn.config.model import ManagementSettings, OutputSettings
from vpn.driver.log import DETAIL, NORMAL, Log
from vpn.driver.management import WAITING_MAXIMUM_OCTETS, Management
from vpn.driver.management_commands import GREETING
from vpn.driver.management_news import LOG_LINES, State, StateName, Wishes, established
from vpn.events import ClientConnected
from vpn.settings import Cipher

CONNECTED = State(1000, StateName.CONNECTED, "SUCCESS", inner="10.8.0.2", remote="192.0.2.1", remote_port="1194")


class Teller(Recorder):
    """A server that says in its log whom it sends away, as the real one does."""

    def disconnect(self, number: int, *, restart: bool) -> None:
        super().disconnect(number, restart=restart)
        self._log.write(f"client {number} sent away")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    written = Log(OutputSettings(log_file=tmp_path / "log", verb=NORMAL))
    yield written
    written.close()


@pytest.fixture
def management(tmp_path: Path, log: Log) -> Iterator[Management]:
    opened = Management(ManagementSettings(path=tmp_path / "m"), log, Teller(log))
    yield opened
    opened.close()


@pytest.fixture
def caller(management: Management, tmp_path: Path) -> Iterator[socket.socket]:
    with call(tmp_path / "m") as connected:
        serve_until(management, lambda: readable(connected))
        assert connected.recv(4096).decode() == f"{GREETING}\r\n"
        yield connected


def ask(management: Management, caller: socket.socket, *commands: str) -> list[str]:
    """Everything said until the answer to `pid`, which follows the commands."""
    caller.sendall("".join(f"{command}\n" for command in (*commands, "pid")).encode())
    said = b""
    while not said.endswith(b"pid=4711\r\n"):
        serve_until(management, lambda: readable(caller))
        said += caller.recv(65536)
    return said.decode().split("\r\n")[:-2]


def told(caller: socket.socket) -> list[str]:
    """What has come meanwhile, without a turn of the loop."""
    return caller.recv(65536).decode().split("\r\n")[:-1] if readable(caller) else []


def test_lines_of_the_log_reach_who_wants_them_and_stay_for_who_asks_later(
    management: Management, caller: socket.socket, log: Log
) -> None:
    log.write("before")
    assert told(caller) == []
    assert ask(management, caller, "log on")[0] == "SUCCESS: real-time log notification set to ON"
    log.write("now", NORMAL)
    log.write("too fine", DETAIL)
    log.write("a\r\n>LOG:forged")
    moment = r">LOG:\d+"
    assert [re.sub(moment, ">LOG:T", line) for line in told(caller)] == [
        ">LOG:T,,now",
        r">LOG:T,I,a\r\n>LOG:forged",
    ]
    history = ask(management, caller, "log off", "log 3")
    assert [re.sub(r"\d{9,}", "T", line) for line in history[-4:]] == [
        r"T,I,a\r\n>LOG:forged",
        "T,,MANAGEMENT: CMD 'log off'",
        "T,,MANAGEMENT: CMD 'log 3'",
        "END",
    ]
    log.write("later")
    assert told(caller) == []


def test_the_log_that_is_kept_is_bounded(management: Management, caller: socket.socket, log: Log) -> None:
    for number in range(LOG_LINES + 50):
        log.write(f"line {number}")
    lines = ask(management, caller, "log all")
    assert len(lines) == LOG_LINES + 1
    assert lines[0].endswith("line 51")  # the question itself is in it, too


def test_states_are_told_and_kept(management: Management, caller: socket.socket) -> None:
    management.tell_state(State(999, StateName.WAIT))
    assert ask(management, caller, "state on")[0] == "SUCCESS: real-time state notification set to ON"
    management.tell_state(CONNECTED)
    line = "1000,CONNECTED,SUCCESS,10.8.0.2,192.0.2.1,1194,,"
    assert told(caller) == [f">STATE:{line}"]
    assert ask(management, caller, "state", "state all") == [line, "END", "999,WAIT,,,,,,", line, "END"]


def test_the_next_caller_begins_with_silence(
    management: Management, caller: socket.socket, log: Log, tmp_path: Path
) -> None:
    ask(management, caller, "state on", "log on", "bytecount 1")
    caller.sendall(b"quit\n")
    with call(tmp_path / "m") as next_one:
        serve_until(management, lambda: readable(next_one))
        assert next_one.recv(4096).decode() == f"{GREETING}\r\n"
        management.tell_state(CONNECTED)
        log.write("something")
        assert told(next_one) == []
        assert management.due_at is None


def test_octets_are_told_at_their_interval_until_they_are_not_wanted(
    management: Management, caller: socket.socket
) -> None:
    assert ask(management, caller, "bytecount 1")[0] == "SUCCESS: bytecount interval changed"
    management.serve()
    due_at = management.due_at
    assert due_at is not None
    while not readable(caller):
        select.select([management], [], [], max(0.0, due_at - time.monotonic()))
        management.serve()
    assert time.monotonic() >= due_at
    assert told(caller) == [">BYTECOUNT_CLI:0,10,20", ">BYTECOUNT_CLI:7,30,40"]
    assert management.due_at is not None
    ask(management, caller, "bytecount 0")
    management.serve()
    assert management.due_at is None


def test_an_interval_counts_from_when_it_was_asked_for() -> None:
    wishes = Wishes(octets_seconds=5)
    assert [wishes.take_due(now) for now in (100.0, 104.9, 105.0, 106.0, 120.0, 124.0, 125.0)] == [
        False, False, True, False, True, False, True,
    ]  # fmt: skip


def test_what_a_command_brings_about_is_told_before_its_answer(management: Management, caller: socket.socket) -> None:
    ask(management, caller, "log on")
    lines = [re.sub(r"\d{9,}", "T", line) for line in ask(management, caller, "client-kill 7")]
    assert lines == [
        ">LOG:T,,MANAGEMENT: CMD 'client-kill 7'",
        ">LOG:T,I,client 7 sent away",
        "SUCCESS: client-kill command succeeded",
    ]


def test_a_caller_that_takes_no_news_is_hung_up_on_and_the_tunnel_goes_on(
    management: Management, caller: socket.socket, log: Log, tmp_path: Path
) -> None:
    ask(management, caller, "log on")
    for _ in range(64):
        log.write("x" * (WAITING_MAXIMUM_OCTETS // 16))
    assert "it does not take its answers" in (tmp_path / "log").read_text()
    with call(tmp_path / "m") as next_one:
        serve_until(management, lambda: readable(next_one))


def test_a_caller_that_went_away_is_noticed_while_it_is_told(
    management: Management, caller: socket.socket, log: Log, tmp_path: Path
) -> None:
    ask(management, caller, "log on")
    caller.close()
    log.write("nobody hears this")
    assert "MANAGEMENT: Client disconnected" in (tmp_path / "log").read_text()


def test_a_client_that_has_come_is_told_with_names_that_forge_nothing() -> None:
    client = ClientConnected(
        3, 2, ("192.0.2.9", 40000), "alice\r\n>CLIENT:ENV,END", "", IPv4Address("10.8.0.2"), None, (),
        Cipher.AES_256_GCM, "TLSv1.3", "TLS_AES_256_GCM_SHA384", "2.6.14",
    )  # fmt: skip
    assert established(client, 1000) == [
        ">CLIENT:ESTABLISHED,2",
        ">CLIENT:ENV,time_unix=1000",
        ">CLIENT:ENV,common_name=alice__>CLIENT:ENV,END",
        ">CLIENT:ENV,trusted_ip=192.0.2.9",
        ">CLIENT:ENV,trusted_port=40000",
        ">CLIENT:ENV,ifconfig_pool_remote_ip=10.8.0.2",
        ">CLIENT:ENV,IV_VER=2.6.14",
        ">CLIENT:ENV,END",
    ]

"""The management interface without a tunnel: what its commands answer, and how its sockets treat a caller."""

from __future__ import annotations

import select
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.managed import Recorder, call, readable, serve_until
from vpn.config.errors import ConfigurationError
from vpn.config.load import load_configuration
from vpn.config.model import ManagementSettings, OutputSettings
from vpn.driver.errors import HostError
from vpn.driver.log import Log
from vpn.driver.management import WAITING_MAXIMUM_OCTETS, Management
from vpn.driver.management_commands import GREETING, LINE_MAXIMUM_OCTETS, Conversation
from vpn.pki.commands import run_pki

UNKNOWN = "ERROR: unknown command, enter 'help' for more options"
TOO_LONG = f"ERROR: a line has at most {LINE_MAXIMUM_OCTETS} octets"


@pytest.mark.parametrize(
    ("line", "answer", "told"),
    [
        ("kill alice", "SUCCESS: common name 'alice' found, 2 client(s) killed", [(0, True), (7, True)]),
        ('kill "bob smith"', "SUCCESS: common name 'bob smith' found, 1 client(s) killed", [(8, True)]),
        ("kill carol", "ERROR: common name 'carol' not found", []),
        ("kill 192.0.2.1:5001", "SUCCESS: 1 client(s) at address 192.0.2.1:5001 killed", [(8, True)]),
        ("kill [2001:db8::1]:5000", "SUCCESS: 1 client(s) at address [2001:db8::1]:5000 killed", [(7, True)]),
        ("kill 192.0.2.1:5002", "ERROR: client at address 192.0.2.1:5002 not found", []),
        ("kill 192.0.2.1:0", "ERROR: port number is out of range: 0", []),
        ("kill x:1", "ERROR: error parsing IP address: x", []),
        ("client-kill 7", "SUCCESS: client-kill command succeeded", [(7, True)]),
        ("client-kill 7 HALT", "SUCCESS: client-kill command succeeded", [(7, False)]),
        ("client-kill 0 RESTART", "SUCCESS: client-kill command succeeded", [(0, True)]),
        ("client-kill 0 AUTH_FAILED", "ERROR: the message of client-kill is HALT or RESTART", []),
        ("client-kill 1", "ERROR: client-kill command failed", []),
        ("client-kill ٧", "ERROR: cannot parse CID", []),
        ("signal SIGTERM", "SUCCESS: signal SIGTERM thrown", [signal.SIGTERM]),
        ("signal SIGKILL", "ERROR: signal 'SIGKILL' is not a known signal type", []),
        ("pid", "SUCCESS: pid=4711", []),
        ("status", "version 1\nEND", []),
        ("status 3", "version 3\nEND", []),
        ("status 4", "ERROR: bad status format version number", []),
        ("load-stats", "SUCCESS: nclients=3,bytesin=1000,bytesout=2000", []),
        ("verb", "SUCCESS: verb=0", []),
        ("verb 12", "ERROR: verb level is out of range", []),
        ("verb x", "ERROR: verb level is out of range", []),
        ("log", "ERROR: the 'log' command requires at least 1 parameter", []),
        ("log x", "ERROR: log parameter must be 'on' or 'off' or some number n or 'all'", []),
        ("log 0", "ERROR: log parameter must be 'on' or 'off' or some number n or 'all'", []),
        ("state x", "ERROR: state parameter must be 'on' or 'off' or some number n or 'all'", []),
        ("state all", "END", []),
        ("bytecount", "ERROR: the 'bytecount' command requires 1 parameter", []),
        ("bytecount x", "ERROR: the interval of bytecount is a number of seconds, 0 for none", []),
        ("hold release", UNKNOWN, []),
        ("kill 'alice", "ERROR: a quotation mark or a backslash has no counterpart", []),
    ],
)
def test_a_command_does_what_it_says_and_answers_as_openvpn(
    line: str, answer: str, told: list[tuple[int, bool] | signal.Signals]
) -> None:
    daemon = Recorder()
    assert Conversation().receive(f"{line}\n".encode(), daemon) == [answer]
    assert daemon.told == told


def test_a_line_may_come_in_pieces_and_several_at_once() -> None:
    conversation, daemon = Conversation(), Recorder()
    assert conversation.receive(b"pi", daemon) == []
    assert conversation.receive(b"d\r", daemon) + conversation.receive(b"\n\npid\nx\n", daemon) == [
        *["SUCCESS: pid=4711"] * 2,
        UNKNOWN,
    ]


@pytest.mark.parametrize("pieces", [1, 300])
def test_a_line_that_is_too_long_is_dropped_whole_and_the_next_one_counts(pieces: int) -> None:
    conversation, daemon = Conversation(), Recorder()
    line = b"kill alice " * 30 + b"\npid\n"
    size = len(line) // pieces
    parts = [line[start : start + size] for start in range(0, len(line), size)]
    assert [answer for part in parts for answer in conversation.receive(part, daemon)] == [
        TOO_LONG,
        "SUCCESS: pid=4711",
    ]
    assert conversation.receive(b"x" * LINE_MAXIMUM_OCTETS + b"\n", daemon) == [UNKNOWN]


def test_a_name_cannot_forge_a_line_of_an_answer() -> None:
    (answer,) = Conversation().receive('kill "a\x1b[2J\x0b\u2028\x85END"\n'.encode(), Recorder())
    assert answer == "ERROR: common name 'a_[2J___END' not found"
    for octets in (b"\xff\xfe\n", b"\0\n"):
        assert Conversation().receive(octets, Recorder()) == [UNKNOWN]


@pytest.mark.parametrize("word", ["quit", "exit"])
def test_nothing_counts_after_the_goodbye(word: str) -> None:
    daemon = Recorder()
    conversation = Conversation()
    assert conversation.receive(f"{word}\nkill alice\n".encode(), daemon) == []
    assert conversation.ended
    assert daemon.told == []


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    written = Log(OutputSettings(log_file=tmp_path / "log"))
    yield written
    written.close()


@pytest.fixture
def desk(log: Log) -> Recorder:
    return Recorder(log)


@pytest.fixture
def management(tmp_path: Path, log: Log, desk: Recorder) -> Iterator[Management]:
    opened = Management(ManagementSettings(path=tmp_path / "m"), log, desk)
    yield opened
    opened.close()


def test_a_second_caller_waits_until_the_first_has_gone(management: Management, tmp_path: Path) -> None:
    with call(tmp_path / "m") as first, call(tmp_path / "m") as second:
        serve_until(management, lambda: readable(first))
        assert first.recv(4096).decode() == f"{GREETING}\r\n"
        management.serve()
        assert not readable(second)
        first.sendall(b"quit\n")
        serve_until(management, lambda: readable(second))
        assert first.recv(1) == b""
        assert second.recv(4096).decode() == f"{GREETING}\r\n"


def test_a_caller_that_does_not_read_is_hung_up_on(management: Management, desk: Recorder, tmp_path: Path) -> None:
    desk.status_text = "x" * (WAITING_MAXIMUM_OCTETS // 2)
    with call(tmp_path / "m") as deaf:
        deaf.sendall(b"status\n" * 20)
        with call(tmp_path / "m") as next_one:
            serve_until(management, lambda: readable(next_one))
    assert "it does not take its answers" in (tmp_path / "log").read_text()


def test_a_caller_that_stalls_has_a_deadline_until_it_has_taken_everything(
    management: Management, desk: Recorder, tmp_path: Path
) -> None:
    desk.status_text = "x" * (WAITING_MAXIMUM_OCTETS * 4)
    with call(tmp_path / "m") as slow:
        serve_until(management, lambda: readable(slow))
        assert management.due_at is None
        slow.sendall(b"status\n")
        serve_until(management, lambda: management.due_at is not None)
        taken = 0
        while taken < WAITING_MAXIMUM_OCTETS * 4:
            management.serve()
            taken += len(slow.recv(65536))
        management.serve()
        assert management.due_at is None


def test_a_caller_that_takes_nothing_in_time_is_hung_up_on(log: Log, desk: Recorder, tmp_path: Path) -> None:
    impatient = Management(ManagementSettings(path=tmp_path / "impatient"), log, desk, patience=0.05)
    desk.status_text = "x" * (WAITING_MAXIMUM_OCTETS * 4)
    with call(tmp_path / "impatient") as silent, call(tmp_path / "impatient") as next_one:
        silent.sendall(b"status\n")
        serve_until(impatient, lambda: impatient.due_at is not None)
        due_at = impatient.due_at
        assert due_at is not None
        while not readable(next_one):
            select.select([impatient], [], [], max(0.0, due_at - time.monotonic()))
            impatient.serve()
            assert time.monotonic() < due_at + 10
    impatient.close()
    assert "it does not take its answers" in (tmp_path / "log").read_text()


def test_a_socket_file_is_private_and_goes_away_but_nobody_elses_does(
    management: Management, log: Log, desk: Recorder, tmp_path: Path
) -> None:
    path = tmp_path / "m"
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(HostError, match="another program"):
        Management(ManagementSettings(path=path), log, desk)
    management_of_another = tmp_path / "other"
    Management(ManagementSettings(path=management_of_another), log, desk).close()
    assert not management_of_another.exists()
    path.unlink()
    successor = Management(ManagementSettings(path=path), log, desk)
    management.close()
    assert path.exists()
    successor.close()
    assert not path.exists()


def test_a_stale_socket_is_replaced_and_a_file_is_not(log: Log, desk: Recorder, tmp_path: Path) -> None:
    stale, file = tmp_path / "stale", tmp_path / "file"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(stale))
    Management(ManagementSettings(path=stale), log, desk).close()
    assert not stale.exists()
    file.write_text("precious")
    with pytest.raises(HostError, match="File exists"):
        Management(ManagementSettings(path=file), log, desk)
    assert file.read_text() == "precious"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki") / "keys"
    assert run_pki(["init", str(folder), "--server", "vpn.example", "--client", "alice"]) == 0
    return folder


def load(keys: Path, tmp_path: Path, line: str) -> ManagementSettings | None:
    path = tmp_path / "server.conf"
    names = {"ca": "ca.crt", "cert": "server.crt", "key": "server.key"}
    files = "".join(f"{option} {keys}/{name}\n" for option, name in names.items())
    path.write_text(f"server 10.8.0.0 255.255.255.0\ndh none\n{files}{line}\n")
    return load_configuration(path).driver.management


def test_a_client_may_have_one_too(keys: Path, tmp_path: Path) -> None:
    path = tmp_path / "client.conf"
    files = f"ca {keys}/ca.crt\ncert {keys}/client.crt\nkey {keys}/client.key\n"
    path.write_text(f"client\nremote 192.0.2.1\n{files}management 127.0.0.1 7505\n")
    assert load_configuration(path).driver.management == ManagementSettings(host="127.0.0.1", port=7505)


def test_the_option_takes_a_loopback_address_or_a_socket_file(keys: Path, tmp_path: Path) -> None:
    assert load(keys, tmp_path, "") is None
    assert load(keys, tmp_path, "management 127.0.0.1 7505") == ManagementSettings(host="127.0.0.1", port=7505)
    assert load(keys, tmp_path, "management ::1 7505") == ManagementSettings(host="::1", port=7505)
    assert load(keys, tmp_path, "management /run/m unix") == ManagementSettings(path=Path("/run/m"))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("management 0.0.0.0 7505", "loopback"),
        ("management localhost 7505", "loopback"),
        ("management tunnel 7505", "loopback"),
        ("management 127.0.0.1 0", "1 to 65535"),
        ("management 127.0.0.1 port", "1 to 65535"),
        ("management 127.0.0.1 7505 /etc/password", "password file"),
        (f"management /{'m' * 107} unix", "107 octets"),
        ("management 127.0.0.1", "needs"),
        ("management-hold", "asks for nothing"),
        ("management-query-passwords", "asks for nothing"),
        ("management-client", "asks for nothing"),
    ],
)
def test_a_form_that_is_not_supported_is_refused_with_the_reason(
    line: str, reason: str, keys: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        load(keys, tmp_path, line)

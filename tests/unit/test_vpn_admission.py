"""Who may come in, asked of files and a program, whatever names the clients have."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from vpn.config.model import Admission, OutputSettings
from vpn.driver.admission import Admitter
from vpn.driver.log import Log
from vpn.driver.pump import Pump, Signals
from vpn.events import AdmissionRequested, Password
from vpn.settings import ClientOverrides


@dataclass
class Answers:
    """In the core's place."""

    admitted: list[ClientOverrides] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)

    def admit(self, peer: int, overrides: ClientOverrides, now: float, unix_time: int) -> None:
        self.admitted.append(overrides)

    def refuse(self, peer: int, reason: str, now: float) -> None:
        self.refused.append(peer)


def answers_to(settings: Admission, name: str, password: str, log_file: Path) -> Answers:
    answers, signals = Answers(), Signals(())
    pump = Pump(signals)
    log = Log(OutputSettings(verb=9, log_file=log_file))
    admitter = Admitter(settings, cast("Any", answers), log, pump)
    admitter.ask(AdmissionRequested(1, ("192.0.2.1", 5), name, f"CN={name}", name, Password(password), False))
    while not answers.admitted and not answers.refused:
        pump.turn(admitter.due_at)
        admitter.collect()
    admitter.close()
    log.close()
    pump.close()
    signals.close()
    return answers


NAMES = ["alice", "a" * 300, "../../etc/passwd", "with\0nul", "with\nline", "\udcff\udcfe", "", "."]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_name_finds_the_default_file(name: str, tmp_path: Path) -> None:
    directory = tmp_path / "ccd"
    directory.mkdir()
    (directory / "DEFAULT").write_text("iroute 192.168.7.0 255.255.255.0\n")
    answers = answers_to(Admission(client_config_directory=directory), name, "", tmp_path / "log")
    assert [str(network) for overrides in answers.admitted for network in overrides.iroutes] == ["192.168.7.0/24"]


@pytest.mark.parametrize("by_file", [True, False])
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_name_and_password_reaches_the_program_that_checks_them(name: str, by_file: bool, tmp_path: Path) -> None:
    program = tmp_path / "check"
    how = f'cat "$1" > {tmp_path}/seen' if by_file else f'echo "$username" "$password" > {tmp_path}/seen'
    program.write_text(f"#!/bin/sh\n{how}\n")
    program.chmod(0o700)
    settings = Admission(verify_command=(str(program),), verify_by_file=by_file, temporary_directory=tmp_path)
    answers = answers_to(settings, name, "pass\udcffwörd", tmp_path / "log")
    assert answers.admitted
    assert "w\u00f6rd" in (tmp_path / "seen").read_text("utf-8", "replace")


def test_a_check_that_is_still_running_ends_with_the_server(tmp_path: Path) -> None:
    program, started = tmp_path / "check", tmp_path / "started"
    program.write_text(f'#!/bin/sh\necho $$ > "{started}.new"\nmv "{started}.new" "{started}"\nexec sleep 60\n')
    program.chmod(0o700)
    signals, log = Signals(()), Log(OutputSettings(verb=9, log_file=tmp_path / "log"))
    pump = Pump(signals)
    admitter = Admitter(Admission(verify_command=(str(program),), temporary_directory=tmp_path), *_core(), log, pump)
    admitter.ask(AdmissionRequested(1, ("192.0.2.1", 5), "alice", "CN=alice", "alice", Password("x"), False))
    deadline = time.monotonic() + 20.0
    while not started.exists():
        assert time.monotonic() < deadline
    admitter.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)
    assert not list(tmp_path.glob("vpn_up_*")), "the file with the password is still there"
    pump.close()
    signals.close()
    log.close()


def _core() -> tuple[Any]:
    return (cast("Any", Answers()),)

"""A tunnel over a bad link for a long time: what must be true at the end, however long it was.

    client ── isp ══ transit ── vpn        ══ loses, delays and reorders (the lab's engine, seeded)
               └ translates the client's address to a new one every so often: the server must follow (float)

Both ends renegotiate again and again; two TCP connections carry checked octets both ways the whole time. The result
says what came of it; who runs it asserts.
"""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from testbed.lab.bubble import Bubble
from testbed.lab.build import Lab
from testbed.lab.model import LabRequest, LinkRequest
from testbed.lab.plan import plan_lab
from testbed.lab.topology import load_topology
from tests.interop.tunnel_configs import Setup
from tests.interop.tunnel_lab import INNER_SERVER, OURS, Program, TunnelLab

CLIENT_ADDRESS = "192.168.0.13"
_LINK = LinkRequest("isp", "transit", delay=0.005, loss=1.0, reorder=2.0)
_STREAMS = str(Path(__file__).with_name("streams.py"))
_FINISHING_SECONDS = 90.0
_PATIENCE_SECONDS = 120.0
_PAGE_KIB = 4
_SAMPLE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How long at least, how often what happens, and how much must have happened at the end. Units: seconds.

    It goes on until everything has happened, whatever the machine's pace, but not for longer than two minutes more.
    """

    seconds: float
    renegotiate_every: int = 20
    move_every: float = 45.0
    moves: int = 1
    renegotiations: int = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the streams, the processes' memory and the logs say. Units: octets; KiB; seconds."""

    sent: int
    received: int
    longest_pause: float
    problems: list[str]
    moves: int
    renegotiations: int
    floats: int
    restarts: int
    server_kib: list[int]
    client_kib: list[int]

    @property
    def growth_kib(self) -> dict[str, int]:
        """How much more memory the last quarter needed at most than the second."""
        return {"server": _growth(self.server_kib), "client": _growth(self.client_kib)}

    def summary(self) -> str:
        return (
            f"{self.sent:,} octets up, {self.received:,} down, longest pause {self.longest_pause} s, "
            f"{self.renegotiations} renegotiations, {self.moves} moves of the client, {self.floats} followed, "
            f"memory {self.server_kib[-1:]} and {self.client_kib[-1:]} KiB at the end, growth {self.growth_kib}"
        )


def _growth(samples: list[int]) -> int:
    quarter = max(1, len(samples) // 4)
    return max(samples[-quarter:]) - max(samples[quarter : 2 * quarter] or samples[-quarter:])


def soak(keys: Path, folder: Path, server: str, client: str, plan: Plan) -> Outcome:
    """Run it in a lab of its own. `server` and `client` are `OURS` or `OPENVPN`."""

    def run(_conductor: object) -> Any:
        request = LabRequest(links=(_LINK,), resolvers={"client": ["192.168.0.1"]})
        with Lab.build(plan_lab(load_topology("client-isp-server"), request)) as lab:
            tunnels = TunnelLab(lab, folder)
            try:
                return asdict(_Soak(tunnels, keys, server, client, plan).run())
            finally:
                tunnels.end()

    with Bubble() as bubble:
        return Outcome(**bubble.run(run))


class _Soak:
    """Everything that happens inside the lab."""

    def __init__(self, lab: TunnelLab, keys: Path, server: str, client: str, plan: Plan) -> None:
        self._lab, self._plan = lab, plan
        verbosity = "verb 4"
        setup = Setup(
            keys,
            push=(),
            server_only=(f"reneg-sec {plan.renegotiate_every}", verbosity),
            client_only=("reneg-sec 0", verbosity),
        )
        self._server, self._client = lab.connect(server, setup.server(), client, setup.client())
        self._server_program = server
        self._moves = 0
        self._memory: dict[str, list[int]] = {"server": [], "client": []}
        self._has_arrays: set[str] = set()

    def run(self) -> Outcome:
        plan = self._plan
        self._lab.start("vpn", ["python3", _STREAMS, "serve"], "streams").wait_for("serving")
        self._lab.output("isp", "nft", _TRANSLATION_TABLE)
        talk = self._lab.start("client", ["python3", _STREAMS, "talk", INNER_SERVER], "talk")
        began = time.monotonic()
        next_move = began + plan.move_every
        while not _has_ended(talk, _SAMPLE_SECONDS):
            self._sample()
            now = time.monotonic()
            if now > began + plan.seconds and (self._is_done() or now > began + plan.seconds + _PATIENCE_SECONDS):
                break
            if now >= next_move and self._followed() >= self._moves:
                next_move = now + plan.move_every
                self._move()
        talk.process.terminate()
        if not _has_ended(talk, _FINISHING_SECONDS):
            raise AssertionError(f"the streams do not end:\n{talk.text()}\n{self._client.text()[-2000:]}")
        return self._outcome(talk)

    def _is_done(self) -> bool:
        enough_moves = self._followed() >= self._moves >= self._plan.moves
        return enough_moves and _renegotiations(self._server.text()) >= self._plan.renegotiations

    def _followed(self) -> int:
        return self._server.text().count("floated")

    def _sample(self) -> None:
        for name, program in (("server", self._server), ("client", self._client)):
            if program.process.poll() is not None:
                raise AssertionError(f"the {name} ended:\n{program.text()[-3000:]}")
            fields = Path(f"/proc/{program.process.pid}/statm").read_text().split()
            if name not in self._has_arrays and "numpy" in Path(f"/proc/{program.process.pid}/maps").read_text():
                self._has_arrays.add(name)
                self._memory[name].clear()  # what is loaded once, with the first large batches, is no growth
            self._memory[name].append(int(fields[1]) * _PAGE_KIB)

    def _move(self) -> None:
        """The client is somewhere else from now on, without knowing it."""
        self._moves += 1
        elsewhere = f"192.168.0.{100 + self._moves % 100}"
        self._lab.output("isp", "nft", _TRANSLATION.format(client=CLIENT_ADDRESS, elsewhere=elsewhere))

    def _outcome(self, talk: Program) -> Outcome:
        result = json.loads(talk.text().splitlines()[-1])
        server, client = self._server.text(), self._client.text()
        return Outcome(
            sent=result["sent"],
            received=result["received"],
            longest_pause=result["longest_pause"],
            problems=result["problems"],
            moves=self._moves,
            renegotiations=_renegotiations(server),
            floats=self._followed(),
            restarts=client.count("process restarting"),
            server_kib=self._memory["server"],
            client_kib=self._memory["client"],
        )


def _has_ended(program: Program, seconds: float) -> bool:
    """Waits for the end, so long at most."""
    try:
        program.process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _renegotiations(log: str) -> int:
    """Of our server's log, or of openvpn's, which names the control channel at every handshake."""
    return log.count("new session key in use") or log.count("Control Channel: TLS") - 1


# Stateless: no connection of the kernel's own remembers the old address, as a client that really moved has none.
_TRANSLATION_TABLE = (
    "add table ip moved; "
    "add chain ip moved out { type filter hook postrouting priority 300 ; }; "
    "add chain ip moved in { type filter hook prerouting priority -400 ; }"
)
_TRANSLATION = (
    "flush table ip moved; "
    "add rule ip moved out ip saddr {client} udp dport 1194 ip saddr set {elsewhere}; "
    "add rule ip moved in ip daddr {elsewhere} udp sport 1194 ip daddr set {client}"
)

__all__ = ["OURS", "Outcome", "Plan", "soak"]

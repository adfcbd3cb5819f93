"""What a caller of the management interface is told unasked, and what has happened so far. Pure.

    log line, state  -> Chronicle (the latest of each) -> `log 5`, `state all`
                     -> the caller, if it said `log on`, `state on`: >LOG:…, >STATE:…
    octets so far    -> the caller, every n seconds after `bytecount n`: >BYTECOUNT:…, >BYTECOUNT_CLI:…

What is wished holds for one caller: the next one begins with silence, as with openvpn. Wishes come at any time and the
answers of several commands may stand between two pieces of news, but a line is never cut.

Not told: the states RESOLVE and AUTH, which this program has no moment for; `echo`, `hold`, requests for passwords.

Source: OpenVPN's doc/management-notes.txt; the lines compared with those of openvpn 2.6.14
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Interface, IPv6Interface
from typing import Protocol

from vpn.config.model import SocketSettings
from vpn.driver.log import BRIEF, FATAL
from vpn.driver.printable import printable
from vpn.driver.transport import ip_of
from vpn.events import ClientConnected

LOG_LINES, STATES = 250, 100  # kept at most, as openvpn keeps them
END = "END"


class StateName(StrEnum):
    """Where a tunnel stands, in openvpn's words."""

    CONNECTING = "CONNECTING"
    TCP_CONNECT = "TCP_CONNECT"
    WAIT = "WAIT"  # for the server's first answer
    GET_CONFIG = "GET_CONFIG"
    ASSIGN_IP = "ASSIGN_IP"
    ADD_ROUTES = "ADD_ROUTES"
    CONNECTED = "CONNECTED"
    RECONNECTING = "RECONNECTING"
    EXITING = "EXITING"


@dataclass(frozen=True, slots=True)
class State:
    """One step of a tunnel. Units: `unix_time` in seconds. Shape: addresses as text, empty where there is none."""

    unix_time: int
    name: StateName
    detail: str = ""
    inner: str = ""
    remote: str = ""
    remote_port: str = ""
    local: str = ""
    local_port: str = ""
    inner6: str = ""

    @property
    def line(self) -> str:
        words = (self.detail, self.inner, self.remote, self.remote_port, self.local, self.local_port)
        inner6 = (self.inner6,) if self.inner6 else ()  # the one field that openvpn leaves out
        return ",".join((str(self.unix_time), self.name, *words, *inner6))


def inner_ends(ipv4: IPv4Interface | None, ipv6: IPv6Interface | None) -> dict[str, str]:
    """The fields of a state that hold a tunnel's own addresses."""
    found = {"inner": ipv4, "inner6": ipv6}
    return {name: str(address.ip) for name, address in found.items() if address is not None}


def local_end(bound: SocketSettings) -> dict[str, str]:
    """The fields of a state that hold the outer address it is bound to; none without `local`."""
    return {"local": bound.local, "local_port": str(bound.local_port)} if bound.local else {}


@dataclass(frozen=True, slots=True)
class Octets:
    """What went over the wire so far. Shape: `client` is the Client ID of `status 2`, None for a client's own."""

    client: int | None
    received: int
    sent: int

    @property
    def line(self) -> str:
        if self.client is None:
            return f">BYTECOUNT:{self.received},{self.sent}"
        return f">BYTECOUNT_CLI:{self.client},{self.received},{self.sent}"


def established(client: ClientConnected, unix_time: int) -> list[str]:
    """What every caller of a server is told when a client has its addresses. Units: `unix_time` in seconds."""
    number = client.peer - 1  # openvpn counts its clients from 0
    about = {
        "time_unix": unix_time,
        "common_name": client.common_name,
        "username": client.username,
        "trusted_ip": ip_of(client.address),
        "trusted_port": client.address[1],
        "ifconfig_pool_remote_ip": client.ifconfig,
        "ifconfig_pool_remote_ip6": client.ifconfig_ipv6,
        "IV_VER": client.client_version,
    }
    told = [f">CLIENT:ENV,{name}={printable(str(value))}" for name, value in about.items() if value not in (None, "")]
    return [f">CLIENT:ESTABLISHED,{number}", *told, ">CLIENT:ENV,END"]


class Chronicle:
    """The latest log lines and states, oldest first, as a caller is shown them."""

    def __init__(self) -> None:
        self.log: deque[str] = deque(maxlen=LOG_LINES)
        self.states: deque[str] = deque(maxlen=STATES)

    def note_log(self, unix_time: int, level: int, text: str) -> str:
        """Keeps a line of the log; returns it as it is shown."""
        flag = "F" if level <= FATAL else "I" if level <= BRIEF else ""
        line = f"{unix_time},{flag},{text}"
        self.log.append(line)
        return line

    def note_state(self, state: State) -> str:
        self.states.append(state.line)
        return state.line


class Witness(Protocol):
    """What the commands of this module ask of the program that is managed."""

    chronicle: Chronicle


@dataclass(slots=True)
class Wishes:
    """What one caller wants to be told. Units: `octets_seconds` between two counts, 0 for none."""

    log: bool = False
    state: bool = False
    octets_seconds: int = 0
    octets_due_at: float | None = None

    def take_due(self, now: float) -> bool:
        """Whether octets are due now; then the next time is set."""
        if not self.octets_seconds:
            self.octets_due_at = None
            return False
        if self.octets_due_at is None:
            self.octets_due_at = now + self.octets_seconds
        if now < self.octets_due_at:
            return False
        self.octets_due_at = now + self.octets_seconds
        return True


def _tell(which: str, wishes: Wishes, history: Iterable[str], arguments: Sequence[str]) -> str:
    """`log` and `state` with their words: [on|off] [N|all]."""
    words, lines = list(arguments), list(history)
    answers: list[str] = []
    if words[0] in ("on", "off"):
        setattr(wishes, which, words[0] == "on")
        answers.append(f"SUCCESS: real-time {which} notification set to {words.pop(0).upper()}")
    if words:
        count = len(lines) if words[0] == "all" else int(words[0]) if re.fullmatch("[0-9]{1,9}", words[0]) else 0
        if not count and words[0] != "all":
            return f"ERROR: {which} parameter must be 'on' or 'off' or some number n or 'all'"
        answers += [*lines[max(0, len(lines) - count) :], END]
    return "\n".join(answers)


def _log(wishes: Wishes, witness: Witness, arguments: Sequence[str]) -> str:
    return _tell("log", wishes, witness.chronicle.log, arguments)


def _state(wishes: Wishes, witness: Witness, arguments: Sequence[str]) -> str:
    return _tell("state", wishes, witness.chronicle.states, arguments or ["1"])


def _bytecount(wishes: Wishes, witness: Witness, arguments: Sequence[str]) -> str:
    if not re.fullmatch("[0-9]{1,9}", arguments[0]):
        return "ERROR: the interval of bytecount is a number of seconds, 0 for none"
    wishes.octets_seconds, wishes.octets_due_at = int(arguments[0]), None
    return "SUCCESS: bytecount interval changed"


# what it takes at least, and what it does
NEWS_COMMANDS: dict[str, tuple[int, Callable[[Wishes, Witness, Sequence[str]], str]]] = {
    "log": (1, _log),
    "state": (0, _state),
    "bytecount": (1, _bytecount),
}

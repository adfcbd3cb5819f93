"""What the management interface says: lines in, answers out, sans I/O.

    octets -> lines (bounded) -> words -> one command -> answer

The commands are those that ask about a tunnel, follow it (`vpn.driver.management_news`) and send a server's clients
away; everything else is an unknown command, as openvpn calls it. One conversation is one caller, from the greeting to
`quit`.

Not done: passwords, `hold`, `echo`, and deciding about clients (`client-auth`).

Source: OpenVPN's doc/management-notes.txt; the answers compared with those of openvpn 2.6.14
"""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Protocol

from vpn.driver.management_news import END, NEWS_COMMANDS, Wishes, Witness
from vpn.driver.printable import printable
from vpn.version import IV_VERSION

LINE_MAXIMUM_OCTETS = 256
INTERFACE_VERSION = 5
GREETING = f">INFO:OpenVPN Management Interface Version {INTERFACE_VERSION} -- type 'help' for more info"
STATUS_VERSIONS = (1, 2, 3)
THROWABLE = {
    number.name: number for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
}  # openvpn's four
VERBS = range(12)
# commands that ask for figures, again and again: the log would be about nothing else
_UNLOGGED = frozenset({"status", "load-stats", "pid", "version", "help", "signal"})
_HELP = f"""Management Interface for {IV_VERSION}
Commands:
bytecount n            : Show bytes in/out, update every n secs (0=off).
client-kill CID [M]    : Kill client instance CID with message M (HALT or RESTART, def=RESTART)
exit|quit              : Close management session.
help                   : Print this message.
kill cn                : Kill the client instance(s) having common name cn.
kill IP:port           : Kill the client instance connecting from IP:port.
load-stats             : Show global server load stats.
log [on|off] [N|all]   : Turn on/off realtime log display
                         + show last N lines or 'all' for entire history.
pid                    : Show process ID of the current process.
signal s               : Send signal s to daemon,
                         s = SIGHUP|SIGTERM|SIGUSR1|SIGUSR2.
state [on|off] [N|all] : Like log, but show state history.
status [n]             : Show current daemon status info using format #n.
verb [n]               : Set log verbosity level to n, or show if n is absent.
version                : Show current version of daemon.
{END}"""  # noqa: S608 - no SQL


@dataclass(frozen=True, slots=True)
class ConnectedClient:
    """One client. Shape: `number` is what `status 2` shows as its Client ID; `host` is the address without brackets."""

    number: int
    common_name: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Load:
    """A whole program's. Units: octets on the wire, control channel included."""

    clients: int
    received: int
    sent: int


class Daemon(Witness, Protocol):
    """What the commands ask of the program that is managed."""

    verb: int

    @property
    def process_id(self) -> int: ...
    @property
    def has_clients(self) -> bool:
        """Whether it is a server."""
        ...

    @property
    def status_version(self) -> int: ...
    def status(self, version: int) -> str: ...
    def clients(self) -> Sequence[ConnectedClient]: ...
    def disconnect(self, number: int, *, restart: bool) -> None: ...
    def throw(self, number: signal.Signals) -> None: ...
    def load(self) -> Load: ...
    def note_command(self, line: str) -> None: ...


class Conversation:
    """One caller's session. `ended` once it said goodbye: what comes after that is not read any more."""

    def __init__(self) -> None:
        self.ended = False
        self.wishes = Wishes()
        self._partial = bytearray()
        self._skipping = False  # inside of a line that is too long already

    def receive(self, untrusted: bytes, daemon: Daemon) -> list[str]:
        """What `daemon` answers to every line that is complete now; without the last line end."""
        answers: list[str] = []
        for piece in untrusted.splitlines(keepends=True):
            if self.ended:
                break
            answers += self._take(piece, daemon)
        return [answer for answer in answers if answer]

    def _take(self, piece: bytes, daemon: Daemon) -> list[str]:
        """A piece of one line, with or without its end."""
        complete = piece.endswith((b"\n", b"\r"))
        if self._skipping:
            self._skipping = not complete
            return []
        self._partial += piece
        line = self._partial.rstrip(b"\r\n")
        if len(line) > LINE_MAXIMUM_OCTETS:
            self._partial.clear()
            self._skipping = not complete
            return [f"ERROR: a line has at most {LINE_MAXIMUM_OCTETS} octets"]
        if not complete:
            return []
        self._partial.clear()
        return [self._answer(line.decode("utf-8", "replace"), daemon)]

    def _answer(self, line: str, daemon: Daemon) -> str:
        try:
            words = shlex.split(line)
        except ValueError:
            return "ERROR: a quotation mark or a backslash has no counterpart"
        if not words:
            return ""
        command, arguments = words[0], words[1:]
        if command in ("quit", "exit"):
            self.ended = True
            return ""
        if command not in _UNLOGGED:
            daemon.note_command(line)
        if command in _OF_SERVERS and not daemon.has_clients:
            return f"ERROR: The '{command}' command is not supported by the current daemon mode"
        known, news = _COMMANDS.get(command), NEWS_COMMANDS.get(command)
        needed = known[0] if known else news[0] if news else 0
        if len(arguments) < needed:
            at_least = "at least " if command in _AND_MORE else ""
            return f"ERROR: the '{command}' command requires {at_least}{needed} parameter"
        if known is not None:
            return known[1](daemon, arguments)
        if news is not None:
            return news[1](self.wishes, daemon, arguments)
        return "ERROR: unknown command, enter 'help' for more options"


def _status(daemon: Daemon, arguments: Sequence[str]) -> str:
    version = daemon.status_version
    if arguments:
        version = int(arguments[0]) if re.fullmatch("[0-9]{1,9}", arguments[0]) else 0
    if version not in STATUS_VERSIONS:
        return "ERROR: bad status format version number"
    return daemon.status(version).rstrip("\n")


def _kill(daemon: Daemon, arguments: Sequence[str]) -> str:
    wanted = arguments[0]
    host, colon, port = wanted.rpartition(":")
    if colon:
        return _kill_at(daemon, host, port)
    found = [client for client in daemon.clients() if client.common_name == wanted]
    for client in found:
        daemon.disconnect(client.number, restart=True)
    if not found:
        return f"ERROR: common name '{printable(wanted)}' not found"
    return f"SUCCESS: common name '{printable(wanted)}' found, {len(found)} client(s) killed"


def _kill_at(daemon: Daemon, host: str, port_text: str) -> str:
    try:
        address = ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return f"ERROR: error parsing IP address: {printable(host)}"
    port = int(port_text) if re.fullmatch("[0-9]{1,5}", port_text) else 0
    if not 0 < port < 65536:
        return f"ERROR: port number is out of range: {printable(port_text)}"
    found = [client for client in daemon.clients() if (ip_address(client.host), client.port) == (address, port)]
    for client in found:
        daemon.disconnect(client.number, restart=True)
    if not found:
        return f"ERROR: client at address {printable(host)}:{port} not found"
    return f"SUCCESS: {len(found)} client(s) at address {printable(host)}:{port} killed"


def _client_kill(daemon: Daemon, arguments: Sequence[str]) -> str:
    if not re.fullmatch("[0-9]{1,18}", arguments[0]):
        return "ERROR: cannot parse CID"
    number, message = int(arguments[0]), arguments[1] if len(arguments) > 1 else "RESTART"
    if message not in ("HALT", "RESTART"):
        return "ERROR: the message of client-kill is HALT or RESTART"
    if number not in {client.number for client in daemon.clients()}:
        return "ERROR: client-kill command failed"
    daemon.disconnect(number, restart=message == "RESTART")
    return "SUCCESS: client-kill command succeeded"


def _signal(daemon: Daemon, arguments: Sequence[str]) -> str:
    number = THROWABLE.get(arguments[0])
    if number is None:
        return f"ERROR: signal '{printable(arguments[0])}' is not a known signal type"
    daemon.throw(number)
    return f"SUCCESS: signal {number.name} thrown"


def _verb(daemon: Daemon, arguments: Sequence[str]) -> str:
    if not arguments:
        return f"SUCCESS: verb={daemon.verb}"
    if not re.fullmatch("[0-9]{1,2}", arguments[0]) or int(arguments[0]) not in VERBS:
        return "ERROR: verb level is out of range"
    daemon.verb = int(arguments[0])
    return "SUCCESS: verb level changed"


def _load_stats(daemon: Daemon, arguments: Sequence[str]) -> str:
    load = daemon.load()
    return f"SUCCESS: nclients={load.clients},bytesin={load.received},bytesout={load.sent}"


def _process_id(daemon: Daemon, arguments: Sequence[str]) -> str:
    return f"SUCCESS: pid={daemon.process_id}"


def _version(daemon: Daemon, arguments: Sequence[str]) -> str:
    return f"OpenVPN Version: {IV_VERSION}\nManagement Version: {INTERFACE_VERSION}\n{END}"


def _help(daemon: Daemon, arguments: Sequence[str]) -> str:
    return _HELP


_COMMANDS: dict[str, tuple[int, Callable[[Daemon, Sequence[str]], str]]] = {
    "status": (0, _status),
    "kill": (1, _kill),
    "client-kill": (1, _client_kill),
    "signal": (1, _signal),
    "verb": (0, _verb),
    "load-stats": (0, _load_stats),
    "pid": (0, _process_id),
    "version": (0, _version),
    "help": (0, _help),
}
_OF_SERVERS = frozenset({"kill", "client-kill"})
_AND_MORE = frozenset({"client-kill", "log"})  # take more words than they need

"""The status file, in openvpn's formats, and the counters behind it.

A client writes its statistics, a server its clients; both rewrite the file in place every so many seconds, and once at
the end. Version 1 is for people, 2 and 3 (tab-separated) for programs.

Source: openvpn(8), "--status" and "--status-version"; compared with files openvpn 2.6.14 writes
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vpn.config.model import OutputSettings
from vpn.driver.log import BRIEF, Log
from vpn.driver.printable import printable
from vpn.driver.story import client_name
from vpn.events import ClientConnected

_MODE = 0o600


class StatusFile:
    """Knows when the next writing is due, and writes."""

    def __init__(self, settings: OutputSettings, log: Log) -> None:
        self._path = settings.status_file
        self._interval = settings.status_seconds
        self._log = log
        self.due_at: float | None = time.monotonic() if self._path else None

    def write_when_due(self, render: Callable[[], str], *, at_once: bool = False) -> None:
        if self._path is None or self.due_at is None:
            return
        now = time.monotonic()
        if now < self.due_at and not at_once:
            return
        self.due_at = now + self._interval
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _MODE)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(render())
        except OSError as error:
            self._log.write(f"cannot write the status file {self._path}: {error.strerror}", BRIEF)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Octets moved so far, at the device and on the wire."""

    tun_read: int = 0
    tun_written: int = 0
    link_read: int = 0
    link_written: int = 0


@dataclass(frozen=True, slots=True)
class ClientRow:
    """One client of a server. Units: `since` in Unix seconds."""

    client: ClientConnected
    since: float
    octets_in: int
    octets_out: int


def render_client(traffic: Traffic, now: float) -> str:
    """A client's statistics."""
    rows = [
        ("Updated", _moment(now)),
        ("TUN/TAP read bytes", traffic.tun_read),
        ("TUN/TAP write bytes", traffic.tun_written),
        ("TCP/UDP read bytes", traffic.link_read),
        ("TCP/UDP write bytes", traffic.link_written),
        ("Auth read bytes", traffic.link_read),
    ]
    return "\n".join(["OpenVPN STATISTICS", *(f"{name},{value}" for name, value in rows), "END", ""])


def render_server(rows: Sequence[ClientRow], now: float, version: int) -> str:
    """A server's clients and routes, in status version 1, 2 or 3."""
    if version == 1:
        return _render_server1(rows, now)
    separator = "\t" if version == 3 else ","
    lines = [["TITLE", "vpn-testbed"], ["TIME", _moment(now), str(int(now))]]
    lines.append(["HEADER", "CLIENT_LIST", *_CLIENT_COLUMNS])
    lines += [["CLIENT_LIST", *_client_columns(row)] for row in rows]
    lines.append(["HEADER", "ROUTING_TABLE", *_ROUTE_COLUMNS])
    lines += [["ROUTING_TABLE", *columns] for row in rows for columns in _route_columns(row, timestamps=True)]
    lines += [["GLOBAL_STATS", "Max bcast/mcast queue length", "0"], ["GLOBAL_STATS", "dco_enabled", "0"], ["END"]]
    return "".join(separator.join(line) + "\n" for line in lines)


_CLIENT_COLUMNS = (
    "Common Name", "Real Address", "Virtual Address", "Virtual IPv6 Address", "Bytes Received", "Bytes Sent",
    "Connected Since", "Connected Since (time_t)", "Username", "Client ID", "Peer ID", "Data Channel Cipher",
)  # fmt: skip
_ROUTE_COLUMNS = ("Virtual Address", "Common Name", "Real Address", "Last Ref", "Last Ref (time_t)")


def _render_server1(rows: Sequence[ClientRow], now: float) -> str:
    lines = ["OpenVPN CLIENT LIST", f"Updated,{_moment(now)}"]
    lines.append("Common Name,Real Address,Bytes Received,Bytes Sent,Connected Since")
    for row in rows:
        fields = (printable(row.client.common_name), _real(row), row.octets_in, row.octets_out, _moment(row.since))
        lines.append(",".join(str(field) for field in fields))
    lines += ["ROUTING TABLE", "Virtual Address,Common Name,Real Address,Last Ref"]
    lines += [",".join(columns) for row in rows for columns in _route_columns(row, timestamps=False)]
    lines += ["GLOBAL STATS", "Max bcast/mcast queue length,0", "END", ""]
    return "\n".join(lines)


def _client_columns(row: ClientRow) -> list[str]:
    client = row.client
    return [
        printable(client.common_name),
        _real(row),
        str(client.ifconfig or ""),
        str(client.ifconfig_ipv6 or ""),
        str(row.octets_in),
        str(row.octets_out),
        _moment(row.since),
        str(int(row.since)),
        printable(client.username) or "UNDEF",
        str(client.peer - 1),  # openvpn counts its clients from 0
        str(client.peer_id),
        client.cipher.value,
    ]


def _route_columns(row: ClientRow, *, timestamps: bool) -> list[list[str]]:
    addresses = [str(a) for a in (row.client.ifconfig, row.client.ifconfig_ipv6) if a is not None]
    moment = [_moment(row.since), str(int(row.since))] if timestamps else [_moment(row.since)]
    return [[text, printable(row.client.common_name), _real(row), *moment] for text in [*addresses, *row.client.routes]]


def _real(row: ClientRow) -> str:
    return client_name("", row.client.address)


def _moment(unix_time: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_time))

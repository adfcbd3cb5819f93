"""A server on this host: one socket, one tun device, one core with all its clients.

The device is up with the server's addresses before the first packet is answered. Who may come in beyond what the core
checks itself (a file per client, a program that checks passwords) is decided by `admission`.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from dataclasses import replace

from vpn.config.model import DriverSettings, ServerAddresses
from vpn.driver.admission import Admitter
from vpn.driver.keylog import KeyLog
from vpn.driver.log import BRIEF, NORMAL, Log
from vpn.driver.management import Management
from vpn.driver.management_desks import ServerDesk
from vpn.driver.management_news import State, StateName, established, inner_ends, local_end
from vpn.driver.network import TunnelNetwork
from vpn.driver.outcome import Outcome
from vpn.driver.pump import Pump, Signals, earliest
from vpn.driver.status import ClientRow, StatusFile, render_server
from vpn.driver.story import READY, READY_WITH_ERRORS, drop_lines, tell_server
from vpn.driver.tcp import TcpListener
from vpn.driver.transport import Link
from vpn.driver.udp import listen_family, open_server_link
from vpn.events import AdmissionRequested, ClientConnected, ClientGone, Closed, TransportUnusable
from vpn.server import ServerCore
from vpn.settings import Address, ServerSettings, Transport
from vpn.wire.stream import largest_packet

_GRACE_SECONDS = (
    5.0  # on top of hand-window, before a silent TCP connection is closed: the core's own limit comes first
)


class ServerDriver:
    """Runs one server until it is told to stop."""

    def __init__(
        self, core: ServerSettings, driver: DriverSettings, log: Log, signals: Signals, keylog: KeyLog | None
    ) -> None:
        self._core_settings = core
        self._settings = driver
        self._log = log
        self._keylog = keylog
        self._network = TunnelNetwork(driver, log)
        self._pump = Pump(signals)
        self._link: Link | None = None
        self._core: ServerCore | None = None
        self._clients: dict[int, tuple[ClientConnected, float]] = {}
        self._status = StatusFile(driver.output, log)
        self._management: Management | None = None
        self._desk = ServerDesk(log, driver.output.status_version, self._render_status)
        self._stop: Outcome | None = None

    def run(self) -> Outcome:
        """Serves until a signal ends it. Errors: HostError if it cannot start."""
        try:
            core = self._make_core()  # before anything is changed: its certificate or cipher list may be of no use
            self._open_management()
            self._tell_state(StateName.CONNECTING)
            addresses = self._settings.server or ServerAddresses()
            self._network.set_up_server(addresses, self._settings.local_options, self._core_settings.data.tun_mtu)
            if self._network.tun is not None:
                self._network.tun.share()
            self._pump.attach_tun(self._network.tun)
            self._tell_state(StateName.ASSIGN_IP, **self._inner_addresses())
            self._open_link()
            self._log.write(READY_WITH_ERRORS if self._network.has_errors else READY, BRIEF)
            self._tell_connected()
            self._serve(core)
            while self._stop is None:
                core = self._make_core()
                self._tell_connected()
                self._serve(core)
            return self._stop
        finally:
            self._pump.attach_tun(None)
            if self._link is not None:
                self._link.close()
            self._network.close()
            if self._management is not None:
                self._management.close()
            self._pump.close()

    def _open_link(self) -> None:
        settings = self._settings.socket
        patience = self._core_settings.timers.hand_window + _GRACE_SECONDS
        is_udp = settings.protocol.transport is Transport.UDP
        self._link = open_server_link(settings, self._pump) if is_udp else TcpListener(settings, self._pump, patience)
        if isinstance(self._link, TcpListener):
            self._link.largest_packet = largest_packet(self._core_settings.data.tun_mtu)
        self._pump.attach_link(self._link)
        self._pump.on_lost = self._on_lost
        version = 6 if listen_family(self._settings.socket) == socket.AF_INET6 else 4
        name = f"UDPv{version}" if is_udp else f"TCPv{version}_SERVER"
        where = f"[AF_INET{'6' if version == 6 else ''}]{self._settings.socket.local or '[undef]'}"
        if not is_udp:
            self._log.write(f"Listening for incoming TCP connection on {where}:{settings.local_port}", BRIEF)
        self._log.write(f"{name} link local (bound): {where}:{self._settings.socket.local_port}", BRIEF)
        self._log.write(f"{name} link remote: [AF_UNSPEC]", NORMAL)

    def _open_management(self) -> None:
        if self._settings.management is not None:
            self._management = Management(self._settings.management, self._log, self._desk)
            self._pump.watch_other(self._management.fileno())

    def _make_core(self) -> ServerCore:
        """Errors: BadTlsSettings."""
        ipv6 = listen_family(self._settings.socket) == socket.AF_INET6
        return ServerCore(
            replace(self._core_settings, transport_ipv6=ipv6),
            random_bytes=os.urandom,
            keylog=self._keylog.write if self._keylog else None,
        )

    def _serve(self, core: ServerCore) -> None:
        """One core's life."""
        admitter = Admitter(self._settings.admission, core, self._log, self._pump)
        self._core = self._pump.core = self._desk.core = core
        self._desk.link = self._link
        core.start(time.monotonic(), int(time.time()))
        closed = False
        while not closed:
            listener = self._link if isinstance(self._link, TcpListener) else None
            silent_at = listener.due_at if listener else None
            hung_up_at = self._management.due_at if self._management else None
            signals = self._pump.turn(earliest(self._status.due_at, admitter.due_at, silent_at, hung_up_at))
            if self._management is not None:
                self._management.serve()
                signals += self._desk.take_signals()
            for number in signals:
                self._on_signal(number, core)
            if listener is not None:
                listener.expire()
            admitter.collect()
            closed = self._take_events(core, admitter)
            self._pump.flush()
            self._write_status()
        self._log_drops(core, NORMAL)
        admitter.close()
        self._pump.core = None
        self._clients.clear()

    def _take_events(self, core: ServerCore, admitter: Admitter) -> bool:
        """Tells and acts on events; True once the core is done."""
        while (event := core.next_event()) is not None:
            if isinstance(event, Closed):
                return True
            for line in tell_server(event):
                self._log.write(line, BRIEF)
            if isinstance(event, AdmissionRequested):
                admitter.ask(event)
            elif isinstance(event, ClientConnected):
                self._clients[event.peer] = (event, time.time())
                if self._management is not None:
                    self._management.tell(established(event, int(time.time())))
                if isinstance(self._link, TcpListener):
                    self._link.keep(event.address)
            elif isinstance(event, ClientGone):
                self._clients.pop(event.peer, None)
                if isinstance(self._link, TcpListener):
                    self._pump.flush()  # the client is to hear why before its connection goes
                    self._link.drop(event.address)
            elif isinstance(event, TransportUnusable) and self._link is not None:
                self._link.drop(event.address)
        return False

    def _on_lost(self, address: Address, reason: str) -> None:
        if self._core is not None:
            self._core.transport_lost(address, time.monotonic(), reason)

    def _on_signal(self, number: signal.Signals, core: ServerCore) -> None:
        if number is signal.SIGUSR2:
            self._log_drops(core, BRIEF)
            self._write_status(at_once=True)
            return
        restarts = number is signal.SIGUSR1 and not self._settings.restart_signal_ends
        if not restarts:
            self._stop = Outcome.RELOAD if number is signal.SIGHUP else Outcome.CLEAN
        end = "exiting" if self._stop is Outcome.CLEAN else "restarting"
        self._log.write(f"{number.name}[hard,] received, process {end}", BRIEF)
        self._tell_state(StateName.EXITING if end == "exiting" else StateName.RECONNECTING, number.name)
        core.close(time.monotonic())
        self._pump.flush()  # the next turn waits first
        self._pump.flush()

    def _tell_state(self, name: StateName, detail: str = "", **where: str) -> None:
        if self._management is not None:
            self._management.tell_state(State(int(time.time()), name, detail, **where))

    def _tell_connected(self) -> None:
        local = local_end(self._settings.socket)
        detail = "ERROR" if self._network.has_errors else "SUCCESS"
        self._tell_state(StateName.CONNECTED, detail, **self._inner_addresses(), **local)

    def _inner_addresses(self) -> dict[str, str]:
        own = self._settings.server or ServerAddresses()
        return inner_ends(own.ipv4, own.ipv6)

    def _write_status(self, *, at_once: bool = False) -> None:
        self._status.write_when_due(lambda: self._render_status(self._settings.output.status_version), at_once=at_once)

    def _render_status(self, version: int) -> str:
        rows: list[ClientRow] = []
        for peer in self._core.connected if self._core else ():
            if (known := self._clients.get(peer.number)) is not None:
                data = peer.session.data
                rows.append(ClientRow(*known, data.octets_in, data.octets_out))
        return render_server(rows, time.time(), version)

    def _log_drops(self, core: ServerCore, level: int) -> None:
        unsent = self._link.unsent if self._link else 0
        refused = self._network.tun.refused_by_kernel if self._network.tun else 0
        for line in drop_lines(core.drops.by_reason(), unsent=unsent, refused_by_kernel=refused):
            self._log.write(line, level)

"""A client on this host: connects, sets the network up, reconnects, and leaves everything as it was.

One attempt is one core with one socket; after it ends the next remote has its turn, after a pause that grows while
nothing succeeds. With `persist-tun` device and routes stay over a reconnect, so that nothing goes around the tunnel
meanwhile; without it they are taken back first, as in openvpn.

A static-key peer is driven by the same code: it has no handshake, so its network is set up before the first packet,
and it may have no remote (`endpoint` None): then the first authentic packet says where the other end is.
"""

from __future__ import annotations

import getpass
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from vpn.client import ClientCore
from vpn.config.model import DriverSettings
from vpn.driver.errors import HostError
from vpn.driver.keylog import KeyLog
from vpn.driver.log import BRIEF, NORMAL, Log
from vpn.driver.management_news import State, StateName, inner_ends, local_end
from vpn.driver.merge import merge_options
from vpn.driver.network import TunnelNetwork
from vpn.driver.outcome import Outcome
from vpn.driver.pump import Pump, Signals, earliest
from vpn.driver.remotes import Remotes, retry_pause
from vpn.driver.routes import IpAddress
from vpn.driver.status import StatusFile, Traffic, render_client
from vpn.driver.story import READY, READY_WITH_ERRORS, closing_lines, drop_lines, restart_reason, tell_client
from vpn.driver.tcp import TcpClientLink, TcpLink, TcpListener
from vpn.driver.transport import Endpoint, Link, ip_of, show_address
from vpn.driver.udp import open_client_link, open_server_link
from vpn.events import Closed, CloseReason, Connected, Floated, Restart, TlsEstablished, TransportUnusable
from vpn.push import PushedOptions
from vpn.settings import Address, ClientSettings, StaticKeySettings, Transport
from vpn.static_key_core import StaticKeyCore
from vpn.wire.stream import largest_packet

if TYPE_CHECKING:
    from vpn.driver.management import Management
    from vpn.driver.management_desks import ClientDesk

_PEACEFUL_ENDS = frozenset({CloseReason.INACTIVE, CloseReason.SESSION_TIMEOUT})
_LISTEN_PATIENCE = 3600.0  # a static-key end that listens waits for the other one for as long as it takes
_TLS_FAILURES = frozenset({CloseReason.REFUSED, CloseReason.HANDSHAKE_TIMEOUT})


class ClientDriver:
    """Runs one client, or one static-key peer, until it is told to stop or cannot go on."""

    def __init__(
        self,
        core: ClientSettings | StaticKeySettings,
        driver: DriverSettings,
        log: Log,
        signals: Signals,
        keylog: KeyLog | None,
    ) -> None:
        self._keylog: Callable[[bytes], None] | None = keylog.write if keylog else None
        self._core_settings = core
        self._settings = driver
        self._log = log
        self._network = TunnelNetwork(driver, log)
        self._remotes = Remotes(driver.remotes, driver.retry, log)
        self._status = StatusFile(driver.output, log)
        self._pump = Pump(signals)
        self._pump.on_lost = self._on_lost
        self._link: Link | None = None
        self._core: ClientCore | StaticKeyCore | None = None
        self._applied: tuple[PushedOptions, int] | None = None
        self._attempts = 0  # since the last success
        self._management: Management | None = None
        self._desk: ClientDesk | None = None
        self._stop: Outcome | None = None
        self._restart = False

    def run(self) -> Outcome:
        """Connects and stays connected. Errors: HostError for what retrying cannot mend."""
        try:
            self._ask_credentials()
            self._open_management()
            self._tell_state(StateName.CONNECTING)
            while self._stop is None:
                endpoint = self._remotes.next() if self._settings.remotes else None
                if endpoint is None and self._settings.remotes:
                    self._attempts += 1
                else:
                    self._attempt(endpoint)
                if self._stop is None:
                    self._pause()
            return self._stop
        finally:
            self._log_drops()
            self._write_status(at_once=True)
            self._pump.attach_tun(None)
            self._drop_link()
            self._network.close()
            if self._management is not None:
                self._management.close()
            self._pump.close()

    def _open_management(self) -> None:
        if self._settings.management is None:
            return
        from vpn.driver.management import Management  # most clients have none, and it takes time to load
        from vpn.driver.management_desks import ClientDesk

        self._desk = ClientDesk(self._log, self._settings.output.status_version, self._render_status)
        self._management = Management(self._settings.management, self._log, self._desk)
        self._pump.watch_other(self._management.fileno())

    def _ask_credentials(self) -> None:
        if not self._settings.ask_credentials or isinstance(self._core_settings, StaticKeySettings):
            return
        if not sys.stdin.isatty():
            raise HostError("auth-user-pass: no file with user name and password, and no terminal to ask for them")
        username = self._core_settings.username or input("Enter Auth Username: ")
        password = getpass.getpass("Enter Auth Password: ")
        self._core_settings = replace(self._core_settings, username=username, password=password)

    # -- one attempt -------------------------------------------------------------------------------------------------

    def _attempt(self, endpoint: Endpoint | None) -> None:
        """One core's life, from its first packet to Closed."""
        self._restart = False
        try:
            if self._network.tun is None:
                self._network.look_at_underlay(endpoint.ip if endpoint else None)
            else:
                self._network.keep_outside(endpoint.ip if endpoint else None)
            self._link = self._open_link(endpoint)
        except HostError as error:
            self._log.write(str(error), BRIEF)
            self._attempts += 1
            return
        if not self._wait_for_transport(endpoint):
            self._drop_link()
            self._attempts += 1
            return
        core = self._make_core(endpoint)
        if isinstance(core, StaticKeyCore):
            self._set_up(PushedOptions(), endpoint.ip if endpoint else None, core.settings.tun_mtu)
        self._core = self._pump.core = core
        core.start(time.monotonic(), int(time.time()))
        self._pump.flush()
        self._tell_state(StateName.WAIT)
        closed = self._take_events(core)
        while closed is None:
            self._turn(self._status.due_at)
            closed = self._take_events(core)
            self._pump.flush()  # what a signal or an event made the core say does not wait for the next turn
            self._write_status()
        self._end_attempt(closed)

    def _open_link(self, endpoint: Endpoint | None) -> Link:
        settings = self._settings.socket
        link: Link
        if endpoint is None:
            listens_on_udp = settings.protocol.transport is Transport.UDP
            link = (
                open_server_link(settings, self._pump)
                if listens_on_udp
                else TcpListener(settings, self._pump, _LISTEN_PATIENCE)
            )
            what = "link local (bound)" if listens_on_udp else "Listening for incoming TCP connection on"
            self._log.write(f"{what}: {settings.local or '[undef]'}:{settings.local_port}", BRIEF)
        elif endpoint.transport is Transport.UDP:
            link = open_client_link(settings, endpoint, self._pump)
            bound = settings.local_port or settings.local
            self._log.write(f"{endpoint.protocol_name} link local: {'(bound)' if bound else '(not bound)'}", NORMAL)
            self._log.write(f"{endpoint.protocol_name} link remote: {show_address(endpoint.address)}", BRIEF)
        else:
            self._log.write(f"Attempting to establish TCP connection with {show_address(endpoint.address)}", BRIEF)
            link = TcpClientLink(settings, endpoint, self._pump)
        if isinstance(link, TcpLink):
            core = self._core_settings
            link.largest_packet = largest_packet(
                core.data.tun_mtu if isinstance(core, ClientSettings) else core.tun_mtu
            )
        self._pump.attach_link(link)
        return link

    def _wait_for_transport(self, endpoint: Endpoint | None) -> bool:
        """TCP: waits until the connection stands; False if it does not."""
        link = self._link
        if not isinstance(link, TcpClientLink) or endpoint is None:
            return True
        self._tell_state(StateName.TCP_CONNECT)
        until = time.monotonic() + self._settings.retry.connect_timeout
        while not link.is_connected and not link.failure and self._stop is None and time.monotonic() < until:
            self._turn(until)
        if link.is_connected:
            self._log.write(f"TCP connection established with {show_address(endpoint.address)}", BRIEF)
            self._log.write(f"{endpoint.protocol_name}_CLIENT link remote: {show_address(endpoint.address)}", BRIEF)
        elif self._stop is None:
            reason = link.failure or "Connection timed out"
            self._log.write(f"TCP: connect to {show_address(endpoint.address)} failed: {reason}", BRIEF)
        return link.is_connected

    def _make_core(self, endpoint: Endpoint | None) -> ClientCore | StaticKeyCore:
        settings = self._core_settings
        if isinstance(settings, StaticKeySettings):
            settings = replace(settings, transport_ipv6=endpoint is not None and endpoint.ip.version == 6)
            return StaticKeyCore(settings, endpoint.address if endpoint else None, random_bytes=os.urandom)
        if endpoint is None:
            raise HostError("a client without a remote")
        settings = replace(settings, transport=endpoint.transport, transport_ipv6=endpoint.ip.version == 6)
        return ClientCore(settings, endpoint.address, random_bytes=os.urandom, keylog=self._keylog)

    def _turn(self, until: float | None) -> None:
        """One turn of the loop, with whoever manages this tunnel, and the signals that came."""
        management, desk = self._management, self._desk
        listener = self._link if isinstance(self._link, TcpListener) else None
        hung_up_at = management.due_at if management else None
        signals = self._pump.turn(earliest(until, hung_up_at, listener.due_at if listener else None))
        if listener is not None:
            listener.expire()
        if management is not None and desk is not None:
            desk.link = self._link
            management.serve()
            signals += desk.take_signals()
        for number in signals:
            self._on_signal(number)

    def _drop_link(self) -> None:
        if self._link is not None:
            self._pump.attach_link(None)
            self._link.close()
            self._link = None

    def _on_lost(self, address: Address, reason: str) -> None:
        if isinstance(self._core, StaticKeyCore):
            self._core.transport_lost(address, time.monotonic(), reason)
        elif self._core is not None:
            self._core.transport_lost(time.monotonic(), reason)

    # -- events ------------------------------------------------------------------------------------------------------

    def _take_events(self, core: ClientCore | StaticKeyCore) -> Closed | None:
        while (event := core.next_event()) is not None:
            if isinstance(event, Closed):
                return event
            for line in tell_client(event):
                self._log.write(line, BRIEF if isinstance(event, Connected) else NORMAL)
            if isinstance(event, TlsEstablished) and event.key_id == 0:
                self._tell_state(StateName.GET_CONFIG)
            elif isinstance(event, Connected):
                if isinstance(core, ClientCore):
                    self._set_up(event.options, ip_of(event.server), event.tun_mtu)
                self._attempts = 0
                if isinstance(self._link, TcpListener):
                    self._link.keep(event.server)
                self._log.write(READY_WITH_ERRORS if self._network.has_errors else READY, BRIEF)
                self._tell_connected(event.server)
            elif isinstance(event, Restart) and not event.next_remote:
                self._remotes.stay()
            elif isinstance(event, TransportUnusable) and self._link is not None:
                self._link.drop(event.address)
            elif isinstance(event, Floated) and isinstance(self._link, TcpListener):
                self._link.keep(event.new)
                self._link.drop(event.old)
        return None

    def _set_up(self, pushed: PushedOptions, server: IpAddress | None, mtu: int) -> None:
        """Device, addresses, routes, resolver; what a persistent device has already is kept if it is the same."""
        options = merge_options(self._settings.local_options, pushed)
        wanted = (_network_part(options), mtu)
        if self._network.tun is not None and self._applied != wanted:
            self._log.write("NOTE: Pulled options changed on restart, closing and reopening the TUN/TAP device", BRIEF)
            self._take_down()
        if self._network.tun is None:
            self._tell_state(StateName.ASSIGN_IP, **inner_ends(options.ifconfig, options.ifconfig_ipv6))
            self._network.set_up_client(options, server, mtu)
            self._pump.attach_tun(self._network.tun)
            self._applied = wanted
            self._tell_state(StateName.ADD_ROUTES)
        else:
            self._log.write(f"Preserving previous TUN/TAP instance: {self._network.tun.name}", NORMAL)

    def _take_down(self) -> None:
        self._pump.attach_tun(None)
        self._network.take_down()
        self._applied = None

    def _end_attempt(self, closed: Closed) -> None:
        self._pump.flush()
        retry = self._stop is None and self._may_retry(closed)
        settings = self._core_settings
        window = settings.timers.hand_window if isinstance(settings, ClientSettings) else 0.0
        for line in closing_lines(closed, handshake_seconds=window, retry=retry):
            self._log.write(line, BRIEF)
        self._pump.core = None
        self._attempts += 1
        if self._stop is None and not retry:
            self._stop = Outcome.CLEAN if closed.reason in _PEACEFUL_ENDS else Outcome.FAILED
            self._log.write(f"SIGTERM[soft,{closed.reason.name.lower()}] received, process exiting", BRIEF)
            self._tell_state(StateName.EXITING, closed.reason.name.lower())
        if self._stop is None:
            self._tell_state(StateName.RECONNECTING, "SIGUSR1" if self._restart else restart_reason(closed))
            self._log_drops()
            if not self._settings.device.persist:
                self._take_down()
            self._drop_link()

    def _may_retry(self, closed: Closed) -> bool:
        limit = self._settings.retry.attempts
        if limit is not None and self._attempts + 1 >= limit * len(self._settings.remotes):
            self._log.write(f"All connections have been connect-retry-max ({limit}) times unsuccessful, exiting", BRIEF)
            return False
        if closed.reason is CloseReason.AUTH_FAILED and not closed.retry:
            return self._settings.retry_after_auth_failure
        if closed.reason in _TLS_FAILURES and self._settings.exit_on_tls_failure:
            return False
        return closed.retry or self._restart

    def _on_signal(self, number: signal.Signals) -> None:
        if number is signal.SIGUSR2:
            self._log_drops(level=BRIEF)
            self._write_status(at_once=True)
            return
        if number is signal.SIGUSR1 and not self._settings.restart_signal_ends:
            self._restart = True
            self._log.write("SIGUSR1[hard,] received, process restarting", BRIEF)
        else:
            self._stop = Outcome.RELOAD if number is signal.SIGHUP else Outcome.CLEAN
            end = "restarting" if number is signal.SIGHUP else "exiting"
            self._log.write(f"{number.name}[hard,] received, process {end}", BRIEF)
            self._tell_state(StateName.EXITING if end == "exiting" else StateName.RECONNECTING, number.name)
        if self._core is not None:
            self._core.close(time.monotonic())

    def _pause(self) -> None:
        """Waits before the next attempt; packets from the device are dropped meanwhile."""
        pause = retry_pause(self._settings.retry, self._attempts, len(self._settings.remotes))
        self._core = None
        self._log.write(f"Restart pause, {pause} second(s)", NORMAL)
        until = time.monotonic() + pause
        while self._stop is None and time.monotonic() < until:
            self._turn(until)

    # -- telling -----------------------------------------------------------------------------------------------------

    def _tell_state(self, name: StateName, detail: str = "", **where: str) -> None:
        if self._management is not None:
            self._management.tell_state(State(int(time.time()), name, detail, **where))

    def _tell_connected(self, server: Address) -> None:
        options = self._applied[0] if self._applied else PushedOptions()
        inner, local = inner_ends(options.ifconfig, options.ifconfig_ipv6), local_end(self._settings.socket)
        detail = "ERROR" if self._network.has_errors else "SUCCESS"
        remote = {"remote": str(ip_of(server)), "remote_port": str(server[1])}
        self._tell_state(StateName.CONNECTED, detail, **inner, **remote, **local)

    def _write_status(self, *, at_once: bool = False) -> None:
        self._status.write_when_due(self._render_status, at_once=at_once)

    def _render_status(self) -> str:
        tun, link = self._network.tun, self._link
        traffic = Traffic(
            tun.octets_read if tun else 0,
            tun.octets_written if tun else 0,
            link.octets_received if link else 0,
            link.octets_sent if link else 0,
        )
        return render_client(traffic, time.time())

    def _log_drops(self, level: int = NORMAL) -> None:
        if self._core is None:
            return
        unsent = self._link.unsent if self._link else 0
        refused = self._network.tun.refused_by_kernel if self._network.tun else 0
        for line in drop_lines(self._core.drops.by_reason(), unsent=unsent, refused_by_kernel=refused):
            self._log.write(line, level)


def _network_part(options: PushedOptions) -> PushedOptions:
    """The options that the device's set-up depends on: what changes with each connection is left out."""
    return replace(options, peer_id=None, auth_token=None, auth_token_user=None, cipher=None, ignored=(), errors=())

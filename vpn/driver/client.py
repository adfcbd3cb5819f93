"""A client on this host: connects, sets the network up, reconnects, and leaves everything as it was.

One attempt is one `ClientCore` with one socket; after it ends the next remote has its turn, after a pause that grows
while nothing succeeds. With `persist-tun` device and routes stay over a reconnect, so that nothing goes around the
tunnel meanwhile; without it they are taken back first, as in openvpn.
"""

from __future__ import annotations

import getpass
import os
import random
import signal
import sys
import time
from dataclasses import replace

from vpn.client import ClientCore
from vpn.config.model import DriverSettings, RetrySettings
from vpn.driver.errors import HostError
from vpn.driver.keylog import KeyLog
from vpn.driver.log import BRIEF, NORMAL, Log
from vpn.driver.merge import merge_options
from vpn.driver.network import TunnelNetwork
from vpn.driver.outcome import Outcome
from vpn.driver.pump import Pump, Signals
from vpn.driver.status import StatusFile, Traffic, render_client
from vpn.driver.story import READY, closing_lines, drop_lines, tell_client
from vpn.driver.transport import Endpoint, ip_of, resolve, show_address
from vpn.driver.udp import UdpLink, open_client_link
from vpn.events import Closed, CloseReason, Connected, Restart
from vpn.push import PushedOptions
from vpn.settings import ClientSettings

_EXIT_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM})
_STEADY_ROUNDS = 5  # rounds through all remotes before pauses grow; openvpn(8), "--connect-retry"


class ClientDriver:
    """Runs one client until it is told to stop or cannot go on."""

    def __init__(
        self, core: ClientSettings, driver: DriverSettings, log: Log, signals: Signals, keylog: KeyLog | None
    ) -> None:
        self._keylog = keylog.write if keylog else None
        self._core_settings = core
        self._settings = driver
        self._log = log
        self._network = TunnelNetwork(driver, log)
        self._pump = Pump(signals)
        self._link: UdpLink | None = None
        self._core: ClientCore | None = None
        self._applied: tuple[PushedOptions, int] | None = None
        self._attempts = 0  # since the last success
        self._next_remote = 0
        self._stop: Outcome | None = None
        self._restart = False
        self._status = StatusFile(driver.output, log)

    def run(self) -> Outcome:
        """Connects and stays connected. Errors: HostError for what retrying cannot mend."""
        try:
            self._ask_credentials()
            while self._stop is None:
                endpoint = self._next_endpoint()
                if endpoint is not None:
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
            self._pump.close()

    def _ask_credentials(self) -> None:
        if not self._settings.ask_credentials:
            return
        if not sys.stdin.isatty():
            raise HostError("auth-user-pass: no file with user name and password, and no terminal to ask for them")
        username = self._core_settings.username or input("Enter Auth Username: ")
        password = getpass.getpass("Enter Auth Password: ")
        self._core_settings = replace(self._core_settings, username=username, password=password)

    def _next_endpoint(self) -> Endpoint | None:
        """The next address to try: remotes in turn, all addresses of each name."""
        endpoints: list[Endpoint] = []
        for remote in self._settings.remotes:
            try:
                endpoints += resolve(remote)
            except HostError as error:
                self._log.write(str(error), BRIEF)
        if not endpoints:
            self._attempts += 1
            return None
        if self._next_remote == 0 and self._settings.retry.random_order:
            random.shuffle(endpoints)
        endpoint = endpoints[self._next_remote % len(endpoints)]
        self._next_remote += 1
        return endpoint

    def _attempt(self, endpoint: Endpoint) -> None:
        """One core's life, from its first packet to Closed."""
        self._restart = False
        try:
            if self._network.tun is None:
                self._network.look_at_underlay(endpoint.ip)
            else:
                self._network.keep_outside(endpoint.ip)
            link = open_client_link(self._settings.socket, endpoint)
        except HostError as error:
            self._log.write(str(error), BRIEF)
            self._attempts += 1
            return
        self._use_link(link, endpoint)
        settings = replace(self._core_settings, transport=endpoint.transport, transport_ipv6=endpoint.ip.version == 6)
        core = ClientCore(settings, endpoint.address, random_bytes=os.urandom, keylog=self._keylog)
        self._core = self._pump.core = core
        core.start(time.monotonic(), int(time.time()))
        self._pump.flush()
        closed: Closed | None = None
        while closed is None:
            for number in self._pump.turn(self._status.due_at):
                self._on_signal(number)
            closed = self._take_events(core, endpoint)
            self._write_status()
        self._end_attempt(core, closed)

    def _use_link(self, link: UdpLink, endpoint: Endpoint) -> None:
        self._link = link
        self._pump.attach_link(link)
        self._pump.watch(link.fileno())
        name = endpoint.protocol_name
        bound = self._settings.socket.local_port or self._settings.socket.local
        self._log.write(f"{name} link local: {'(bound)' if bound else '(not bound)'}", NORMAL)
        self._log.write(f"{name} link remote: {show_address(endpoint.address)}", BRIEF)

    def _drop_link(self) -> None:
        if self._link is not None:
            self._pump.unwatch(self._link.fileno())
            self._pump.attach_link(None)
            self._link.close()
            self._link = None

    def _take_events(self, core: ClientCore, endpoint: Endpoint) -> Closed | None:
        while (event := core.next_event()) is not None:
            if isinstance(event, Closed):
                return event
            for line in tell_client(event):
                self._log.write(line, BRIEF if isinstance(event, Connected) else NORMAL)
            if isinstance(event, Connected):
                self._set_up(event)
            elif isinstance(event, Restart) and not event.next_remote:
                self._next_remote = max(0, self._next_remote - 1)
        return None

    def _set_up(self, event: Connected) -> None:
        """The tunnel stands: device, addresses, routes, resolver; then packets may flow."""
        options = merge_options(self._settings.local_options, event.options)
        wanted = (_network_part(options), event.tun_mtu)
        if self._network.tun is not None and self._applied != wanted:
            self._log.write("NOTE: Pulled options changed on restart, closing and reopening the TUN/TAP device", BRIEF)
            self._take_down()
        if self._network.tun is None:
            address = event.server
            self._network.set_up_client(options, ip_of(address), event.tun_mtu)
            self._pump.attach_tun(self._network.tun)
            self._applied = wanted
        else:
            self._log.write(f"Preserving previous TUN/TAP instance: {self._network.tun.name}", NORMAL)
        self._attempts = 0
        self._log.write(READY, BRIEF)

    def _take_down(self) -> None:
        self._pump.attach_tun(None)
        self._network.take_down()
        self._applied = None

    def _end_attempt(self, core: ClientCore, closed: Closed) -> None:
        self._pump.flush()
        retry = self._stop is None and self._may_retry(closed)
        window = self._core_settings.timers.hand_window
        for line in closing_lines(closed, handshake_seconds=window, retry=retry):
            self._log.write(line, BRIEF)
        self._pump.core = None
        self._attempts += 1
        if self._stop is None and not retry:
            self._stop = Outcome.FAILED if closed.reason is not CloseReason.INACTIVE else Outcome.CLEAN
            self._log.write(f"SIGTERM[soft,{closed.reason.name.lower()}] received, process exiting", BRIEF)
        if self._stop is None and not self._settings.device.persist:
            self._take_down()
        if self._stop is None:
            self._log_drops()
            self._drop_link()

    def _may_retry(self, closed: Closed) -> bool:
        limit = self._settings.retry.attempts
        if limit is not None and self._attempts + 1 >= limit * len(self._settings.remotes):
            self._log.write(f"All connections have been connect-retry-max ({limit}) times unsuccessful, exiting", BRIEF)
            return False
        if closed.reason is CloseReason.AUTH_FAILED and not closed.retry:
            return self._settings.retry_after_auth_failure
        if closed.reason in (CloseReason.REFUSED, CloseReason.HANDSHAKE_TIMEOUT) and self._settings.exit_on_tls_failure:
            return False
        return closed.retry or self._restart

    def _on_signal(self, number: signal.Signals) -> None:
        if number is signal.SIGUSR2:
            self._log_drops(level=BRIEF)
            return
        if number is signal.SIGUSR1 and not self._settings.restart_signal_ends:
            self._restart = True
            self._log.write("SIGUSR1[hard,] received, process restarting", BRIEF)
        else:
            self._stop = Outcome.RELOAD if number is signal.SIGHUP else Outcome.CLEAN
            end = "restarting" if number is signal.SIGHUP else "exiting"
            self._log.write(f"{number.name}[hard,] received, process {end}", BRIEF)
        if self._core is not None:
            self._core.close(time.monotonic())
            self._pump.flush()  # the next turn waits first

    def _pause(self) -> None:
        """Waits before the next attempt; packets from the device are dropped meanwhile."""
        pause = retry_pause(self._settings.retry, self._attempts, len(self._settings.remotes))
        self._core = None
        self._log.write(f"Restart pause, {pause} second(s)", NORMAL)
        until = time.monotonic() + pause
        while self._stop is None and time.monotonic() < until:
            for number in self._pump.turn(until):
                self._on_signal(number)

    def _write_status(self, *, at_once: bool = False) -> None:
        tun, link = self._network.tun, self._link
        traffic = Traffic(
            tun.octets_read if tun else 0,
            tun.octets_written if tun else 0,
            link.octets_received if link else 0,
            link.octets_sent if link else 0,
        )
        self._status.write_when_due(lambda: render_client(traffic, time.time()), at_once=at_once)

    def _log_drops(self, level: int = NORMAL) -> None:
        if self._core is None:
            return
        unsent = self._link.unsent if self._link else 0
        refused = self._network.tun.refused_by_kernel if self._network.tun else 0
        for line in drop_lines(self._core.drops.by_reason(), unsent=unsent, refused_by_kernel=refused):
            self._log.write(line, level)


def retry_pause(settings: RetrySettings, attempts: int, remotes: int) -> int:
    """Seconds before the next attempt: steady at first, then doubled each round, up to the longest."""
    rounds = attempts // max(1, remotes)
    growth = min(max(0, rounds - _STEADY_ROUNDS), 16)
    return min(settings.pause << growth, settings.longest_pause)


def _network_part(options: PushedOptions) -> PushedOptions:
    """The options that the device's set-up depends on: what changes with each connection is left out."""
    return replace(options, peer_id=None, auth_token=None, auth_token_user=None, cipher=None, ignored=())

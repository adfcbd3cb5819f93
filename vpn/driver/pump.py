"""The event loop: moves packets between the core, the tun device and the outer socket, and keeps the core's time.

One turn: wait until something is readable or the core's next deadline comes; hand the core what arrived, in batches;
let it do what is due; send and deliver what it has ready. Latency comes first: there is no delay to fill a batch, a
turn takes what is there. Events stay in the core until the owner takes them.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Protocol

from vpn.dataplane.offload import Superpacket
from vpn.dataplane.train import Outgoing, Train
from vpn.driver.transport import Link
from vpn.driver.tun import READ_PACKETS, TunDevice
from vpn.driver.udp import UdpLink
from vpn.drops import Drop, Drops
from vpn.events import Event
from vpn.settings import Address

if TYPE_CHECKING:
    from vpn.dataplane.workbench import Rows, Workbench

_FOREVER = -1.0
_LONGEST_WAIT = 86400.0  # epoll takes no more than 24 days; a deadline that is not due yet is waited for again
_READABLE = select.EPOLLIN
_NOTHING: tuple[int, ...] = ()
_KEPT_OCTETS = 4 << 20
_MOST_READY = 8  # device, socket, signals, children: room for more events would be memory to fetch
# Where few packets usually come between two pauses, so many go one by one: a stream with a small window waits for each,
# and in that many a batch would save nothing. Elsewhere the second one goes with all behind it.
_FEW_PACKETS = 24
_MOST_SINGLY = 16
_BURSTS = 8  # that the usual one is an average of
_WORTH_MANY_AT_ONCE = 1 << 20  # octets in large batches: from then on numpy saves more time than its import costs


class Core(Protocol):
    """What client, server and static-key cores have in common."""

    drops: Drops

    def start(self, now: float, unix_time: int) -> None: ...
    def receive_datagrams(self, untrusted: Sequence[bytes], address: Address, now: float, unix_time: int) -> None: ...
    def receive_train(
        self, untrusted: Train, address: Address, now: float, unix_time: int, bench: Workbench | None
    ) -> None: ...
    def receive_packets(self, packets: Sequence[bytes], now: float) -> None: ...
    def seal_one(self, packet: bytes, now: float) -> tuple[bytes, Address] | None: ...
    def seal_few(self, superpacket: Superpacket, now: float) -> tuple[list[bytes], Address] | None: ...
    def open_one(self, untrusted: bytes, address: Address, now: float) -> bytes | None: ...
    def receive_superpacket(self, superpacket: Superpacket, now: float, bench: Workbench | None) -> None: ...
    def advance(self, now: float, unix_time: int) -> None: ...
    def next_timeout(self) -> float | None: ...
    def datagrams_to_send(self) -> list[tuple[Outgoing, Address]]: ...
    def packets_to_deliver(self) -> list[bytes | Rows]: ...
    @property
    def has_events(self) -> bool: ...
    def next_event(self) -> Event | None: ...
    def close(self, now: float) -> None: ...


class Signals:
    """Signals as values: taken in the loop, one after the other, never in the middle of something."""

    def __init__(self, numbers: Sequence[signal.Signals]) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._pending: list[signal.Signals] = []
        self._numbers = numbers
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._note) for number in numbers}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._pending.append(signal.Signals(number))

    def fileno(self) -> int:
        return self._reader

    def take(self) -> list[signal.Signals]:
        """The signals that came since the last call."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 4096)
        taken, self._pending = self._pending, []
        return taken

    def close(self) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._reader)
        os.close(self._writer)


class Pump:
    """Moves packets for one core after another. Attach and detach link and device at any time between turns."""

    def __init__(self, signals: Signals) -> None:
        _keep_freed_memory()
        self._poll = select.epoll()
        self._signals = signals
        self._poll.register(signals.fileno(), select.EPOLLIN)
        self._tun: TunDevice | None = None
        self._link: Link | None = None
        self._link_events: dict[int, int] = {}
        self.on_lost: Callable[[Address, str], None] = _ignore
        self.core: Core | None = None
        self._is_signalled = False
        self._ready_before: Sequence[int] = _NOTHING
        self._most_singly = _MOST_SINGLY
        self._moved = 0  # packets since the last pause
        self._usual_burst = 0.0  # packets between two pauses, on the average
        self._bench: Workbench | None = None
        self._in_large_batches = 0  # octets, while there is no workbench

    def attach_tun(self, tun: TunDevice | None) -> None:
        if self._tun is not None and self._tun.fileno() >= 0:
            self._poll.unregister(self._tun.fileno())
        self._tun = tun
        if tun is not None:
            self._poll.register(tun.fileno(), select.EPOLLIN)

    def attach_link(self, link: Link | None) -> None:
        """Takes `link` for the core's datagrams; the link registers its own descriptors with `watch`."""
        self._link = link

    def watch(self, descriptor: int, events: int = select.EPOLLIN) -> None:
        before = self._link_events.get(descriptor)
        if before is None:
            self._poll.register(descriptor, events)
        elif before != events:
            self._poll.modify(descriptor, events)
        self._link_events[descriptor] = events

    def unwatch(self, descriptor: int) -> None:
        if self._link_events.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def watch_other(self, descriptor: int) -> None:
        """Wakes the loop when `descriptor` becomes readable (a child's end); its owner looks after the turn."""
        self._poll.register(descriptor, select.EPOLLIN)

    def unwatch_other(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)

    def close(self) -> None:
        self._poll.close()

    def turn(self, until: float | None = None) -> list[signal.Signals]:
        """Runs until there is something for the owner: a signal, an event, another descriptor, or the time `until`.

        Traffic alone does not interrupt it. Returns the signals that came.
        """
        while True:
            due = self.core.next_timeout() if self.core is not None else None
            ready = self._wait(until, due)
            now, unix_time = time.monotonic(), int(time.time())
            is_done = self._serve(ready, now, unix_time)
            if self._moved > _MOST_SINGLY:
                self._most_singly = 0
            if self.core is not None:
                if due is not None and due <= now:
                    self.core.advance(now, unix_time)
                self.flush()
            signals = self._signals.take() if self._is_signalled else []
            self._is_signalled = False
            if is_done or signals or self.core is None or self.core.has_events or (until is not None and until <= now):
                return signals

    def _wait(self, until: float | None, due: float | None) -> list[tuple[int, int]]:
        """Waits; packets that come alone go the express way meanwhile. Returns what is ready for all others.

        As long as there are only such packets no deadline comes nearer (`vpn.dataplane.express`).
        """
        poll, tun, link, core = self._poll.poll, self._tun, self._link, self.core
        if tun is None or core is None or tun.is_holding or not isinstance(link, UdpLink) or not link.has_express:
            return poll(0 if tun is not None and tun.is_holding else _patience(until, due))
        before, ends_at = self._ready_before, earliest(until, due)
        in_a_row, most = 0, self._most_singly
        while True:
            ready = poll(0, _MOST_READY)
            if not ready:
                self._note_burst(in_a_row)
                before, in_a_row = _NOTHING, 0
                most = self._most_singly
                ready = poll(_patience(ends_at, None), _MOST_READY)
            now = time.monotonic()
            if not ready or (ends_at is not None and ends_at <= now):
                break
            if in_a_row >= most and any(descriptor in before for descriptor, _ in ready):
                break
            left = self._express(ready, core, tun, link, now)
            before = [descriptor for descriptor, _ in ready]
            if left:
                ready = left
                break
            in_a_row += 1
        self._ready_before = before
        self._moved += in_a_row
        return ready

    def _note_burst(self, in_a_row: int) -> None:
        """There is a pause, after so many packets one by one and what the turns before have moved."""
        self._usual_burst += (in_a_row + self._moved - self._usual_burst) / _BURSTS
        self._moved = 0
        self._most_singly = _MOST_SINGLY if self._usual_burst < _FEW_PACKETS else 0

    def _express(
        self, ready: list[tuple[int, int]], core: Core, tun: TunDevice, link: UdpLink, now: float
    ) -> list[tuple[int, int]]:
        """Lets one packet of each descriptor go the express way; returns those that have something for all others'."""
        from_tun = tun.fileno()
        for place, (descriptor, events) in enumerate(ready):
            if events != _READABLE:
                return ready[place:]
            if descriptor == from_tun:
                is_done = _express_out(core, tun, link, now)
            else:
                is_done = descriptor in self._link_events and _express_in(core, tun, link, now)
            if not is_done:
                return ready[place:]
        return []

    def _serve(self, ready: list[tuple[int, int]], now: float, unix_time: int) -> bool:
        """Moves what is ready; returns whether the owner has to look after something.

        Of a descriptor that was not ready a turn ago one packet is taken: mostly there is no other, and asking costs
        as much as sealing; of one that was, many.
        """
        is_done = False
        before, self._ready_before = self._ready_before, [descriptor for descriptor, _ in ready]
        for descriptor, events in ready:
            if descriptor in self._link_events:
                is_done |= not self._serve_link(descriptor, events, descriptor in before, now, unix_time)
            elif self._tun is not None and descriptor == self._tun.fileno():
                self._serve_tun(self._tun, descriptor in before, now)
            elif descriptor == self._signals.fileno():
                self._is_signalled = True
            else:
                is_done = True
        tun = self._tun
        if tun is not None and tun.is_holding and tun.fileno() not in self._ready_before:
            self._serve_tun(tun, False, now)
        return is_done

    def flush(self) -> None:
        """Sends and delivers everything the core has ready."""
        if self.core is None:
            return
        if self._link is not None and (datagrams := self.core.datagrams_to_send()):
            self._link.send(datagrams)
            for address, reason in self._link.lost():
                self.on_lost(address, reason)
        packets = self.core.packets_to_deliver()
        if packets and self._tun is not None:
            self._tun.write_packets(packets, self._bench)

    def _serve_tun(self, tun: TunDevice, is_busy: bool, now: float) -> None:
        lost = tun.overflowed
        batch = tun.read_packets(READ_PACKETS if is_busy else 1)
        if tun.overflowed != lost and self.core is not None:
            self.core.drops.count(Drop.QUEUE_FULL, tun.overflowed - lost)
        for packets in batch:
            if self.core is None:
                continue
            if isinstance(packets, Superpacket):
                self._moved += packets.segments
                self.core.receive_superpacket(packets, now, self._bench_for(packets))
                self.flush()
            else:
                self._moved += len(packets)
                self.core.receive_packets(packets, now)

    def _bench_for(self, many: Train | Superpacket) -> Workbench | None:
        """What works on many packets at once, as soon as there are enough of them to make it worth loading."""
        if self._bench is None:
            if isinstance(many, Superpacket):
                self._in_large_batches += len(many.octets)
            elif len(many) > 1:
                self._in_large_batches += many.octets
            if self._in_large_batches >= _WORTH_MANY_AT_ONCE:
                from vpn.dataplane.workbench import Workbench

                self._bench = Workbench()
        return self._bench

    def _serve_link(self, descriptor: int, events: int, is_busy: bool, now: float, unix_time: int) -> bool:
        """Returns whether this was traffic, or an error that concerns nobody; else a connection came or went."""
        if self._link is None:
            return False
        is_traffic = True
        if events & ~select.EPOLLOUT:
            arrivals = self._link.receive(descriptor, is_busy=is_busy)
            is_traffic = bool(arrivals)
            for address, arrived in arrivals:
                self._take(address, arrived, now, unix_time)
        if events & select.EPOLLOUT:
            self._link.writable(descriptor)
        lost = self._link.lost()
        for address, reason in lost:
            self.on_lost(address, reason)
        return is_traffic and not lost

    def _take(self, address: Address, arrived: list[bytes] | Train, now: float, unix_time: int) -> None:
        if self.core is None:
            return
        self._moved += len(arrived)
        if isinstance(arrived, Train):
            self.core.receive_train(arrived, address, now, unix_time, self._bench_for(arrived))
            self.flush()
        else:
            self.core.receive_datagrams(arrived, address, now, unix_time)


def _express_out(core: Core, tun: TunDevice, link: UdpLink, now: float) -> bool:
    """Whether a packet came alone and was sent; else the usual way has what came."""
    packet = tun.read_one()
    if isinstance(packet, bytes):
        sealed = core.seal_one(packet, now)
        if sealed is not None:
            link.send_one(*sealed)
            return True
    elif packet is not None:
        few = core.seal_few(packet, now)
        if few is not None:
            link.send_few(*few)
            return True
    if packet is not None:
        tun.hold(packet)
    return False


def _express_in(core: Core, tun: TunDevice, link: UdpLink, now: float) -> bool:
    """Whether a datagram came alone and went to the device; else the usual way has what came."""
    arrived = link.receive_one()
    if arrived is None:
        return False
    datagram, address = arrived
    packet = core.open_one(datagram, address, now)
    if packet is None:
        core.receive_datagrams((datagram,), address, now, int(time.time()))
        return False
    tun.write_one(packet)
    return True


def _patience(until: float | None, due: float | None) -> float:
    """Seconds to wait at most; never negative, but for `for ever`."""
    if due is None or (until is not None and until < due):
        due = until
    return _FOREVER if due is None else min(max(0.0, due - time.monotonic()), _LONGEST_WAIT)


def _keep_freed_memory() -> None:
    """Lets the C library keep what packets take and give back, instead of fetching it from the kernel for each anew.

    glibc returns freed memory above a limit, 128 KiB at first, that rises to twice the largest piece ever mapped and
    freed (mallopt(3), "M_MMAP_THRESHOLD"). With packets of 48 KB that was a call and a dozen page faults for each. The
    piece is never touched, so it costs nothing; other C libraries take no notice.
    """
    bytes(_KEPT_OCTETS)


def _ignore(address: Address, reason: str) -> None:
    """UDP loses nothing; a TCP owner puts its own function in this place."""


def earliest(*moments: float | None) -> float | None:
    """The first of several deadlines, of which None never comes."""
    return min((moment for moment in moments if moment is not None), default=None)

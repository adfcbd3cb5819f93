"""Datagrams of one who has no key, to live cores at every stage of a connection.

Two cores run in virtual time up to a stage; then come forged datagrams, from the true address and from others; then
the genuine session goes on and must work. For each forged datagram:

- no exception, and no more steps of the interpreter than its length explains (every 64th is measured);
- it is counted as dropped, once, unless it is a first packet that is answered without keeping state;
- nothing is delivered, told or, but for that answer, sent;
- the core's state, counters and clocks left out, is the same before and after (`tests.fuzz.state`).

At the end both directions deliver what was sent, each packet once.

Without protection of the control channel (`none`) whoever knows addresses and session ids can speak in a peer's name
until TLS notices: there control packets from the true addresses are fed in episodes of their own (`disturb`), which
ask only for no exception, bounded state and nothing delivered that was not sent.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any

from tests.fuzz.corpus import recorded_datagrams
from tests.fuzz.mutation import Mutator
from tests.fuzz.state import difference, state_of
from tests.sim.inner import ip_packet, numbers
from tests.sim.network import Node, World, datagrams
from tests.sim.setups import CLIENT, KEY, SERVER, client_settings, events, pair, protections, server_settings
from vpn.events import Connected
from vpn.server import ServerCore
from vpn.settings import Address, Cipher, DataSettings, StaticKeySettings
from vpn.static_key_core import StaticKeyCore
from vpn.wire.packet import WITH_CLIENT_KEY, Malformed, Opcode
from vpn.wire.wrapped import split_client_key

WRAPPINGS = ("none", "tls-auth", "tls-crypt", "tls-crypt-v2")
CIPHERS = (Cipher.AES_256_GCM, Cipher.CHACHA20_POLY1305, Cipher.AES_256_CBC)
IN_CLIENT, IN_SERVER = "10.8.0.2", "10.8.0.1"
PER_STAGE = 400  # forged datagrams in one episode
BATCH = 25  # forged datagrams between two looks at the state
STEPS_EVERY = 64
STEPS_MAXIMUM = 3000  # calls of functions for one datagram, besides two for each octet
LARGEST_STATE = 40_000  # entries of a disturbed core with one session
_RESETS = (7, 10)


class Violation(AssertionError):
    """An invariant does not hold."""


@dataclass(slots=True)
class Trace:
    """What an episode did, for a reproducer."""

    what: str = ""
    datagrams: list[tuple[str, bytes]] = field(default_factory=list)

    def note(self, target: str, datagram: bytes) -> None:
        self.datagrams.append((target, datagram))

    @property
    def count(self) -> int:
        return len(self.datagrams)


def fuzz_strangers(mutator: Mutator, trace: Trace) -> None:
    """One episode: a stage of a TLS-mode connection, forged datagrams to both ends, and the genuine session's end."""
    wrapping, cipher = mutator.pick(WRAPPINGS), mutator.pick(CIPHERS)
    stage = mutator.pick(STAGES)
    steps = mutator.below(STAGE_STEPS[stage])
    disturbing = wrapping == "none" and mutator.chance(0.3)
    trace.what = f"{stage} {steps}, {wrapping}, {cipher}{', disturbed' if disturbing else ''}"
    world, client, server = reach(stage, steps, wrapping, cipher, mutator)
    forger = Forger(world, client, server, wrapping, mutator, trace)
    if disturbing:
        forger.disturb(PER_STAGE)
        return
    forger.feed(PER_STAGE)
    if stage != "leaving":
        finish(world, client, server)


# -- stages ----------------------------------------------------------------------------------------------------------

STAGES = ("handshake", "handshake", "traffic", "renegotiation", "leaving")
# how many datagrams further along the stage may be
STAGE_STEPS = {"handshake": 18, "traffic": 1, "renegotiation": 14, "leaving": 2}


def reach(stage: str, steps: int, wrapping: str, cipher: Cipher, mutator: Mutator) -> tuple[World, Node, Node]:
    """A world whose cores are at the stage, with what they sent last still under way."""
    world = World(mutator.below(1 << 30))
    ours, theirs = protections(wrapping)
    data = DataSettings(data_ciphers=(cipher,))
    client, server = pair(world, client_settings(control=ours, data=data), server_settings(control=theirs, data=data))
    if stage == "handshake":
        world.run(lambda: len(world.wire) > steps, seconds=5)
        return world, client, server
    if not world.run(lambda: bool(events(client, Connected)), seconds=30):
        raise Violation(f"no connection: {client.events} {server.events}")
    world.run(seconds=1)
    exchange(world, client, server, range(20))
    if stage == "renegotiation":
        already = len(world.wire)
        ends: tuple[Any, Any] = (client.core, server.core)
        if mutator.chance(0.5):
            ends[0].request_renegotiation(world.now)
        else:
            ends[1].request_renegotiation(ends[1].connected[0].number, world.now)
        world.run(lambda: len(world.wire) > already + steps, seconds=5)
    elif stage == "leaving":
        client.core.close(world.now)  # type: ignore[attr-defined]  # every core has it
        world.run(lambda: False, seconds=0.005 * steps)
    send(client, server, world, range(20, 30))
    for node in (client, server):
        world.collect(node)
    return world, client, server


def send(client: Node, server: Node, world: World, which: range) -> None:
    """Numbered packets into both ends of the tunnel."""
    ends: tuple[Any, Any] = (client.core, server.core)
    ends[0].receive_packets([ip_packet(IN_CLIENT, IN_SERVER, number) for number in which], world.now)
    ends[1].receive_packets([ip_packet(IN_SERVER, IN_CLIENT, number) for number in which], world.now)


def exchange(world: World, client: Node, server: Node, which: range) -> None:
    send(client, server, world, which)
    if not world.run(lambda: all(arrived(node, which) for node in (client, server)), seconds=5):
        raise Violation(f"the genuine session lost packets: {numbers(client.delivered)} {numbers(server.delivered)}")


def arrived(node: Node, which: range) -> bool:
    return set(which) <= set(numbers(node.delivered))


def finish(world: World, client: Node, server: Node) -> None:
    """The genuine session goes on: connected within a handshake's time, both directions, everything once."""
    if not world.run(lambda: bool(events(client, Connected)), seconds=60):
        raise Violation(f"the genuine handshake failed: {client.events} {server.events}")
    world.run(seconds=1)
    exchange(world, client, server, range(100, 110))
    for node in (client, server):
        found = numbers(node.delivered)
        if len(found) != len(set(found)):
            raise Violation(f"accepted twice: {found}")


# -- forging ---------------------------------------------------------------------------------------------------------


class Forger:
    """Makes datagrams from what passed the wire and gives them to the cores, looking at what happens."""

    def __init__(self, world: World, client: Node, server: Node, wrapping: str, mutator: Mutator, trace: Trace) -> None:
        self._world, self._client, self._server = world, client, server
        self._wrapping, self._mutator, self._trace = wrapping, mutator, trace
        self._repeat_first_packets()
        passed = [datagram for _, _, _, datagram in world.wire]
        self._corpus = passed * 3 + [mutator.pick(recorded_datagrams()) for _ in range(8)]
        underway = [datagram for at, _, _, datagram in world.wire if at + world.weather.delay >= world.now]
        self._genuine = {essence(datagram) for datagram in underway}

    def _repeat_first_packets(self) -> None:
        """After the stateless start a session has not itself seen the reset, and takes it once as a repetition."""
        world = self._world
        for _, source, _, datagram in list(world.wire):
            if source == CLIENT and datagram[0] >> 3 in _RESETS:
                self._server.core.receive_datagrams([datagram], CLIENT, world.now, world.unix_time)
        world.collect(self._server)

    def feed(self, count: int) -> None:
        """Datagrams that nobody could have sent who has the keys: they must change nothing."""
        for _ in range(count // BATCH):
            for node in (self._client, self._server):
                before = state_of(node.core)
                for _ in range(BATCH // 2 + 1):
                    datagram, source = self._forge(node)
                    self._give(node, datagram, source)
                after = state_of(node.core)
                if after != before:
                    raise Violation(f"forged datagrams changed the {name_of(node)}: {difference(before, after)}")

    def disturb(self, count: int) -> None:
        """Datagrams that may well do harm without protection, to see that the harm has limits."""
        for _ in range(count):
            node = self._mutator.pick((self._client, self._server))
            datagram = self._mutator.datagram(self._corpus)
            self._trace.note(name_of(node), datagram)
            with steps_counted(self._trace.count, datagram):
                source = CLIENT if node is self._server else SERVER
                node.core.receive_datagrams([datagram], source, self._world.now, self._world.unix_time)
        self._world.run(seconds=2)
        for node in (self._client, self._server):
            size = len(state_of(node.core))
            if size > LARGEST_STATE:
                raise Violation(f"the {name_of(node)} grew to {size} entries")
            found = numbers(node.delivered)
            if len(found) != len(set(found)) or not set(found) <= set(range(30)):
                raise Violation(f"delivered what was not sent, or twice: {found}")

    def _forge(self, node: Node) -> tuple[bytes, Address]:
        while True:
            datagram = self._mutator.datagram(self._corpus)
            number = self._mutator.below(1 << 24)
            elsewhere: Address = (f"203.0.{number >> 16}.{number >> 8 & 255}", 1024 + (number & 255))
            source = elsewhere if self._mutator.chance(0.3) else (CLIENT if node is self._server else SERVER)
            if essence(datagram) in self._genuine:
                continue
            unprotected = self._wrapping == "none" and source != elsewhere and not is_data(datagram)
            if not unprotected:
                return datagram, source

    def _give(self, node: Node, datagram: bytes, source: Address) -> None:
        core, world = node.core, self._world
        self._trace.note(name_of(node), datagram)
        dropped = core.drops.total
        with steps_counted(self._trace.count, datagram):
            core.receive_datagrams([datagram], source, world.now, world.unix_time)
        answers = datagrams(core)
        if not is_stateless_answer(answers, source, datagram):
            times = core.drops.total - dropped
            if times != 1 or answers:
                raise Violation(f"a forged datagram: {times} drops counted by the {name_of(node)}, sent {answers!r}")
        if core.packets_to_deliver():
            raise Violation(f"the {name_of(node)} delivered a forged packet")
        if (event := core.next_event()) is not None:
            raise Violation(f"a forged datagram made the {name_of(node)} tell {event}")


def name_of(node: Node) -> str:
    return "server" if isinstance(node.core, ServerCore) else "client"


def is_data(datagram: bytes) -> bool:
    return bool(datagram) and datagram[0] >> 3 in (Opcode.DATA_V1, Opcode.DATA_V2)


def is_stateless_answer(answers: list[tuple[bytes, Address]], source: Address, datagram: bytes) -> bool:
    """A server's reset to where a first packet came from: at most a few octets longer than a plain first packet."""
    if len(answers) != 1 or datagram[0] >> 3 not in _RESETS:
        return False
    ((answer, target),) = answers
    return answer[0] >> 3 == Opcode.CONTROL_HARD_RESET_SERVER_V2 and target == source and len(answer) <= 128


def essence(datagram: bytes) -> bytes:
    """What authentication covers: with CBC not a data packet's header, and no WKc behind a control packet."""
    if not datagram:
        return datagram
    opcode = datagram[0] >> 3
    if opcode == Opcode.DATA_V1:
        return datagram[1:]
    if opcode == Opcode.DATA_V2:
        return datagram[4:]
    if opcode in WITH_CLIENT_KEY:
        try:
            return split_client_key(datagram)[0]
        except Malformed:
            return datagram
    return datagram


@contextmanager
def steps_counted(number: int, datagram: bytes) -> Iterator[None]:
    """Every so often, hold the number of function calls against the datagram's length: time without a clock."""
    if number % STEPS_EVERY:
        yield
        return
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(before)
    if calls > STEPS_MAXIMUM + 2 * len(datagram):
        raise Violation(f"{calls} calls for a datagram of {len(datagram)} octets")


# -- static-key mode -------------------------------------------------------------------------------------------------


def fuzz_static_key(mutator: Mutator, trace: Trace) -> None:
    """One episode with two cores of static-key mode."""
    cipher = mutator.pick((Cipher.AES_128_CBC, Cipher.AES_256_CBC))
    settings = StaticKeySettings(KEY, cipher=cipher)
    trace.what = f"static key, {cipher}"
    world = World(mutator.below(1 << 30))
    ends: list[StaticKeyCore] = []
    for peer, listen in ((SERVER, False), (None, True)):
        ends.append(StaticKeyCore(replace(settings, listen=listen), peer, random_bytes=world.random_bytes))
    client, server = world.add(ends[0], CLIENT), world.add(ends[1], SERVER)
    for core in ends:
        core.start(world.now, world.unix_time)
    world.run(seconds=1)
    before_traffic = mutator.chance(0.3)
    if not before_traffic:
        exchange(world, client, server, range(20))
        send(client, server, world, range(20, 30))
        for node in (client, server):
            world.collect(node)
    _forge_static(world, (client, server), mutator, trace)
    exchange(world, client, server, range(100, 110))
    for node in (client, server):
        found = numbers(node.delivered)
        if len(found) != len(set(found)):
            raise Violation(f"accepted twice: {found}")


def _forge_static(world: World, nodes: tuple[Node, Node], mutator: Mutator, trace: Trace) -> None:
    passed = [datagram for _, _, _, datagram in world.wire] + [mutator.pick(recorded_datagrams()) for _ in range(8)]
    underway = {octets for at, _, _, octets in world.wire if at + world.weather.delay >= world.now}
    for node in nodes:
        before = state_of(node.core)
        for _ in range(PER_STAGE // 2):
            datagram = mutator.datagram(passed)
            if datagram in underway:
                continue
            source: Address = ("203.0.113.9", 9) if mutator.chance(0.3) else (SERVER, CLIENT)[node is nodes[1]]
            trace.note(name_of(node), datagram)
            dropped = node.core.drops.total
            with steps_counted(trace.count, datagram):
                node.core.receive_datagrams([datagram], source, world.now, world.unix_time)
            if node.core.drops.total != dropped + 1 or node.core.packets_to_deliver() or node.core.datagrams_to_send():
                raise Violation("a forged datagram was not dropped once and for all")
        after = state_of(node.core)
        if after != before:
            raise Violation(f"forged datagrams changed a static-key end: {difference(before, after)}")


Episode = Callable[[Mutator, Trace], None]
__all__ = ["Episode", "Trace", "Violation", "fuzz_static_key", "fuzz_strangers"]

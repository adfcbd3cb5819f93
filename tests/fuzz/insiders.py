"""Peers that finish the TLS handshake and then say what they like: key messages, control messages, data packets.

Such a peer may end its own session, nothing more: no exception, bounded state, no steps without end in virtual time,
and another client of the same server goes on as if nothing had been.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tests.fuzz import corpus
from tests.fuzz.mutation import Mutator
from tests.fuzz.parsers import text_of
from tests.fuzz.state import state_of
from tests.fuzz.strangers import LARGEST_STATE, Trace, Violation, exchange
from tests.sim.inner import ip_packet
from tests.sim.network import Node, World
from tests.sim.pki import authority, client_certificate, server_certificate
from tests.sim.setups import (
    SERVER,
    TLS_CRYPT,
    add_client,
    add_server,
    client_settings,
    events,
    server_settings,
)
from vpn.client import ClientCore
from vpn.dataplane.channel import Negotiated
from vpn.dataplane.train import Outgoing
from vpn.drops import Drops
from vpn.events import Connected, Event
from vpn.happenings import KeysExchanged
from vpn.protection import client_wrapper, server_wrapper
from vpn.session import Session
from vpn.session_setup import Identity, SessionSetup
from vpn.settings import Address, Cipher, Compression, DataSettings, Timers, TlsSettings, Transport
from vpn.tls import TlsContext
from vpn.wire.packet import DATA_OPCODES, Opcode, PeerId, SessionId

if TYPE_CHECKING:
    from vpn.dataplane.workbench import Rows

MALLORY: Address = ("203.0.113.66", 666)
_VICTIM: Address = ("192.0.2.1", 40000)
_PROPER_INFO = "IV_VER=2.6.14\nIV_NCP=2\nIV_CIPHERS=AES-256-GCM\nIV_PROTO=142\n"
_TEXTS = 12


class Insider:
    """One end whose handshake is genuine and whose words are the test's; a core for `World`."""

    def __init__(
        self, world: World, *, is_server: bool, identity: Identity, peer: Address, speak: Callable[[Insider], None]
    ) -> None:
        self.drops = Drops()
        self._world, self._peer, self._speak = world, peer, speak
        issued = server_certificate() if is_server else client_certificate("mallory")
        tls = TlsContext(TlsSettings(authority().pem, issued.certificate, issued.key), is_server=is_server)
        wrapper = (server_wrapper if is_server else client_wrapper)(TLS_CRYPT, world.unix_time)
        setup = SessionSetup(
            is_server=is_server,
            own_id=SessionId(world.random_bytes(8)),
            wrapper=wrapper,
            tls=tls,
            timers=Timers(),
            data=DataSettings(),
            transport=Transport.UDP,
            transport_ipv6=False,
            max_packet_octets=1250,
            identity=identity,
            random_bytes=world.random_bytes,
            drops=self.drops,
        )
        self.session = Session(setup, world.now, world.unix_time)
        self._silent = is_server
        if not is_server:
            self.session.send_first_reset(Opcode.CONTROL_HARD_RESET_CLIENT_V2, world.now)

    def receive_datagrams(self, untrusted: Sequence[bytes], address: Address, now: float, unix_time: int) -> None:
        for packet in untrusted:
            if packet[0] >> 3 in DATA_OPCODES:
                continue
            if self._silent:
                self._silent = False
                self.session.send_first_reset(Opcode.CONTROL_HARD_RESET_SERVER_V2, now)
            self.session.receive_control(packet, now, unix_time)
        while self.session.happenings:
            if isinstance(self.session.happenings.pop(0), KeysExchanged):
                self._speak(self)

    def advance(self, now: float, unix_time: int) -> None:
        self.session.advance(now, unix_time)

    def next_timeout(self) -> float | None:
        due = self.session.next_timeout()
        return None if due is None else max(due, self._world.now)

    def datagrams_to_send(self) -> list[tuple[Outgoing, Address]]:
        return [(datagram, self._peer) for datagram in self.session.datagrams(self._world.now)]

    def packets_to_deliver(self) -> list[bytes | Rows]:
        return []

    def next_event(self) -> Event | None:
        return None


def fuzz_hostile_client(mutator: Mutator, trace: Trace) -> None:
    """A client with a good certificate talks to a server that has another client."""
    world = World(mutator.below(1 << 30))
    wild = mutator.chance(0.6)
    trace.what = f"hostile client, {'wild key message' if wild else 'wild texts and packets'}"
    server = add_server(world, server_settings(username_as_common_name=mutator.chance(0.3), auth_token_lifetime=60.0))
    genuine = add_client(world, client_settings(), _VICTIM)
    if not world.run(lambda: bool(events(genuine, Connected)), seconds=30):
        raise Violation("no connection before the hostile client came")
    identity = _wild_identity(mutator, trace) if wild else Identity("", _PROPER_INFO, lambda: ("", ""))
    world.add(
        Insider(world, is_server=False, identity=identity, peer=SERVER, speak=_speaker(mutator, trace, data=not wild)),
        MALLORY,
    )
    world.run(seconds=20)
    _look_at(server)
    exchange(world, genuine, server, range(10))


def fuzz_hostile_server(mutator: Mutator, trace: Trace) -> None:
    """A server with a good certificate talks to a client; the session must come to an end or go on, in finite time."""
    world = World(mutator.below(1 << 30))
    wild = mutator.chance(0.3)
    trace.what = f"hostile server, {'wild key message' if wild else 'wild texts and packets'}"
    identity = _wild_identity(mutator, trace) if wild else Identity("", "", lambda: ("", ""))
    speaker = _speaker(mutator, trace, data=not wild)
    world.add(Insider(world, is_server=True, identity=identity, peer=_VICTIM, speak=speaker), SERVER)
    client = world.add(ClientCore(client_settings(), SERVER, random_bytes=world.random_bytes), _VICTIM)
    client.core.start(world.now, world.unix_time)  # type: ignore[attr-defined]  # every core has it
    world.run(seconds=100)
    _look_at(client)


def _wild_identity(mutator: Mutator, trace: Trace) -> Identity:
    def text(seeds: tuple[bytes, ...]) -> str:
        octets = mutator.datagram(seeds)[:500] if mutator.chance(0.8) else mutator.pick(seeds)
        trace.note("key message", octets)
        return text_of(octets)

    secrets = (text((b"user", b"SESS")), text((b"SESS_ID_AT_" + b"A" * 80, b"password")))
    return Identity(text(corpus.OPTIONS_STRINGS), text(corpus.PEER_INFOS), lambda: secrets)


def _speaker(mutator: Mutator, trace: Trace, *, data: bool) -> Callable[[Insider], None]:
    """What an insider says once the keys are exchanged."""

    def speak(insider: Insider) -> None:
        session, now = insider.session, 0.0
        for number in range(_TEXTS):
            octets = mutator.pick(corpus.MESSAGES) if number == 0 else mutator.datagram(corpus.MESSAGES)
            trace.note("control message", octets)
            for text in octets[:2000].decode("utf-8", "replace").split("\0"):
                session.send_text(text, now)
        if not data:
            return
        session.agree(Negotiated(Cipher.AES_256_GCM, True, PeerId(mutator.below(2)), Compression.NONE))
        session.install_keys(session.primary)
        packets = [ip_packet("10.8.0.3", "10.8.0.1", 1), ip_packet("2001:db8:8::3", "2001:db8:8::1", 1)]
        wild = [mutator.datagram(packets) for _ in range(_TEXTS)]
        for packet in wild:
            trace.note("inner packet", packet)
        session.send_packets(wild, now)

    return speak


def _look_at(node: Node) -> None:
    size = len(state_of(node.core))
    if size > LARGEST_STATE:
        raise Violation(f"an insider made a core grow to {size} entries")

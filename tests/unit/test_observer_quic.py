"""QUIC's Initial packets, opened from outside: the RFCs' own, and conversations of aioquic's in every disorder."""

from __future__ import annotations

import datetime
import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from testbed.capture import pcapng
from testbed.observer import observe, tls
from testbed.observer.wire import quic
from testbed.observer.wire.assembler import Assembler
from testbed.observer.wire.quic_handshake import MOST_FAILURES, HandshakeMessage, QuicHandshake
from testbed.observer.wire.quic_keys import derive, open_packet

CLIENT_ID = bytes.fromhex("8394c8f03e515708")
# The server's Initial of RFC 9001 appendix A.3, and that of RFC 9369 appendix A.3.
SERVER_INITIAL_1 = (
    "cf000000010008f067a5502a4262b5004075c0d95a482cd0991cd25b0aac406a5816b6394100f37a1c69797554780bb38cc5"
    "a99f5ede4cf73c3ec2493a1839b3dbcba3f6ea46c5b7684df3548e7ddeb9c3bf9c73cc3f3bded74b562bfb19fb84022f8ef4"
    "cdd93795d77d06edbb7aaf2f58891850abbdca3d20398c276456cbc42158407dd074ee"
)
SERVER_INITIAL_2 = (
    "dc6b3343cf0008f067a5502a4262b5004075d92faaf16f05d8a4398c47089698baeea26b91eb761d9b89237bbf8726301791"
    "5358230035f7fd3945d88965cf17f9af6e16886c61bfc703106fbaf3cb4cfa52382dd16a393e42757507698075b2c984c707"
    "f0a0812d8cd5a6881eaf21ceda98f4bd23f6fe1a3e2c43edd9ce7ca84bed8521e2e140"
)
SERVER_INITIALS = {quic.VERSION_1: SERVER_INITIAL_1, quic.VERSION_2: SERVER_INITIAL_2}
SERVER_RANDOM = bytes.fromhex("eefce7f7b37ba1d1632e96677825ddf73988cfc79825df566dc5430b9a045a12")
Datagram = tuple[bool, bytes]


@pytest.mark.parametrize("version", SERVER_INITIALS)
def test_the_packets_of_the_rfcs_are_opened(version: int) -> None:
    datagram = bytes.fromhex(SERVER_INITIALS[version])
    (packet,) = quic.split_datagram(datagram)
    assert (packet.kind, packet.version, packet.source.hex()) == (quic.INITIAL, version, "f067a5502a4262b5")
    client, server = derive(version, CLIENT_ID)
    payload = open_packet(datagram, packet, server)
    assert payload is not None
    (piece,) = quic.crypto_pieces(payload)
    assert (piece.offset, piece.data[6:38]) == (0, SERVER_RANDOM)
    assert open_packet(datagram, packet, client) is None


def certificate() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name, day = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "quic.example")]), datetime.datetime(2026, 1, 1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 5, day, day + datetime.timedelta(days=9))
    return builder.sign(key, hashes.SHA256()), key


CERTIFICATE, KEY = certificate()


@dataclass
class Conversation:
    """A client and a server of aioquic's in memory, and every datagram that they exchange."""

    client_versions: list[int] = field(default_factory=lambda: [quic.VERSION_1])
    server_versions: list[int] = field(default_factory=lambda: [quic.VERSION_1, quic.VERSION_2])
    first_version: int = 0
    protocols: list[str] = field(default_factory=lambda: ["h3"])
    datagrams: list[Datagram] = field(default_factory=list)

    def hold(self) -> list[Datagram]:
        client = QuicConnection(
            configuration=QuicConfiguration(
                alpn_protocols=self.protocols,
                server_name="quic.example",
                verify_mode=ssl.CERT_NONE,
                supported_versions=self.client_versions,
                original_version=self.first_version or self.client_versions[0],
            )
        )
        server = QuicConnection(
            configuration=QuicConfiguration(
                is_client=False,
                alpn_protocols=self.protocols,
                certificate=CERTIFICATE,
                private_key=KEY,
                supported_versions=self.server_versions,
            ),
            original_destination_connection_id=client.original_destination_connection_id,
        )
        client.connect(("192.0.2.1", 443), now=0.0)
        ends = ((client, server, True), (server, client, False))
        for step in range(12):
            for sender, receiver, from_client in ends:
                for data, _ in sender.datagrams_to_send(now=step / 10):
                    self.datagrams.append((from_client, data))
                    receiver.receive_datagram(data, ("192.0.2.1", 443), now=step / 10)
        return self.datagrams


def read(datagrams: list[Datagram]) -> tuple[QuicHandshake, list[HandshakeMessage]]:
    handshake = QuicHandshake()
    return handshake, [message for from_client, data in datagrams for message in handshake.add(data, from_client)]


def server_names(messages: list[HandshakeMessage]) -> list[bytes | None]:
    hellos = [tls.parse_client_hello(message.body) for message in messages if message.type == tls.CLIENT_HELLO]
    return [hello.server_name if hello else None for hello in hellos]


@pytest.mark.parametrize("version", [quic.VERSION_1, quic.VERSION_2])
def test_a_conversation_tells_the_name_and_the_servers_choice(version: int) -> None:
    handshake, messages = read(Conversation([version]).hold())
    assert server_names(messages) == [b"quic.example"]
    assert [message.type for message in messages][:2] == [tls.CLIENT_HELLO, tls.SERVER_HELLO]
    assert {message.version for message in messages} == {version}
    assert handshake.over
    assert handshake.failures == 0


def test_a_version_agreed_on_in_passing_is_followed() -> None:
    conversation = Conversation([quic.VERSION_2, quic.VERSION_1], first_version=quic.VERSION_1)
    handshake, messages = read(conversation.hold())
    assert [(message.type, message.version) for message in messages][:2] == [(1, quic.VERSION_1), (2, quic.VERSION_2)]
    assert handshake.versions == {quic.VERSION_1, quic.VERSION_2}


def in_pieces(datagrams: list[Datagram]) -> list[Datagram]:
    """The client's first flight, a hello too long for one datagram."""
    first = [entry for entry in datagrams if entry[0]][:3]
    assert len([entry for entry in first if quic.split_datagram(entry[1])[0].kind == quic.INITIAL]) == 3
    return first


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0, 1), (2, 2, 0, 0, 1)])
def test_a_hello_over_several_datagrams_is_read_in_any_order_and_with_repetitions(order: tuple[int, ...]) -> None:
    first = in_pieces(Conversation(protocols=[f"protocol-{number:0200}" for number in range(12)]).hold())
    _, messages = read([first[index] for index in order])
    assert server_names(messages) == [b"quic.example"]


def test_a_hello_that_lacks_a_piece_is_not_made_up() -> None:
    first = in_pieces(Conversation(protocols=[f"protocol-{number:0200}" for number in range(12)]).hold())
    _, messages = read([first[0], first[2]])
    assert messages == []


@pytest.mark.parametrize("version", [quic.VERSION_1, quic.VERSION_2])
def test_the_name_in_a_hello_whose_end_was_lost_is_told_with_a_warning(version: int, tmp_path: Path) -> None:
    conversation = Conversation([version], protocols=[f"protocol-{number:0200}" for number in range(12)])
    ends = IP(src="10.1.0.1", dst="10.2.0.2") / UDP(sport=4000, dport=443)
    frames = [bytes(Ether() / ends / Raw(data)) for _, data in in_pieces(conversation.hold())]
    blocks = [pcapng.build_section_header("test"), pcapng.build_interface("x", pcapng.LINKTYPE_ETHERNET)]
    blocks += [pcapng.build_packet(0, n, frame, len(frame)) for n, frame in enumerate(frames)]
    path = tmp_path / "x.pcapng"
    path.write_bytes(b"".join(blocks[:-1]))
    cut = observe(path)
    assert [(name.name, name.via, name.frame) for name in cut.names] == [("quic.example", "quic", 2)]
    assert cut.warnings == ("a QUIC ClientHello is not in the capture to its end (frame 2)",)
    path.write_bytes(b"".join((*blocks[:3], blocks[4])))
    assert [(name.name, name.frame) for name in observe(path).names] == [("quic.example", 1)]
    path.write_bytes(b"".join(blocks))
    whole = observe(path)
    assert [name.name for name in whole.names] == ["quic.example"]
    assert not whole.warnings


def test_whoever_is_taken_for_the_client_it_is_told_by_what_opens() -> None:
    turned = [(not from_client, data) for from_client, data in Conversation().hold()]
    handshake, messages = read(turned)
    assert server_names(messages) == [b"quic.example"]
    assert handshake.client_side is False


def test_packets_in_one_datagram_are_told_apart() -> None:
    datagrams = Conversation().hold()
    kinds = [[packet.kind for packet in quic.split_datagram(data)] for _, data in datagrams]
    assert [quic.INITIAL, quic.HANDSHAKE] in kinds


def test_a_forged_initial_costs_a_bounded_number_of_attempts() -> None:
    (first, *_) = Conversation().hold()
    forged = bytearray(first[1])
    forged[quic.split_datagram(first[1])[0].end - 1] ^= 1
    handshake, messages = read([(True, bytes(forged))] * 100)
    assert messages == []
    assert handshake.failures == MOST_FAILURES
    assert handshake.over


def test_a_version_negotiation_is_read_and_zeros_are_none() -> None:
    negotiation = b"\xca\0\0\0\0\4abcd\4wxyz" + bytes.fromhex("0000000100000002")
    handshake, _ = read([(False, negotiation)])
    assert handshake.offered == (1, 2)
    assert not quic.looks_like_long_header(b"\xc0" + bytes(60))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 1 << 32), st.integers(1, 30), st.floats(0, 1))
def test_any_damage_is_survived(seed: int, changes: int, keep: float) -> None:
    chance, handshake = random.Random(seed), QuicHandshake()
    for version, text in SERVER_INITIALS.items():
        damaged = bytearray(bytes.fromhex(text))[: max(1, int(len(text) / 2 * keep))]
        for _ in range(changes):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        handshake.add(bytes(damaged), bool(version & 1))
        list(quic.crypto_pieces(bytes(damaged)))


@given(
    st.binary(max_size=200), st.lists(st.tuples(st.integers(0, 200), st.integers(1, 60)), max_size=40), st.booleans()
)
def test_pieces_are_put_in_order_as_the_slow_model_does(text: bytes, cuts: list[tuple[int, int]], whole: bool) -> None:
    assembler, known = Assembler(1 << 16), set()
    cuts = [*cuts, (0, 200)] if whole else cuts
    for at, size in cuts:
        piece = text[at : at + size]
        if piece:
            assembler.add(at, piece)
            known |= set(range(at, at + len(piece)))
    reached: Callable[[], int] = lambda: next(at for at in range(len(text) + 1) if at not in known)  # noqa: E731
    assert bytes(assembler.data) == text[: reached()]


def test_what_waits_behind_a_hole_is_bounded() -> None:
    assembler = Assembler(1000)
    for at in range(1, 100_000, 7):
        assembler.add(at, b"x" * 50)
    assert assembler.waiting_octets <= 1000
    assembler.add(0, b"y" * 5000)
    assert len(assembler.data) == 1000

"""The server name in QUIC's first packets, however the client spreads it; and nothing hostile gets further."""

from __future__ import annotations

from itertools import permutations

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.crypto import CryptoPair
from hypothesis import given
from hypothesis import strategies as st

from testbed.services.quic_hello import DATAGRAMS, HelloReader

CONNECTION_ID = bytes(range(8))
VERSION = 1
LONG_NAME = f"{'a' * 60}.{'b' * 60}.{'c' * 60}.example"


def hello(name: str) -> bytes:
    """The ClientHello of the library's own client, read out of its first flight by the reader that is tested."""
    client = QuicConnection(configuration=QuicConfiguration(alpn_protocols=["h3"], server_name=name))
    client.connect(("192.0.2.1", 443), now=0.0)
    reader = HelloReader(client.original_destination_connection_id)
    for datagram, _ in client.datagrams_to_send(now=0.0):
        reader.read(datagram)
    assert reader.name == name
    return b"".join(piece for _, piece in sorted(reader.pieces.items()))


def variable(number: int) -> bytes:
    return (0x4000 | number).to_bytes(2, "big")


def crypto(offset: int, piece: bytes) -> bytes:
    return b"\x06" + variable(offset) + variable(len(piece)) + piece


def initial(frames: bytes, number: int = 0) -> bytes:
    """One Initial packet of a client, protected with the keys that follow from the connection id."""
    payload = frames + bytes(max(0, 64 - len(frames)))
    length = variable(2 + len(payload) + 16)
    header = bytes([0xC1]) + VERSION.to_bytes(4, "big") + b"\x08" + CONNECTION_ID + b"\x00\x00" + length
    keys = CryptoPair()
    keys.setup_initial(cid=CONNECTION_ID, is_client=True, version=VERSION)
    return keys.encrypt_packet(header + number.to_bytes(2, "big"), payload, number)


def pieces_of(message: bytes, count: int) -> list[tuple[int, bytes]]:
    size = -(-len(message) // count)
    return [(start, message[start : start + size]) for start in range(0, len(message), size)]


@pytest.mark.parametrize("name", ["www.example.com", LONG_NAME])
def test_the_pieces_of_a_hello_are_put_together_in_whatever_order_they_come(name: str) -> None:
    pieces = pieces_of(hello(name), 3)
    for order in permutations(pieces):
        reader = HelloReader(CONNECTION_ID)
        for number, (offset, piece) in enumerate(order):
            assert not reader.done
            reader.read(initial(b"\x01" + crypto(offset, piece), number))
        assert (reader.name, reader.done) == (name, True)


def test_pieces_may_overlap_and_share_a_packet_or_a_datagram_with_others() -> None:
    message = hello("www.example.com")
    first, second = message[:150], message[100:]
    acknowledgement = b"\x02\x00\x00\x00\x00"
    reader = HelloReader(CONNECTION_ID)
    reader.read(initial(crypto(100, second) + acknowledgement + crypto(0, first)))
    assert reader.name == "www.example.com"
    reader = HelloReader(CONNECTION_ID)
    reader.read(initial(crypto(0, first)) + initial(crypto(100, second), 1) + bytes(40))
    assert reader.name == "www.example.com"


def test_a_hello_that_never_ends_is_given_up() -> None:
    reader = HelloReader(CONNECTION_ID)
    for number in range(DATAGRAMS):
        assert not reader.done
        reader.read(initial(crypto(0, b"\x01\x00\xff\xff"), number))
    assert (reader.name, reader.done) == (None, True)


def test_a_hello_without_a_name_is_a_hello() -> None:
    client = QuicConnection(configuration=QuicConfiguration(alpn_protocols=["h3"], server_name="192.0.2.1"))
    client.connect(("192.0.2.1", 443), now=0.0)
    reader = HelloReader(client.original_destination_connection_id)
    for datagram, _ in client.datagrams_to_send(now=0.0):
        reader.read(datagram)
    assert (reader.name, reader.done) == (None, True)


@given(st.binary(max_size=200))
def test_octets_that_are_no_packet_change_nothing(untrusted: bytes) -> None:
    reader = HelloReader(CONNECTION_ID)
    reader.read(untrusted)
    assert (reader.name, reader.pieces) == (None, {})


@given(st.binary(max_size=120))
def test_a_packet_of_any_frames_is_survived(frames: bytes) -> None:
    reader = HelloReader(CONNECTION_ID)
    reader.read(initial(frames))
    reader.read(initial(crypto(0, frames), 1))
    assert reader.datagrams <= 2

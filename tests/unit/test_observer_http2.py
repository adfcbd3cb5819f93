"""Clear HTTP/2 read from outside: what the h2 library writes comes back, and what is damaged is borne."""

from __future__ import annotations

import gzip
import random
import tracemalloc
from functools import cache

import brotli
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.observer.wire import codings, http2

LIMIT = 1 << 20
REQUEST = [(":method", "GET"), (":scheme", "http"), (":authority", "www.example.com"), (":path", "/one")]
BODY = b"a body with token-1a1a, " * 300


def client() -> H2Connection:
    connection = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    connection.initiate_connection()
    return connection


def read(octets: bytes, limit: int = LIMIT) -> http2.Direction:
    return http2.parse_direction(octets, len(http2.PREFACE), limit)


def test_streams_that_take_turns_are_told_apart() -> None:
    connection = client()
    connection.send_headers(1, [*REQUEST, ("cookie", "a=1"), ("cookie", "b=2")])
    connection.send_headers(3, [*REQUEST[:3], (":path", "/three")])
    for number in range(10):
        connection.send_data(1, b"one%d." % number, end_stream=number == 9)
        connection.send_data(3, b"three%d." % number, pad_length=number, end_stream=number == 9)
    octets = connection.data_to_send()
    assert http2.has_preface(octets)
    direction = read(octets)
    assert direction.failed == ""
    assert direction.end == len(octets)
    one, three = direction.messages
    assert (one.value(b":path"), three.value(b":path")) == (b"/one", b"/three")
    assert [value for name, value in one.blocks[0].fields if name == b"cookie"] == [b"a=1", b"b=2"]
    assert one.body == b"".join(b"one%d." % number for number in range(10))
    assert three.body == b"".join(b"three%d." % number for number in range(10))
    assert one.ended
    assert one.altered  # other frames stand between its octets


def test_headers_are_read_over_continuations_and_trailers_belong_to_their_message() -> None:
    connection = client()
    connection.send_headers(1, [*REQUEST, ("x-long", "0123456789" * 3_000)])
    connection.send_data(1, b"body")
    connection.send_headers(1, [("x-sum", "token-2b2b")], end_stream=True)
    (message,) = read(connection.data_to_send()).messages
    assert len(message.value(b"x-long")) == 30_000
    assert message.blocks[0].continued
    assert message.blocks[1].fields == ((b"x-sum", b"token-2b2b"),)
    assert (message.body, message.ended) == (b"body", True)


@pytest.mark.parametrize(
    ("coding", "octets"),
    [
        ("gzip", gzip.compress(BODY)),
        ("br", brotli.compress(BODY)),
        ("br, gzip", gzip.compress(brotli.compress(BODY))),
        ("identity", BODY),
        ("zstd", BODY),  # unknown: left as it is
    ],
    ids=["gzip", "br", "both", "none", "unknown"],
)
def test_bodies_are_decoded(coding: str, octets: bytes) -> None:
    connection = client()
    connection.send_headers(1, [*REQUEST, ("content-encoding", coding)])
    for at in range(0, len(octets), 50):
        connection.send_data(1, octets[at : at + 50], end_stream=at + 50 >= len(octets))
    (message,) = read(connection.data_to_send()).messages
    assert message.body == BODY


@pytest.mark.parametrize("coding", [b"gzip", b"br"])
def test_a_body_never_grows_beyond_the_limit(coding: bytes) -> None:
    bomb = bytes(30 << 20)
    small = gzip.compress(bomb) if coding == b"gzip" else brotli.compress(bomb, quality=4)
    assert len(small) < 100_000
    tracemalloc.start()
    try:
        assert codings.decode(small, [coding], 5000) == bytes(5000)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20  # nor does it do so in between
    finally:
        tracemalloc.stop()
    assert len(codings.decode(small, [coding] * 9, 5000)) <= 5000


def test_a_stream_that_begins_in_the_middle_is_not_guessed_at() -> None:
    connection = client()
    connection.send_headers(1, REQUEST, end_stream=True)
    connection.data_to_send()
    connection.send_headers(3, REQUEST, end_stream=True)  # refers to what the former one said
    direction = http2.parse_direction(connection.data_to_send(), 0, LIMIT)
    assert direction.messages == []
    assert "decompressed" in direction.failed


def test_a_server_is_recognised_by_its_settings() -> None:
    server = H2Connection(H2Configuration(client_side=False))
    server.initiate_connection()
    assert http2.looks_like_server(server.data_to_send())
    assert not http2.looks_like_server(b"HTTP/1.1 200 OK\r\n\r\n")


@cache
def some_of_everything() -> bytes:
    connection = client()
    connection.send_headers(1, [*REQUEST, ("content-encoding", "br"), ("x-long", "\x01" * 6_000)])  # long when coded
    connection.send_data(1, brotli.compress(BODY), pad_length=9, end_stream=True)
    connection.send_headers(3, REQUEST, end_stream=True)
    octets = connection.data_to_send()
    assert b"\x09\x04\0\0\0\x01" in octets  # a continuation
    return octets


@settings(deadline=None)
@given(st.integers(0, 1 << 32), st.integers(0, 30), st.floats(0, 1))
def test_any_damage_is_survived(seed: int, changes: int, keep: float) -> None:
    chance, octets = random.Random(seed), bytearray(some_of_everything())
    for _ in range(changes):
        octets[chance.randrange(len(octets))] = chance.randrange(256)
    direction = read(bytes(octets[: int(len(octets) * keep)]), 3000)
    assert all(len(message.body) <= 3000 for message in direction.messages)


@given(st.binary(max_size=300))
def test_any_octets_are_borne(octets: bytes) -> None:
    http2.parse_direction(octets, 0, LIMIT)
    http2.looks_like_server(octets)
    for coding in (b"br", b"gzip", b"deflate", b"?"):
        assert len(codings.decode(octets, [coding], 1000)) <= max(1000, len(octets))

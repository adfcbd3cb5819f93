"""WebSocket in clear: masked, in pieces, compressed, cut off; crafted by hand, for its octets are told by the RFCs."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.facts import Kind
from testbed.observer import Limits, observe
from testbed.observer.wire import websocket
from tests.unit.test_observer_conversations import request, seen, tcp, values

ASKED = request("/chat", more="Connection: Upgrade\r\nUpgrade: websocket\r\n")
AGREED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n"
MASK = b"\x37\xfa\x21\x3d"
FIN, COMPRESSED = 0x80, 0x40


def frame(payload: bytes, first: int = FIN | websocket.TEXT, mask: bytes = MASK) -> bytes:
    size = len(payload)
    length = bytes((size,)) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
    masked = bytes(octet ^ mask[at % 4] for at, octet in enumerate(payload)) if mask else payload
    return bytes((first, length[0] | 0x80 * bool(mask))) + length[1:] + mask + masked


def deflated(*texts: bytes) -> list[bytes]:
    """Each with the window of those before it, without its end."""
    window = zlib.compressobj(wbits=-15)
    return [(window.compress(text) + window.flush(zlib.Z_SYNC_FLUSH)).removesuffix(websocket.TAIL) for text in texts]


def test_the_rfcs_own_masked_frame_says_hello() -> None:
    (message,) = websocket.read_messages(bytes.fromhex("818537fa213d7f9f4d5158"), 100)
    assert message.data == b"Hello"


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_any_mask_is_undone(payload: bytes, mask: bytes) -> None:
    (found,) = websocket.read_frames(frame(payload, mask=mask))
    assert found.payload == payload


@given(st.binary(max_size=200))
def test_any_octets_are_survived(data: bytes) -> None:
    assert all(found.end <= len(data) for found in websocket.read_frames(data))
    assert all(len(message.data) <= 200 for message in websocket.read_messages(data, 50))


def test_both_ends_are_read_masked_in_pieces_and_around_a_ping(tmp_path: Path) -> None:
    pieces = frame(b"a secret in ", websocket.TEXT) + frame(b"ping", FIN | websocket.PING)
    said = [(True, ASKED), (False, AGREED), (True, pieces), (True, frame(b"two pieces", FIN)),
            (False, frame(b"the answer to it", mask=b""))]  # fmt: skip
    observation = seen(tmp_path, tcp(said))
    assert values(observation, Kind.PAYLOAD) == ["ping", "a secret in two pieces", "the answer to it"]
    assert [s.frames for s in observation.sightings if s.kind == Kind.PAYLOAD] == [(5,), (6,), (7,)]
    assert [stream.data for stream in observation.streams if stream.layer == "http-body"] == [
        b"ping",
        b"a secret in two pieces",
    ]
    assert observation.complete


def test_compressed_messages_go_on_with_the_window_of_those_before(tmp_path: Path) -> None:
    texts = [b"the same words again and again", b"the same words again and again, once more"]
    first, second = (frame(octets, FIN | COMPRESSED | websocket.TEXT) for octets in deflated(*texts))
    said = [(True, ASKED), (False, AGREED), (True, first + second[:7]), (True, second[7:])]
    assert values(seen(tmp_path, tcp(said)), Kind.PAYLOAD) == [text.decode() for text in texts]


@pytest.mark.parametrize(
    "broken", [frame(b"x" * 200)[:-1], b"\xf1\x81" + MASK + b"x", frame(b"\xff" * 30, FIN | COMPRESSED | 1)]
)
def test_frames_that_cannot_be_read_to_their_end_leave_the_answer_incomplete(broken: bytes, tmp_path: Path) -> None:
    said = [(True, ASKED), (False, AGREED), (True, frame(b"a word first") + broken)]
    observation = seen(tmp_path, tcp(said))
    assert values(observation, Kind.PAYLOAD) == ["a word first"]
    assert not observation.complete


def test_what_a_compressed_message_says_is_bounded_and_the_limit_is_told(tmp_path: Path) -> None:
    (bomb, after) = (frame(octets, FIN | COMPRESSED | websocket.TEXT) for octets in deflated(b"x" * 5000, b"after"))
    seen(tmp_path, tcp([(True, ASKED), (False, AGREED), (True, bomb + after)]))
    observation = observe(tmp_path / "x.pcapng", limits=Limits(decoded_octets=1000))
    assert values(observation, Kind.PAYLOAD) == ["x" * 1000]
    assert not observation.complete


def test_a_message_that_ends_its_compression_leaves_those_behind_it_readable(tmp_path: Path) -> None:
    compressors = (zlib.compressobj(wbits=-15), zlib.compressobj(wbits=-15))
    texts = (b"the first one", b"and the second")
    octets = [one.compress(text) + one.flush() + b"\0" for one, text in zip(compressors, texts, strict=True)]
    both = b"".join(frame(each, FIN | COMPRESSED | websocket.TEXT) for each in octets)
    found = seen(tmp_path, tcp([(True, ASKED), (False, AGREED), (True, both)]))
    assert values(found, Kind.PAYLOAD) == [text.decode() for text in texts]


def test_what_follows_a_refused_upgrade_is_no_websocket(tmp_path: Path) -> None:
    said = [(True, ASKED + b"some text that follows"), (False, b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n")]
    observation = seen(tmp_path, tcp(said))
    assert values(observation, Kind.PAYLOAD) == ["some text that follows"]
    assert observation.complete

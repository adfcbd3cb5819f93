"""Every parser of the tunnel takes any octets without harm, and build and parse are each other's inverse."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpn.push_parser import BadPush, PushCollector, build_push_replies, parse_options, split_words
from vpn.wire.control import ControlBody
from vpn.wire.early import EarlyFlags
from vpn.wire.key_method import KeyMessage
from vpn.wire.message import AuthFailure, RestartRequest, build_message, parse_messages
from vpn.wire.occ import options_cipher, parse_occ
from vpn.wire.packet import ControlHeader, KeyId, Malformed, MessageId, Opcode, SessionId, parse_opcode
from vpn.wire.peer_info import PeerInfo
from vpn.wire.stream import MAX_PACKET_OCTETS, Deframer, frame
from vpn.wire.wrapped import ReplayStamp, TlsAuthPacket, TlsCryptPacket, WrappedClientKey, split_client_key

CONTROL = [opcode for opcode in Opcode if opcode not in (Opcode.DATA_V1, Opcode.DATA_V2)]
u32 = st.integers(0, 0xFFFFFFFF)
session_ids = st.binary(min_size=8, max_size=8).filter(any).map(SessionId)
headers = st.builds(ControlHeader, st.sampled_from(CONTROL), st.integers(0, 7).map(KeyId), session_ids)
stamps = st.builds(ReplayStamp, u32, u32)
words = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=",\"'\\"), min_size=1)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[ControlBody, Opcode]:
    opcode = draw(st.sampled_from(CONTROL))
    fewest = 1 if opcode is Opcode.ACK_V1 else 0
    acks = tuple(MessageId(number) for number in draw(st.lists(u32, min_size=fewest, max_size=8)))
    session_id = draw(session_ids) if acks else None
    if opcode is Opcode.ACK_V1:
        return ControlBody(acks, session_id), opcode
    return ControlBody(acks, session_id, MessageId(draw(u32)), draw(st.binary(max_size=200))), opcode


@given(bodies())
def test_control_bodies_survive_build_and_parse(case: tuple[ControlBody, Opcode]) -> None:
    body, opcode = case
    assert ControlBody.parse(body.build(), opcode) == body


@given(headers)
def test_headers_survive_build_and_parse(header: ControlHeader) -> None:
    assert ControlHeader.parse(header.build()) == header


@given(headers, st.sampled_from([20, 32, 48, 64]), stamps, st.binary(max_size=99), st.data())
def test_tls_auth_packets_survive_build_and_parse(
    header: ControlHeader, octets: int, stamp: ReplayStamp, body: bytes, data: st.DataObject
) -> None:
    hmac = data.draw(st.binary(min_size=octets, max_size=octets))
    packet = TlsAuthPacket(header, hmac, stamp, body)
    assert TlsAuthPacket.parse(packet.build(), octets) == packet


@given(headers, stamps, st.binary(min_size=32, max_size=32), st.binary(max_size=99))
def test_tls_crypt_packets_survive_build_and_parse(
    header: ControlHeader, stamp: ReplayStamp, tag: bytes, ciphertext: bytes
) -> None:
    packet = TlsCryptPacket(header, stamp, tag, ciphertext)
    assert TlsCryptPacket.parse(packet.build()) == packet


@given(st.binary(max_size=300), st.binary(min_size=32, max_size=32), st.binary(max_size=900))
def test_a_client_key_is_found_behind_any_packet(packet: bytes, tag: bytes, ciphertext: bytes) -> None:
    wrapped = WrappedClientKey(tag, ciphertext)
    assert WrappedClientKey.parse(wrapped.build()) == wrapped
    assert split_client_key(packet + wrapped.build()) == (packet, wrapped.build())


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=80)


@given(st.booleans(), st.binary(min_size=112, max_size=112), texts, texts, texts, texts)
def test_key_messages_survive_build_and_parse(
    from_client: bool, randoms: bytes, options: str, username: str, password: str, peer_info: str
) -> None:
    secret = randoms[:48] if from_client else b""
    message = KeyMessage(secret, randoms[48:80], randoms[80:], options, username, password, peer_info)
    assert KeyMessage.parse(message.build(), from_client=from_client) == message


@given(st.booleans(), st.binary(max_size=400))
def test_key_messages_from_any_octets_are_parsed_or_malformed(from_client: bool, untrusted: bytes) -> None:
    try:
        message = KeyMessage.parse(untrusted, from_client=from_client)
    except Malformed:
        return
    assert KeyMessage.parse(message.build(), from_client=from_client) == message


PARSERS: list[Callable[[bytes], object]] = [
    parse_opcode,
    ControlHeader.parse,
    TlsCryptPacket.parse,
    WrappedClientKey.parse,
    split_client_key,
    EarlyFlags.parse,
    ReplayStamp.parse,
    *(lambda octets, opcode=opcode: ControlBody.parse(octets, opcode) for opcode in CONTROL),
    *(lambda octets, size=size: TlsAuthPacket.parse(octets, size) for size in (20, 32, 64)),
    Deframer().feed,
]


@pytest.mark.parametrize("parser", PARSERS)
@given(untrusted=st.binary(max_size=120))
def test_any_octets_are_parsed_or_malformed(parser: Callable[[bytes], object], untrusted: bytes) -> None:
    with suppress(Malformed):
        parser(untrusted)


@given(st.binary(max_size=120), st.sampled_from(CONTROL))
def test_a_body_that_parses_builds_to_the_same_octets(untrusted: bytes, opcode: Opcode) -> None:
    try:
        body = ControlBody.parse(untrusted, opcode)
    except Malformed:
        return
    assert body.build() == untrusted


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8), st.data())
def test_a_stream_cut_anywhere_gives_the_packets_that_went_in(packets: list[bytes], data: st.DataObject) -> None:
    stream, deframer, got = b"".join(map(frame, packets)), Deframer(), []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        got += deframer.feed(stream[:cut])
        stream = stream[cut:]
    assert got == packets


@pytest.mark.parametrize("length", [0, MAX_PACKET_OCTETS + 1, 0xFFFF])
def test_a_stream_with_a_length_out_of_range_is_given_up(length: int) -> None:
    with pytest.raises(Malformed):
        Deframer().feed(length.to_bytes(2, "big"))


@given(st.lists(words, max_size=6))
def test_messages_survive_build_and_parse(messages: list[str]) -> None:
    assert parse_messages(b"".join(map(build_message, messages))) == messages


@given(st.binary(max_size=200))
def test_messages_from_any_octets_are_printable_text(record: bytes) -> None:
    assert all(text.isprintable() and text for text in parse_messages(record))


@given(st.text(max_size=60))
def test_readers_of_text_take_any_text(text: str) -> None:
    AuthFailure.parse(text)
    RestartRequest.parse(text)
    options_cipher(text)
    split_words(text)
    info = PeerInfo.parse(text)
    assert (info.protocol, info.mtu, info.ciphers) is not None


@given(st.binary(max_size=40))
def test_option_consistency_messages_take_any_octets(untrusted: bytes) -> None:
    parse_occ(untrusted)


@given(
    words.filter(lambda word: not word.startswith(("TEMP", "["))),
    st.booleans(),
    st.sampled_from(["", "no", "addr", "remote"]),
)
def test_failures_survive_build_and_parse(reason: str, temporary: bool, advance: str) -> None:
    failure = AuthFailure(reason, temporary, 5.0 if temporary else None, advance if temporary else "")
    assert AuthFailure.parse(failure.build()) == failure


@given(words.filter(lambda word: not word.startswith("[")), st.booleans(), st.booleans())
def test_restarts_survive_build_and_parse(text: str, keep: bool, advance: bool) -> None:
    request = RestartRequest(text, keep, advance)
    assert RestartRequest.parse(request.build()) == request


options = st.lists(words.map(lambda word: f"route-x {word[:200]}"), max_size=200)


@given(options)
def test_options_cut_into_messages_come_back_in_order(pushed: list[str]) -> None:
    replies = build_push_replies(pushed)
    assert all(len(reply) < 1024 for reply in replies)
    collector = PushCollector.empty()
    for number, reply in enumerate(replies):
        assert collector.is_complete is False, number
        collector.add(reply)
    assert collector.is_complete
    assert collector.options == pushed


NAMES = """
topology ifconfig ifconfig-ipv6 route route-ipv6 redirect-gateway dhcp-option dns ping peer-id cipher tun-mtu
protocol-flags key-derivation compress comp-lzo auth-token route-gateway explicit-exit-notify unknown
"""
names = st.sampled_from(NAMES.split())
arguments = st.one_of(
    words,
    st.sampled_from(
        ["10.8.0.1", "255.255.255.0", "2001:db8::1/64", "subnet", "server", "1", "address", "DNS", "[::1]:53"]
    ),
)


@given(
    st.lists(st.builds(lambda name, rest: " ".join([name, *rest]), names, st.lists(arguments, max_size=4)), max_size=6)
)
def test_any_pushed_options_are_understood_or_refused(pushed: list[str]) -> None:
    with suppress(BadPush):
        parse_options(pushed)

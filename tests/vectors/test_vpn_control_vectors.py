"""Every recorded control packet parses, builds, unwraps and wraps to what two independent programs made of it."""

from __future__ import annotations

import pytest

from tests.vectors import recordings
from tests.vectors.recordings import Recorded
from vpn.crypto.client_key import unwrap_client_key, wrap_client_key
from vpn.crypto.static_key import split_key
from vpn.crypto.wrapping import NotAuthentic, PlainWrapper, Replayed, TlsAuthWrapper, TlsCryptWrapper, Wrapper
from vpn.settings import KeyDirection
from vpn.wire.control import ControlBody
from vpn.wire.early import EarlyFlags
from vpn.wire.packet import WITH_CLIENT_KEY, ControlHeader, Opcode
from vpn.wire.wrapped import split_client_key


def without_client_key(packet: Recorded) -> bytes:
    if packet.decoded["opcode"] in WITH_CLIENT_KEY:
        return split_client_key(packet.octets)[0]
    return packet.octets


def make_wrapper(packet: Recorded, *, sends: bool) -> Wrapper:
    """The wrapper of the packet's sender (about to send it) or of its receiver."""
    is_client = packet.from_client == sends
    stamp = packet.decoded.get("replay_packet_id", 1) - 1
    time = packet.decoded.get("replay_time", 0)
    recording = recordings.load(packet.name)
    if packet.decoded["key_id"] > 0 and "dynamic_tls_crypt" in recording and "tag" in packet.decoded:
        return TlsCryptWrapper(recordings.dynamic_keys(packet.name, is_client), time, stamp)
    if "tag" in packet.decoded:
        return TlsCryptWrapper(recordings.wrapping_keys(packet.name, is_client), time, stamp)
    if "hmac" in packet.decoded:
        keys = recordings.wrapping_keys(packet.name, is_client)
        return TlsAuthWrapper(keys, recordings.tls_auth_digest(packet.name), time, stamp)
    return PlainWrapper()


@pytest.mark.parametrize("name", recordings.TLS_MODE)
def test_recorded_control_packets_unwrap_to_the_recorded_body(name: str) -> None:
    seen = 0
    for packet in recordings.control_packets(name):
        unwrapped = make_wrapper(packet, sends=False).unwrap(without_client_key(packet), 0.0)
        body = ControlBody.parse(unwrapped.body, unwrapped.header.opcode)
        recorded = packet.decoded
        assert unwrapped.header.session_id.hex() == recorded["session_id"]
        assert list(body.acks) == recorded["acks"]
        assert body.message_id == recorded.get("message_packet_id")
        assert body.payload.hex() == recorded.get("payload", "")
        if "control_body" in recorded:
            assert unwrapped.body.hex() == recorded["control_body"]
        seen += 1
    assert seen >= 6


@pytest.mark.parametrize("name", recordings.TLS_MODE)
def test_wrapping_a_recorded_body_gives_the_recorded_octets(name: str) -> None:
    for packet in recordings.control_packets(name):
        plain = make_wrapper(packet, sends=False).open_first(without_client_key(packet))
        body = ControlBody.parse(plain.body, plain.header.opcode).build()
        assert make_wrapper(packet, sends=True).wrap(plain.header, body) == without_client_key(packet)


@pytest.mark.parametrize("name", recordings.WRAPPED)
def test_a_recorded_packet_with_one_bit_changed_is_not_authentic(name: str) -> None:
    for packet in recordings.control_packets(name):
        good = without_client_key(packet)
        if isinstance(make_wrapper(packet, sends=False), PlainWrapper):
            continue
        for position in (1, 9, len(good) // 2, len(good) - 1):
            forged = bytearray(good)
            forged[position] ^= 0x10
            with pytest.raises(NotAuthentic):
                make_wrapper(packet, sends=False).unwrap(bytes(forged), 0.0)


@pytest.mark.parametrize("name", recordings.WRAPPED)
def test_a_recorded_packet_is_accepted_once(name: str) -> None:
    packet = next(packet for packet in recordings.control_packets(name) if "replay_packet_id" in packet.decoded)
    wrapper = make_wrapper(packet, sends=False)
    wrapper.unwrap(without_client_key(packet), 0.0)
    with pytest.raises(Replayed):
        wrapper.unwrap(without_client_key(packet), 0.0)


@pytest.mark.parametrize("name", ["udp-tlscryptv2-client-probe", "udp-tlscryptv2-server-probe"])
def test_the_recorded_client_key_unwraps_and_wraps_to_the_same_octets(name: str) -> None:
    wrap = recordings.load("udp-tlscryptv2-server-probe")["wrap"]
    server_key = bytes.fromhex(wrap["v2_server_key_128"])
    wrapped = bytes.fromhex(recordings.load(name)["wrap"]["wkc"])
    client = unwrap_client_key(wrapped, server_key)
    assert client.key.hex() == recordings.load(name)["wrap"]["key_hex_256"]
    assert wrap_client_key(client, server_key) == wrapped
    first = next(iter(recordings.control_packets(name)))
    assert split_client_key(first.octets)[1] == wrapped


def test_a_client_key_wrapped_by_another_server_is_not_authentic() -> None:
    wrap = recordings.load("udp-tlscryptv2-server-probe")["wrap"]
    with pytest.raises(NotAuthentic):
        unwrap_client_key(bytes.fromhex(wrap["wkc"]), bytes(128))


def test_the_real_server_asks_for_the_client_key_again_and_the_real_client_sends_it() -> None:
    name = "real-real-cryptv2"
    reset = next(packet for packet in recordings.control_packets(name) if packet.decoded["opcode"] == 8)
    payload = bytes.fromhex(reset.decoded["payload"])
    assert EarlyFlags.parse(payload).resend_client_key
    assert EarlyFlags.parse(payload).build() == payload
    opcodes = [packet.decoded["opcode"] for packet in recordings.control_packets(name)]
    assert opcodes.count(Opcode.CONTROL_WKC_V1) == 1


def test_a_header_builds_to_the_octets_it_was_parsed_from() -> None:
    for name in recordings.TLS_MODE:
        for packet in recordings.control_packets(name):
            assert ControlHeader.parse(packet.octets).build() == packet.octets[:9]


def test_the_halves_of_the_recorded_key_are_the_recorded_slices() -> None:
    wrap = recordings.load("udp-tlscrypt-client-probe")["wrap"]
    keys = split_key(bytes.fromhex(wrap["key_hex_256"]), KeyDirection.INVERSE)
    assert keys.send.cipher[:32].hex() == wrap["client_to_server"]["Ke"]
    assert keys.send.hmac[:32].hex() == wrap["client_to_server"]["Ka"]
    assert keys.receive.cipher[:32].hex() == wrap["server_to_client"]["Ke"]
    assert keys.receive.hmac[:32].hex() == wrap["server_to_client"]["Ka"]

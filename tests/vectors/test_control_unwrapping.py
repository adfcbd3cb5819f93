"""Control packets made readable, against recordings of exchanges with the real openvpn."""

from __future__ import annotations

import pytest

from testbed.ground_truth.control import RecordKeeper, bare, unwrap, without_hmac
from tests.vectors import recordings

CRYPTED = [name for name in recordings.WRAPPED if recordings.load(name)["wrap"]["mode"].startswith("tls-crypt")]
SHA1 = [
    name
    for name in recordings.WRAPPED
    if recordings.load(name)["wrap"]["mode"] == "tls-auth" and recordings.tls_auth_digest(name).value == "SHA1"
]
PLAIN = [name for name in recordings.TLS_MODE if recordings.load(name)["wrap"]["mode"] == "none"]
LATER_OPCODES = {10: 7, 11: 4}


def key(name: str) -> bytes:
    return bytes.fromhex(recordings.load(name)["wrap"]["key_hex_256"])


@pytest.mark.parametrize("name", CRYPTED)
def test_tls_crypt_is_taken_off_every_packet_of_the_first_key(name: str) -> None:
    packets = [packet for packet in recordings.control_packets(name) if packet.decoded["key_id"] == 0]
    assert packets
    for packet in packets:
        shown = unwrap(packet.octets, key(name), to_server=packet.from_client)
        assert shown is not None
        opcode = packet.decoded["opcode"]
        assert shown[0] == LATER_OPCODES.get(opcode, opcode) << 3
        assert shown[1:9].hex() == packet.decoded["session_id"]
        assert shown[9:].hex() == packet.decoded["control_body"]


@pytest.mark.parametrize("name", CRYPTED[:2])
def test_a_changed_packet_the_other_direction_and_another_key_give_nothing(name: str) -> None:
    packet = next(recordings.control_packets(name))
    assert unwrap(packet.octets, key(name), to_server=not packet.from_client) is None
    assert unwrap(packet.octets, bytes(256), to_server=packet.from_client) is None
    for at in (1, 10, 20, 50):
        changed = bytearray(packet.octets)
        changed[at] ^= 1
        assert unwrap(bytes(changed), key(name), to_server=packet.from_client) is None
    for end in range(50):
        assert unwrap(packet.octets[:end], key(name), to_server=packet.from_client) is None


@pytest.mark.parametrize("name", SHA1)
def test_tls_auth_is_cut_out(name: str) -> None:
    packets = [packet for packet in recordings.control_packets(name) if packet.decoded["key_id"] == 0]
    assert packets
    for packet in packets:
        shown = without_hmac(packet.octets)
        assert shown is not None
        assert shown[9:].hex() == packet.decoded["control_body"]


@pytest.mark.parametrize("name", PLAIN)
def test_each_record_is_whole_in_the_packet_that_ends_it_and_no_octet_is_lost(name: str) -> None:
    keepers = {True: RecordKeeper(), False: RecordKeeper()}
    streams = {True: b"", False: b""}
    sent = {True: b"", False: b""}
    known: set[tuple[bool, int, int]] = set()
    for packet in recordings.control_packets(name):
        shown = bare(packet.octets)
        if packet.decoded["key_id"]:  # of a renegotiation, with dynamic tls-crypt around it
            assert shown is None
            continue
        assert shown is not None
        aligned, _, _ = keepers[packet.from_client].aligned(shown)
        payload = bytes.fromhex(packet.decoded.get("payload") or "")
        if packet.decoded["opcode"] != 4:
            assert aligned == packet.octets
            continue
        message = (packet.from_client, packet.decoded["key_id"], packet.decoded["message_packet_id"])
        if message not in known:
            sent[packet.from_client] += payload
        known.add(message)
        records = aligned[len(packet.octets) - len(payload) :]
        streams[packet.from_client] += records
        while records:  # each begins and ends inside this packet
            end = 5 + int.from_bytes(records[3:5], "big")
            assert len(records) >= end
            records = records[end:]
    assert streams == sent

"""The map's own way to open data packets, against recordings of exchanges with the real openvpn."""

from __future__ import annotations

import pytest

from testbed.ground_truth.data_keys import StaticKeyOpener, TlsModeOpener, key_blocks
from testbed.ground_truth.keylog import exporter_secrets
from tests.vectors import recordings

LOGGED = [
    name
    for name in recordings.TLS_MODE
    if recordings.load(name).get("tls_keylog") and "tls12" not in name and "prf" not in name
]


def opener(name: str) -> TlsModeOpener:
    cipher, digest = recordings.data_cipher(name, 0)
    blocks = key_blocks(exporter_secrets("\n".join(recordings.load(name)["tls_keylog"])))
    return TlsModeOpener(cipher.value, blocks, digest.value.lower())


@pytest.mark.parametrize("name", LOGGED)
def test_every_recorded_data_packet_opens_with_the_keys_of_the_key_log(name: str) -> None:
    opening = opener(name)
    packets = list(recordings.data_packets(name))
    assert packets
    for packet in packets:
        opened = opening.open(packet.octets, to_server=packet.from_client)
        assert opened is not None
        assert opened.payload.hex() == packet.decoded["plaintext"]
        assert (opened.key_id, opened.packet_id) == (packet.decoded["key_id"], packet.decoded["packet_id"])


def test_renegotiated_keys_are_found_among_those_of_all_sessions() -> None:
    names = [name for name in LOGGED if "reneg" in name]
    assert names
    for name in names:
        assert len({packet.decoded["key_id"] for packet in recordings.data_packets(name)}) > 1


@pytest.mark.parametrize("name", LOGGED[:3])
def test_a_changed_packet_the_other_direction_and_other_keys_open_nothing(name: str) -> None:
    packet = next(recordings.data_packets(name))
    opening = opener(name)
    assert opening.open(packet.octets, to_server=not packet.from_client) is None
    for at in (0, 4, len(packet.octets) - 1):
        changed = bytearray(packet.octets)
        changed[at] ^= 1
        if at or packet.octets[0] >> 3 == 9:
            assert opening.open(bytes(changed), to_server=packet.from_client) is None
    stranger = TlsModeOpener("AES-256-GCM", key_blocks([bytes(48)]))
    assert stranger.open(packet.octets, to_server=packet.from_client) is None


def test_a_static_key_opens_what_the_real_program_sealed_with_it() -> None:
    name = "static-key-dir-aes256cbc-sha256"
    recording = recordings.load(name)
    opening = StaticKeyOpener(bytes.fromhex(recording["static_key"]))
    opened = [
        opening.open(bytes.fromhex(packet["hex"]), to_server=packet["dir"] == "probe>openvpn")
        for packet in recording["packets"]
    ]
    assert all(opened)
    assert {one.payload[:1] for one in opened if one} >= {b"\x45"}, "an IPv4 packet is among them"


@pytest.mark.parametrize("text", ["", "EXPORTER_SECRET", "EXPORTER_SECRET aa zz", "EXPORTER_SECRET aa 00ff", "# x y z"])
def test_a_key_log_without_usable_secrets_gives_none(text: str) -> None:
    assert exporter_secrets(text) == ()

"""Every recorded data packet opens to its recorded plaintext, and sealing that gives the recorded packet again."""

from __future__ import annotations

from typing import Any

import pytest

from tests.vectors import recordings
from vpn.crypto.replay import ReplayWindow, StampWindow
from vpn.crypto.static_key import split_key
from vpn.dataplane.cbc import CbcKey, CbcOpener, CbcSealer
from vpn.dataplane.cipher import AEAD_CIPHERS, AeadOpener, AeadSealer, Opener
from vpn.drops import Drop, Drops
from vpn.settings import Cipher, Digest, KeyDirection
from vpn.wire.occ import PING

# the first message of a real peer is long; these are the cases with traffic of each kind
STATIC = {"static-key-bidir-aes256cbc-sha1": Digest.SHA1, "static-key-dir-aes256cbc-sha256": Digest.SHA256}


def make_opener(packet: recordings.Recorded) -> Opener:
    key_id = packet.decoded["key_id"]
    cipher, digest = recordings.data_cipher(packet.name, key_id)
    half = recordings.data_key(packet.name, key_id, packet.from_client)
    if cipher in AEAD_CIPHERS:
        return AeadOpener(cipher, half, ReplayWindow())
    return CbcOpener(CbcKey(cipher, digest, half), ReplayWindow())


def opens_with_recorded_keys(packet: recordings.Recorded) -> bool:
    return "plaintext" in packet.decoded


@pytest.mark.parametrize("name", recordings.TLS_MODE)
def test_recorded_data_packets_open_to_the_recorded_plaintext(name: str) -> None:
    drops, seen = Drops(), 0
    for packet in filter(opens_with_recorded_keys, recordings.data_packets(name)):
        opened = make_opener(packet).open_batch([packet.octets], 0.0, drops)
        assert [plaintext.hex() for plaintext in opened] == [packet.decoded["plaintext"]]
        seen += 1
    assert seen >= 2
    assert drops.total == 0


@pytest.mark.parametrize("name", recordings.TLS_MODE)
def test_sealing_the_recorded_plaintext_gives_the_recorded_packet(name: str) -> None:
    for packet in filter(opens_with_recorded_keys, recordings.data_packets(name)):
        key_id = packet.decoded["key_id"]
        cipher, digest = recordings.data_cipher(name, key_id)
        half = recordings.data_key(name, key_id, packet.from_client)
        header = packet.octets[: 4 if packet.decoded["opcode"] == 9 else 1]
        sealer: AeadSealer | CbcSealer
        if cipher in AEAD_CIPHERS:
            sealer = AeadSealer(cipher, half, header)
        else:
            iv = bytes.fromhex(packet.decoded["iv"])
            sealer = CbcSealer(CbcKey(cipher, digest, half), header, lambda _octets, iv=iv: iv)  # type: ignore[misc]
        sealer.last_packet_id = packet.decoded["packet_id"] - 1
        assert sealer.seal_batch([bytes.fromhex(packet.decoded["plaintext"])]) == [packet.octets]


@pytest.mark.parametrize("name", recordings.TLS_MODE)
def test_a_recorded_data_packet_with_one_bit_changed_is_dropped_and_counted(name: str) -> None:
    packet = next(filter(opens_with_recorded_keys, recordings.data_packets(name)))
    cipher, _ = recordings.data_cipher(name, packet.decoded["key_id"])
    # the opcode's octet of DATA_V1, and any header of CBC, is not authenticated: a peer's quirk, not ours
    first = (1 if packet.decoded["opcode"] == 9 else 2) if cipher in AEAD_CIPHERS else 5
    for position in range(first, len(packet.octets)):
        forged = bytearray(packet.octets)
        forged[position] ^= 1
        drops = Drops()
        assert make_opener(packet).open_batch([bytes(forged)], 0.0, drops) == []
        assert drops[Drop.UNAUTHENTIC_DATA] == 1


@pytest.mark.parametrize("name", recordings.TLS_MODE)
def test_recorded_pings_are_the_known_octets(name: str) -> None:
    pings = [packet for packet in recordings.data_packets(name) if packet.decoded.get("meaning") == "ping"]
    assert all(packet.decoded["plaintext"] == PING.hex() for packet in pings)


def static_packets(name: str) -> list[dict[str, Any]]:
    return [packet for packet in recordings.load(name)["packets"] if "decoded" in packet]


@pytest.mark.parametrize("name", recordings.STATIC_MODE)
def test_recorded_static_key_packets_open_and_seal(name: str) -> None:
    recording = recordings.load(name)
    directed = "-dir-" in name
    keys = split_key(
        bytes.fromhex(recording["static_key"]), KeyDirection.NORMAL if directed else KeyDirection.BIDIRECTIONAL
    )
    key = CbcKey(Cipher.AES_256_CBC, STATIC[name], keys.send)
    opener, drops, seen = CbcOpener(key, StampWindow()), Drops(), 0
    for packet in static_packets(name):
        octets, decoded = bytes.fromhex(packet["hex"]), packet["decoded"]
        assert opener.open_batch([octets], 0.0, drops) == [bytes.fromhex(decoded["plaintext"])]
        iv = bytes.fromhex(decoded["iv"])
        sealer = CbcSealer(key, b"", lambda _octets, iv=iv: iv, decoded["packet_time"])  # type: ignore[misc]
        sealer.last_packet_id = decoded["packet_id"] - 1
        assert sealer.seal_batch([bytes.fromhex(decoded["plaintext"])]) == [octets]
        assert opener.open_batch([octets], 0.0, drops) == []
        seen += 1
    assert seen >= 2
    assert drops.by_reason() == {"REPLAYED_DATA": seen}

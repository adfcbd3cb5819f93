"""Reads the recorded exchanges of `data/` (provenance: README.md) into what the tests need."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vpn.crypto.static_key import DirectionKeys, KeyHalf, split_key
from vpn.settings import Cipher, Digest, KeyDirection

DATA = Path(__file__).parent / "data"
ALL = sorted(path.stem for path in DATA.glob("*.json"))
TLS_MODE = [name for name in ALL if name != "kdf" and not name.startswith("static-key")]
STATIC_MODE = [name for name in ALL if name.startswith("static-key")]
WRAPPED = [name for name in TLS_MODE if any(kind in name for kind in ("crypt", "auth"))]


@cache
def load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text())
    return content


@dataclass(frozen=True, slots=True)
class Recorded:
    """One packet. `from_client` says which way it went."""

    name: str
    number: int
    octets: bytes
    from_client: bool
    decoded: dict[str, Any]

    @property
    def is_data(self) -> bool:
        return self.decoded["opcode"] in (6, 9)


def packets(name: str) -> Iterator[Recorded]:
    for number, packet in enumerate(load(name)["packets"]):
        if "decoded" in packet:
            yield Recorded(name, number, bytes.fromhex(packet["hex"]), packet["dir"] == "c>s", packet["decoded"])


def control_packets(name: str) -> Iterator[Recorded]:
    return (packet for packet in packets(name) if not packet.is_data)


def data_packets(name: str) -> Iterator[Recorded]:
    return (packet for packet in packets(name) if packet.is_data)


def wrapping_keys(name: str, from_client: bool) -> DirectionKeys:
    """Keys of the sender of a tls-auth or tls-crypt packet."""
    recording = load(name)
    key = bytes.fromhex(recording["wrap"]["key_hex_256"])
    if "bidir" in name:
        return split_key(key, KeyDirection.BIDIRECTIONAL)
    return split_key(key, KeyDirection.INVERSE if from_client else KeyDirection.NORMAL)


def dynamic_keys(name: str, from_client: bool) -> DirectionKeys:
    key = bytes.fromhex(load(name)["dynamic_tls_crypt"]["key_after_xor_with_static"])
    return split_key(key, KeyDirection.INVERSE if from_client else KeyDirection.NORMAL)


def tls_auth_digest(name: str) -> Digest:
    return Digest.SHA256 if "auth256" in name or "sha256" in name else Digest.SHA1


def data_cipher(name: str, key_id: int) -> tuple[Cipher, Digest]:
    recording = load(name)
    if "data_keys" in recording:
        return Cipher(recording["data_keys"]["cipher"]), Digest.SHA1
    derivation = recording["sessions"][str(key_id)]["key_derivation"]
    return Cipher(derivation["cipher"]), Digest(derivation["auth"])


def data_key(name: str, key_id: int, from_client: bool) -> KeyHalf:
    """The key of one direction of the data channel."""
    recording = load(name)
    if "data_keys" in recording:
        keys, way = recording["data_keys"], "client_to_server" if from_client else "server_to_client"
        return KeyHalf(bytes.fromhex(keys[f"{way}_key"]), bytes.fromhex(keys[f"{way}_implicit_iv"]))
    key2 = bytes.fromhex(recording["sessions"][str(key_id)]["key_derivation"]["key2"])
    return split_key(key2, KeyDirection.NORMAL if from_client else KeyDirection.INVERSE).send

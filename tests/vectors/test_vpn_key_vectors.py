"""Key messages, key derivations and pushed options against the recorded handshakes."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import pytest

from tests.vectors import recordings
from vpn.crypto.derive import (
    DATA_KEYS_LABEL,
    DYNAMIC_TLS_CRYPT_LABEL,
    dynamic_tls_crypt_key,
    prf,
    prf_key_block,
)
from vpn.push_parser import PushCollector, parse_options
from vpn.settings import Cipher, Topology
from vpn.wire.key_method import KeyMessage
from vpn.wire.packet import SessionId
from vpn.wire.peer_info import PeerInfo

WITH_SESSIONS = [name for name in recordings.TLS_MODE if "sessions" in recordings.load(name)]
TLS_1_3_EXPORT = [
    name
    for name in WITH_SESSIONS
    if recordings.load(name)["sessions"]["0"]["key_derivation"]["method"] == "tls-ekm"
    and recordings.load(name)["sessions"]["0"]["tls_version"] == "TLSv1.3"
]


def message(session: dict[str, Any], end: str) -> KeyMessage:
    octets = bytes.fromhex(session[f"key_method_2_{end}"]["hex"])
    return KeyMessage.parse(octets, from_client=end == "client")


@pytest.mark.parametrize("name", WITH_SESSIONS)
@pytest.mark.parametrize("end", ["client", "server"])
def test_recorded_key_messages_parse_to_their_fields(name: str, end: str) -> None:
    for session in recordings.load(name)["sessions"].values():
        parsed, recorded = message(session, end), session[f"key_method_2_{end}"]
        assert parsed.pre_master.hex() == recorded.get("pre_master", "")
        assert parsed.random1.hex() == recorded["random1"]
        assert parsed.random2.hex() == recorded["random2"]
        assert parsed.options == recorded["options"]
        assert parsed.username == recorded["username"]
        assert parsed.password == recorded["password"]
        assert parsed.peer_info == recorded["peer_info"]
        assert PeerInfo.parse(parsed.peer_info).build() == parsed.peer_info
        assert KeyMessage.parse(parsed.build(), from_client=end == "client") == parsed


def test_key_messages_of_the_real_peer_build_to_the_recorded_octets() -> None:
    session = recordings.load("udp-tlscrypt-server-probe")["sessions"]["0"]
    octets = bytes.fromhex(session["key_method_2_client"]["hex"])
    assert KeyMessage.parse(octets, from_client=True).build() == octets


def test_the_prf_gives_the_computed_keys() -> None:
    for vector in recordings.load("kdf")["prf"]:
        secret, *randoms = (bytes.fromhex(vector[key]) for key in ("pre_master", "client_random1", "client_random2"))
        client = KeyMessage(secret, randoms[0], randoms[1])
        server = KeyMessage(b"", bytes.fromhex(vector["server_random1"]), bytes.fromhex(vector["server_random2"]))
        seed = b"OpenVPN master secret" + client.random1 + server.random1
        assert prf(client.pre_master, seed, 48).hex() == vector["master"]
        ids = (SessionId(bytes.fromhex(vector["client_sid"])), SessionId(bytes.fromhex(vector["server_sid"])))
        assert prf_key_block(client, server, *ids).hex() == vector["key2"]


def test_the_prf_gives_the_keys_of_the_recorded_session() -> None:
    recording = recordings.load("udp-plain-prf-client-probe")
    session = recording["sessions"]["0"]
    ids = [SessionId(bytes.fromhex(recording[f"{end}_session_id"])) for end in ("client", "server")]
    block = prf_key_block(message(session, "client"), message(session, "server"), *ids)
    assert block.hex() == session["key_derivation"]["key2"]


def export_tls_1_3(recording: dict[str, Any], label: bytes, octets: int, which: int = 0) -> bytes:
    """RFC 8446 section 7.5 from the key log: independent of the library that our code uses."""
    secrets = [line.split()[2] for line in recording["tls_keylog"] if line.startswith("EXPORTER_SECRET")]
    secret = bytes.fromhex(secrets[which])
    digest = "sha384" if len(secret) == 48 else "sha256"
    empty = hashlib.new(digest, b"").digest()
    derived = expand_label(secret, label, empty, len(secret), digest)
    return expand_label(derived, b"exporter", empty, octets, digest)


def expand_label(secret: bytes, label: bytes, context: bytes, octets: int, digest: str) -> bytes:
    label = b"tls13 " + label
    info = octets.to_bytes(2, "big") + bytes((len(label),)) + label + bytes((len(context),)) + context
    output, block, counter = b"", b"", 1
    while len(output) < octets:
        block = hmac.digest(secret, block + info + bytes((counter,)), digest)
        output, counter = output + block, counter + 1
    return output[:octets]


@pytest.mark.parametrize("name", TLS_1_3_EXPORT)
def test_our_labels_give_the_recorded_data_keys(name: str) -> None:
    recording = recordings.load(name)
    exported = export_tls_1_3(recording, DATA_KEYS_LABEL, 256)
    assert exported.hex() == recording["sessions"]["0"]["key_derivation"]["key2"]


@pytest.mark.parametrize("name", [name for name in TLS_1_3_EXPORT if "dynamic_tls_crypt" in recordings.load(name)])
def test_our_derivation_gives_the_recorded_key_of_renegotiations(name: str) -> None:
    recording = recordings.load(name)
    base = bytes.fromhex(recording["wrap"].get("key_hex_256", ""))
    key = dynamic_tls_crypt_key(export_tls_1_3(recording, DYNAMIC_TLS_CRYPT_LABEL, 256), base)
    assert key.hex() == recording["dynamic_tls_crypt"]["key_after_xor_with_static"]


@pytest.mark.parametrize(
    "name", [name for name in recordings.TLS_MODE if "push_reply_options" in recordings.load(name)]
)
def test_recorded_push_replies_are_understood_to_the_last_option(name: str) -> None:
    recorded = recordings.load(name)["push_reply_options"]
    texts = recorded if isinstance(recorded, list) else recorded.split(",")
    collector = PushCollector.empty()
    collector.add(",".join(["PUSH_REPLY", *[text for text in texts if text != "PUSH_REPLY"]]))
    options = parse_options(collector.options)
    assert collector.is_complete
    assert options.topology is Topology.SUBNET
    assert options.ifconfig is not None
    assert isinstance(options.cipher, Cipher)
    assert options.ignored == ()

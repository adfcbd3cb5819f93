"""OpenVPN's control channel in clear: real TLS handshakes in packets made by hand, in order, out of it, cut, forged.

Real programs are judged in tests/interop/test_tunnel_detection.py.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

from testbed.capture import pcapng
from testbed.facts import Kind, Sighting
from testbed.observer import Limits, Observation, observe
from testbed.observer.bulk import FEWEST_AT_ONCE
from testbed.observer.tls import parse_handshakes
from testbed.observer.tunnels import openvpn_control
from testbed.observer.tunnels.openvpn_control import ControlChannel, clear_body_at
from testbed.observer.tunnels.recognised import ClearControl

ETHERNET = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")  # else scapy asks the network for them
OURS, THEIRS = bytes(range(1, 9)), bytes(range(0x81, 0x89))
RESET_CLIENT, RESET_SERVER, CONTROL, ACK, DATA = 7, 8, 4, 5, 9
ENVELOPES = {"none": 0, "MD5": 24, "SHA1": 28, "SHA256": 40, "SHA512": 72}
Said = Sequence[tuple[bool, bytes]]  # whether the client sent it, and what
HANDSHAKE_OF_1_2 = [(Kind.TLS_CERTIFICATE, "vpn-server"), (Kind.TLS_CERTIFICATE, "vpn-client")]


@cache
def credentials(name: str) -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(9)).serial_number(7)
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.decode(), private.decode()


@cache
def flights(version: ssl.TLSVersion, folder: Path) -> tuple[tuple[bool, bytes], ...]:
    """What the two ends of a real handshake say in turn, each with a certificate."""
    ends = []
    for name, side in (("vpn-client", ssl.PROTOCOL_TLS_CLIENT), ("vpn-server", ssl.PROTOCOL_TLS_SERVER)):
        context = ssl.SSLContext(side)
        context.check_hostname = False
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # some systems' OpenSSL offers older ones
        context.maximum_version = version
        context.verify_mode = ssl.CERT_REQUIRED
        own, other = credentials(name), credentials("vpn-server" if name == "vpn-client" else "vpn-client")
        path = folder / f"{name}.pem"
        path.write_text("".join(own))
        context.load_cert_chain(path)
        context.load_verify_locations(cadata=other[0])
        into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
        ends.append((context.wrap_bio(into, out, server_side=side is ssl.PROTOCOL_TLS_SERVER), into, out))
    said = []
    for turn in range(4):
        (tls, _, out), (_, into, _) = ends[turn % 2], ends[1 - turn % 2]
        with suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        octets = out.read()
        into.write(octets)
        said.append((turn % 2 == 0, octets))
    return tuple((way, octets) for way, octets in said if octets)


def packet(
    opcode: int, from_client: bool, number: int, tls: bytes, wrapping: str, acks: int = 1, key: int = 0
) -> bytes:
    own, other = (OURS, THEIRS) if from_client else (THEIRS, OURS)
    envelope = random.Random(repr((opcode, from_client, number, acks))).randbytes(ENVELOPES[wrapping])
    body = bytes((acks,)) + bytes(4 * acks) + (other if acks else b"") + number.to_bytes(4, "big")
    return bytes((opcode << 3 | key,)) + own + envelope + body + tls


def resets(wrapping: str = "none") -> list[tuple[bool, bytes]]:
    return [
        (True, packet(RESET_CLIENT, True, 0, b"", wrapping, acks=0)),
        (False, packet(RESET_SERVER, False, 0, b"", wrapping)),
    ]


def session(folder: Path, version: ssl.TLSVersion, wrapping: str = "none", size: int = 400) -> list[tuple[bool, bytes]]:
    said = resets(wrapping)
    numbers = {True: 1, False: 1}
    for from_client, octets in flights(version, folder):
        for at in range(0, len(octets), size):
            piece = octets[at : at + size]
            said.append((from_client, packet(CONTROL, from_client, numbers[from_client], piece, wrapping)))
            numbers[from_client] += 1
    return said


def datagrams(said: Said, six: bool = False, port: int = 1194) -> list[Any]:
    lower = (IPv6(src="2001:db8::1", dst="2001:db8::2"), IPv6(src="2001:db8::2", dst="2001:db8::1"))
    there, back = lower if six else (IP(src="10.1.0.1", dst="10.2.0.2"), IP(src="10.2.0.2", dst="10.1.0.1"))
    ways = {
        True: ETHERNET / there / UDP(sport=40000, dport=port),
        False: ETHERNET / back / UDP(sport=port, dport=40000),
    }
    return [ways[from_client] / Raw(data) for from_client, data in said]


def stream(said: Said, six: bool = False, cut_at: int = 1400) -> list[Any]:
    """Over TCP; each packet in segments of so many octets."""
    frames, at = [], {True: 1000, False: 9000}
    pieces = [(True, b"", "S"), (False, b"", "SA")]
    for way, data in said:
        framed = len(data).to_bytes(2, "big") + data
        pieces += [(way, framed[begin : begin + cut_at], "PA") for begin in range(0, len(framed), cut_at)]
    for way, data, flags in pieces:
        (frame,) = datagrams([(way, b"x")], six)
        del frame[UDP].payload
        ports = (40000, 1194) if way else (1194, 40000)
        lower = frame.copy()
        lower[UDP].underlayer.remove_payload()
        tcp = TCP(sport=ports[0], dport=ports[1], seq=at[way], ack=at[not way], flags=flags)
        frames.append(lower / tcp / Raw(data) if data else lower / tcp)
        at[way] += len(data) + ("S" in flags)
    return frames


def seen(folder: Path, frames: Sequence[Any], **how: Any) -> Observation:
    blocks = [pcapng.build_section_header("test"), pcapng.build_interface("x", pcapng.LINKTYPE_ETHERNET)]
    for index, frame in enumerate(frames):
        data = bytes(frame)
        blocks.append(pcapng.build_packet(0, 1_700_000_000_000_000_000 + index * 1_000_000, data, len(data)))
    path = folder / "x.pcapng"
    path.write_bytes(b"".join(blocks))
    return observe(path, **how)


def told(found: Observation) -> list[tuple[Kind, str]]:
    return [(sighting.kind, sighting.value) for sighting in inside(found)]


def inside(found: Observation) -> Iterator[Sighting]:
    return (sighting for sighting in found.sightings if sighting.via == "tls in openvpn")


def hints(found: Observation) -> dict[str, list[str]]:
    by_name: dict[str, list[str]] = {}
    for hint in found.hints:
        if "OpenVPN's control channel" in hint.rule:
            by_name.setdefault(hint.what, []).append(hint.value)
    return by_name


@pytest.mark.parametrize("six", [False, True], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("carry", [datagrams, stream], ids=["UDP", "TCP"])
@pytest.mark.parametrize("wrapping", ENVELOPES)
def test_certificates_and_fingerprints_are_told_where_nothing_encrypts_them(
    tmp_path: Path, wrapping: str, carry: Any, six: bool
) -> None:
    found = seen(tmp_path, carry(session(tmp_path, ssl.TLSVersion.TLSv1_2, wrapping), six))
    assert told(found) == HANDSHAKE_OF_1_2
    assert {(name.name, name.via) for name in found.names} == {
        (name, "certificate in openvpn") for _, name in HANDSHAKE_OF_1_2
    }
    by_name = hints(found)
    assert [len(by_name[what]) for what in ("ja3", "ja4", "ja3s")] == [1, 1, 1]
    assert by_name["ja4"][0].startswith("t12i")
    assert by_name["tls"][0] == "offers TLS 1.2"
    assert by_name["tls"][1].startswith("TLS 1.2, cipher suite 0x")
    assert [(tunnel.protocol, tunnel.transport) for tunnel in found.tunnels] == [
        ("openvpn", "udp" if carry is datagrams else "tcp")
    ]
    assert found.warnings == ()


def test_tls_1_3_hides_the_certificates_and_not_what_the_client_offers(tmp_path: Path) -> None:
    found = seen(tmp_path, datagrams(session(tmp_path, ssl.TLSVersion.TLSv1_3)))
    assert told(found) == []
    assert hints(found)["tls"][0] == "offers TLS 1.3, TLS 1.2"
    assert hints(found)["tls"][1].startswith("TLS 1.3")


def test_a_finding_names_each_packet_that_carried_some_of_it_and_is_found_by_their_octets(tmp_path: Path) -> None:
    said = session(tmp_path, ssl.TLSVersion.TLSv1_2, size=100)
    found = seen(tmp_path, datagrams(said))
    (server,) = (sighting for sighting in inside(found) if sighting.value == "vpn-server")
    octets = next(octets for way, octets in flights(ssl.TLSVersion.TLSv1_2, tmp_path) if not way)
    message = next(message for message in parse_handshakes(octets) if message.type == 11)
    (first,) = (index for index, (way, data) in enumerate(said) if not way and data.endswith(octets[:100]))
    assert server.frames == tuple(first + 1 + at for at in range(message.start // 100, (message.end - 1) // 100 + 1))
    for frame in server.frames:
        assert said[frame - 1][1][:48].hex(":") in server.display_filter
    assert server.time == pytest.approx(1_700_000_000 + (server.frames[-1] - 1) / 1000)


def test_the_order_on_the_wire_and_what_is_sent_again_change_nothing(tmp_path: Path) -> None:
    said = session(tmp_path, ssl.TLSVersion.TLSv1_2, "SHA1", size=100)
    opening, rest = said[:2], said[2:]
    for seed in range(3):
        again = [*rest, *random.Random(seed).sample(rest, 5)]
        random.Random(seed).shuffle(again)
        found = seen(tmp_path, datagrams([*opening, *again]))
        assert sorted(told(found)) == sorted(HANDSHAKE_OF_1_2)
        assert [len(hints(found)[what]) for what in ("ja3", "ja3s", "tls")] == [1, 1, 2]
    twice = [one for one in said for _ in range(2)]
    for in_columns in (False, True):
        assert told(seen(tmp_path, datagrams(twice), in_columns=in_columns)) == HANDSHAKE_OF_1_2


def test_over_tcp_packets_in_several_segments_are_read(tmp_path: Path) -> None:
    found = seen(tmp_path, stream(session(tmp_path, ssl.TLSVersion.TLSv1_2), cut_at=50))
    assert told(found) == HANDSHAKE_OF_1_2
    assert all(len(sighting.frames) > 5 for sighting in inside(found))


def test_what_lies_behind_a_lost_packet_is_not_told(tmp_path: Path) -> None:
    said = session(tmp_path, ssl.TLSVersion.TLSv1_2, size=100)
    lost = next(index for index, (way, data) in enumerate(said) if not way and data[-100:-97] == b"\x16\x03\x03")
    found = seen(tmp_path, datagrams([*said[: lost + 1], *said[lost + 2 :]]))
    assert (Kind.TLS_CERTIFICATE, "vpn-server") not in told(found)
    assert (Kind.TLS_CERTIFICATE, "vpn-client") in told(found)


def test_packets_of_a_session_that_was_not_agreed_on_tell_nothing(tmp_path: Path) -> None:
    other = bytes(8 * (0x55,))
    forged = [(way, data[:1] + other + data[9:]) for way, data in session(tmp_path, ssl.TLSVersion.TLSv1_2)[2:]]
    found = seen(tmp_path, datagrams([*resets(), *forged]))
    assert (told(found), hints(found)) == ([], {})
    without_resets = seen(tmp_path, datagrams(session(tmp_path, ssl.TLSVersion.TLSv1_2)[2:]))
    assert (told(without_resets), hints(without_resets)) == ([], {})


def test_a_new_session_between_the_same_ports_is_read_and_one_with_another_key(tmp_path: Path) -> None:
    said = session(tmp_path, ssl.TLSVersion.TLSv1_3)
    again = [(way, data.replace(OURS, OURS[::-1]).replace(THEIRS, THEIRS[::-1])) for way, data in
             session(tmp_path, ssl.TLSVersion.TLSv1_2)]  # fmt: skip
    assert told(seen(tmp_path, datagrams([*said, *again]))) == HANDSHAKE_OF_1_2
    renegotiated = [(way, bytes((data[0] | 1,)) + data[1:]) for way, data in session(tmp_path, ssl.TLSVersion.TLSv1_2)]
    assert told(seen(tmp_path, datagrams([*said, *renegotiated[2:]]))) == HANDSHAKE_OF_1_2
    late = [(True, bytes((DATA << 3,)) + bytes(60))] * openvpn_control.MOST_PACKETS
    assert told(seen(tmp_path, datagrams([*said, *late, *renegotiated[2:]]))) == []


def test_a_conversation_that_rests_in_the_middle_of_its_handshake_tells_the_same(tmp_path: Path) -> None:
    frames = []
    for index, frame in enumerate(datagrams(session(tmp_path, ssl.TLSVersion.TLSv1_2, size=100))):
        frames += [frame, *datagrams([(True, b"a word")], port=5000 + index)]
    awake = seen(tmp_path, frames, in_columns=False)
    assert told(awake) == HANDSHAKE_OF_1_2
    for in_columns in (False, True):
        resting = seen(tmp_path, frames, limits=replace(Limits(), awake_flows=1), in_columns=in_columns)
        assert resting.to_dict() == awake.to_dict()


def test_packets_taken_many_at_once_behind_the_resets_tell_the_same(tmp_path: Path) -> None:
    """A tagged frame ends what is taken at once: behind it the conversation is known to be a tunnel."""
    frames = datagrams(session(tmp_path, ssl.TLSVersion.TLSv1_2, size=25))
    unusual = ETHERNET / Dot1Q(vlan=7) / IP(src="10.1.0.9", dst="10.2.0.2") / UDP(sport=5000, dport=5001) / Raw(b"xyz")
    assert len(frames) > 4 + 2 * FEWEST_AT_ONCE
    for in_columns in (False, True):
        found = seen(tmp_path, [*frames[:4], unusual, *frames[4:]], in_columns=in_columns)
        assert told(found) == HANDSHAKE_OF_1_2


def channel() -> ControlChannel:
    return ControlChannel(ClearControl(9, OURS, THEIRS))


def test_every_packet_may_end_anywhere(tmp_path: Path) -> None:
    for _, data in session(tmp_path, ssl.TLSVersion.TLSv1_2):
        for end in range(min(len(data), 40)):
            assert channel().add(data[:end], True, ()) == []
            clear_body_at(data[:end], OURS)


def test_random_octets_behind_the_resets_tell_nothing(tmp_path: Path) -> None:
    noise = random.Random(9)
    said = resets()
    for _ in range(300):
        way = noise.random() < 0.5
        said.append((way, bytes((CONTROL << 3,)) + (OURS if way else THEIRS) + noise.randbytes(noise.randrange(90))))
    found = seen(tmp_path, datagrams(said))
    assert (told(found), hints(found)) == ([], {})


def test_memory_is_bounded_whatever_numbers_and_sessions_come() -> None:
    read = channel()
    for number in range(openvpn_control.MOST_PACKETS):  # never the one that is expected
        read.add(packet(CONTROL, True, 2 + number * 7, bytes(9000), "none", key=number & 7), True, ())
    assert 0 < read.waiting_octets <= openvpn_control.MOST_WAITING_OCTETS
    assert read.over
    assert len(read._streams) <= 8


def test_numbers_too_far_ahead_are_not_kept() -> None:
    read = channel()
    for number in (1 << 31, (1 << 32) - 1, 1 + openvpn_control.FURTHEST_AHEAD):
        assert read.add(packet(CONTROL, True, number, bytes(50), "none"), True, ()) == []
    assert read.waiting_octets == 0
    assert read.add(packet(CONTROL, True, openvpn_control.FURTHEST_AHEAD, bytes(50), "none"), True, ()) == []
    assert read.waiting_octets == 50


def test_a_handshake_that_never_ends_is_given_up(tmp_path: Path) -> None:
    """A record of 16 KB in pieces of one octet: so many messages, and no more."""
    read = channel()
    endless = b"\x16\x03\x03\x40\x00" + bytes(1 << 14)
    for number in range(1, openvpn_control.MOST_PACKETS):
        read.add(packet(CONTROL, True, number, endless[number - 1 : number], "none"), True, ())
    (only,) = read._streams.values()
    assert (only.over, only.expected, only.proofs) == (True, openvpn_control.MOST_MESSAGES + 1, [])


def test_tls_crypt_stays_unreadable(tmp_path: Path) -> None:
    captures = Path(__file__).parents[1] / "data" / "captures"
    for name in ("openvpn-crypt", "openvpn-cryptv2"):
        found = observe(captures / f"{name}.pcapng")
        assert (told(found), hints(found)) == ([], {})
    for name in ("openvpn-plain", "openvpn-auth", "openvpn-auth256", "openvpn-tcp"):  # recorded from openvpn 2.6
        assert hints(observe(captures / f"{name}.pcapng"))["ja3"] == ["b0ec87ac7424dc3b841dacb72db22a21"]

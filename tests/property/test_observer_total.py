"""Captured octets are hostile: whatever is in a file, the observer answers and never raises, within its limits."""

from __future__ import annotations

import random
import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.capture import pcapng
from testbed.observer import Limits, Observation, dns, http, observe, tls, x509
from testbed.observer.ip import parse_ip
from testbed.observer.link import KNOWN_LINK_TYPES, network_offset
from testbed.observer.streams import Budget, Reassembly, Recorder
from testbed.observer.tunnels import openvpn

CAPTURES = sorted((Path(__file__).parents[1] / "data" / "captures").glob("*.pcapng"))
SMALL = Limits(
    stream_octets=5000,
    total_stream_octets=20_000,
    flows=20,
    fragment_octets=3000,
    sightings=50,
    out_of_order_octets=3000,
)
SEEDS = (
    b"GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    bytes.fromhex("160301002f0100002b0303") + b"r" * 32 + bytes.fromhex("000002130101000000"),
    bytes.fromhex("12340100000100000000000003777777076578616d706c6503636f6d0000010001"),
    b"\x38" + b"s" * 8 + b"\0" * 5,
)


def observe_octets(content: bytes) -> Observation:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        return observe(file.name, limits=SMALL)


def mutate(data: bytes, seed: int, changes: int) -> bytes:
    chance, octets = random.Random(seed), bytearray(data)
    for _ in range(changes):
        octets[chance.randrange(len(octets))] = chance.randrange(256)
    return bytes(octets)


@given(st.binary(max_size=400))
def test_any_octets_are_a_capture_file_that_is_survived(content: bytes) -> None:
    assert observe_octets(content).warnings or observe_octets(content).complete


@settings(deadline=None)
@given(st.sampled_from(CAPTURES), st.integers(0, 1 << 32), st.integers(1, 200), st.floats(0, 1))
def test_any_damage_to_a_real_capture_is_survived(path: Path, seed: int, changes: int, keep: float) -> None:
    whole = path.read_bytes()
    observation = observe_octets(mutate(whole[: max(1, int(len(whole) * keep))], seed, changes))
    observation.to_dict()
    for sighting in observation.sightings:
        assert sighting.frames == tuple(sorted(sighting.frames))
        assert all(1 <= frame <= observation.frames for frame in sighting.frames)


def frames_file(frames: list[bytes], link_type: int) -> bytes:
    blocks = [pcapng.build_section_header("test"), pcapng.build_interface("x", link_type)]
    return b"".join((*blocks, *(pcapng.build_packet(0, index, data, len(data)) for index, data in enumerate(frames))))


@given(st.sampled_from(sorted(KNOWN_LINK_TYPES)), st.lists(st.binary(max_size=100), max_size=5))
def test_any_frames_of_any_link_type_are_survived(link_type: int, frames: list[bytes]) -> None:
    observation = observe_octets(frames_file(frames, link_type))
    assert observation.frames == len(frames)
    assert observation.octets == sum(len(frame) for frame in frames)


@given(st.sampled_from([6, 17, 1, 58, 0, 43, 44, 50]), st.lists(st.binary(max_size=120), max_size=6), st.booleans())
def test_any_transport_octets_in_valid_ip_are_survived(protocol: int, payloads: list[bytes], six: bool) -> None:
    frames = []
    for payload in payloads:
        if six:
            header = b"\x60\0\0\0" + len(payload).to_bytes(2, "big") + bytes((protocol, 64)) + b"\x20" * 32
        else:
            total = (20 + len(payload)).to_bytes(2, "big")
            header = b"\x45\0" + total + bytes((0, 1, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2))
        frames.append(header + payload)
    assert observe_octets(frames_file(frames, pcapng.LINKTYPE_RAW)).frames == len(frames)


@given(
    st.one_of(
        st.binary(max_size=300), st.builds(mutate, st.sampled_from(SEEDS), st.integers(0, 1 << 30), st.integers(0, 9))
    )
)
def test_every_parser_bears_any_octets(data: bytes) -> None:
    for link_type in KNOWN_LINK_TYPES:
        packet = parse_ip(data, network_offset(link_type, data))
        assert packet is None or 0 <= packet.start <= packet.end <= len(data)
    with suppress(dns.Malformed):
        dns.parse_message(data)
    requests = http.parse_requests(data, 1000)
    http.parse_responses(data, requests, 1000)
    for handshake in tls.parse_handshakes(data):
        tls.parse_client_hello(handshake.body)
    tls.parse_client_hello(data)
    for der in (data, *tls.parse_certificates(data)):
        x509.certificate_names(der)
    openvpn.split_tcp(data)
    detector = openvpn.OpenVpnDetector()
    for at in range(0, len(data), 20):
        detector.add(data[at : at + 60], at % 40 == 0)


@given(st.integers(0, (1 << 32) - 1), st.integers(0, 1 << 30), st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_segments_shuffled_and_repeated_always_give_the_stream(start: int, seed: int, sizes: list[int]) -> None:
    """The slow, obvious model is the octets that were cut up."""
    chance = random.Random(seed)
    text = chance.randbytes(sum(sizes))
    segments, at = [], 0
    for size in sizes:
        early = chance.randrange(0, min(at, 5) + 1)  # overlaps what came before
        segments.append(((start + at - early) & 0xFFFFFFFF, text[at - early : at + size]))
        at += size
    segments += chance.choices(segments, k=3)
    chance.shuffle(segments)
    stream = Reassembly(Recorder(1 << 20, Budget(1 << 20)), 1 << 20)
    stream.syn((start - 1) & 0xFFFFFFFF)
    for frame, (sequence, data) in enumerate(segments, 1):
        stream.add(sequence, data, frame, frame)
    assert stream.recorder.data() == text
    assert not stream.recorder.gaps
    assert not stream.waiting
    assert sum(len(data) for data, _ in stream.recorder.pieces_between(0, len(text))) == len(text)

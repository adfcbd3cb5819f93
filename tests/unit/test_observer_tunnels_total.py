"""No octets that a stranger sends trip up a detector, and none is asked for ever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from testbed.observer.ip import Packet
from testbed.observer.tunnels import envelopes, meta, ssh
from testbed.observer.tunnels.block_cipher import BlockCipherDetector
from testbed.observer.tunnels.candidates import datagram_detectors
from testbed.observer.tunnels.dtls import read_dtls, record_types
from testbed.observer.tunnels.encrypted import exemption
from testbed.observer.tunnels.fastd import FastdDetector
from testbed.observer.tunnels.framing import split_frames
from testbed.observer.tunnels.ipsec import IpsecDetector
from testbed.observer.tunnels.openvpn import OpenVpnDetector
from testbed.observer.tunnels.openvpn_patterns import OpenVpnPatternDetector
from testbed.observer.tunnels.recognised import Detector
from testbed.observer.tunnels.wireguard import WireGuardDetector

MOST_PACKETS = 401
BEGINNINGS = [
    b"\x38",
    b"\x40",
    b"\x48\0\0\1",
    b"\1\0\0\0",
    b"\2\0\0\0",
    b"\4\0\0\0",
    b"\1\0\0\x0a",
    b"\xc8\x02\0\x20",
    b"\x08\0\0\0\0\0\1\0",
    b"\x16\xfe\xfd",
    b"\0\0\0\0",
    b"\x45\0\0\x30",
    b"\x60\0\0\0\0\x08",
    b"\xff",
]
DATAGRAM = st.builds(lambda head, tail: head + tail, st.sampled_from(BEGINNINGS), st.binary(max_size=200))
ANY = st.one_of(DATAGRAM, st.binary(max_size=200))


@given(st.lists(st.tuples(ANY.filter(bool), st.booleans()), min_size=1, max_size=40))
def test_every_detector_bears_any_datagrams(said: list[tuple[bytes, bool]]) -> None:
    everyone: list[Detector] = [
        OpenVpnDetector(),
        WireGuardDetector(),
        IpsecDetector(),
        FastdDetector(),
        BlockCipherDetector(),
        OpenVpnPatternDetector(),
        envelopes.EnvelopeDetector(),
        *datagram_detectors(said[0][0]),
    ]
    for packet, from_client in said:
        for detector in everyone:
            recognised = detector.add(packet, from_client)
            assert recognised is None or (recognised.rule and recognised.false_positives)
    read_dtls((from_client, packet) for packet, from_client in said)


@given(ANY, st.sampled_from([4, 41, 47, 50, 51, 97, 115]), st.booleans(), st.integers(0, 60))
def test_whatever_an_envelope_holds_the_inner_packet_begins_within_it_or_nowhere(
    data: bytes, protocol: int, six: bool, start: int
) -> None:
    address = bytes(16 if six else 4)
    packet = Packet(address, address, protocol, min(start, len(data)), len(data))
    assert envelopes.inner_offset_of_packet(packet, data) >= -1
    envelopes.recognise_protocol(packet, data)
    for carried_at in envelopes.CARRIERS.values():
        assert carried_at(data) < max(len(data), 1) + 4
    record_types(data)
    exemption(data)


@given(st.binary(max_size=400), st.binary(max_size=400), st.integers(1, 48))
def test_streams_of_any_octets_are_borne(client: bytes, server: bytes, least: int) -> None:
    meta.recognise(client, server)
    ssh.is_ssh(client, server)
    at = 0
    for end, packet in split_frames(client, least, 50):
        assert client[at + 2 : end] == packet
        at = end


@given(st.binary(min_size=1, max_size=80), st.integers(0, 255))
def test_a_datagram_repeated_for_ever_is_let_go(packet: bytes, octet: int) -> None:
    detectors = datagram_detectors(packet)
    for number in range(MOST_PACKETS + 1):
        changed = bytes((octet,)) + packet[1:] if number % 2 else packet
        for detector in detectors:
            detector.add(changed, number % 3 == 0)
        detectors = [detector for detector in detectors if not detector.hopeless]
    assert detectors == []

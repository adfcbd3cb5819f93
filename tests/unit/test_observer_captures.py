"""Whole captures, crafted frame by frame: link layers, who is the client, tunnels on any port, limits that are said."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import CookedLinux, CookedLinuxV2, Dot1Q, Ether, Loopback
from scapy.packet import Raw
from scapy.utils import wrpcap

from testbed.capture import pcapng
from testbed.facts import Kind
from testbed.observer import Limits, Observation, observe

A, B = "10.1.0.1", "10.2.0.2"
A6, B6 = "2001:db8::a", "2001:db8::b"
TEXT = b"a datagram with token-5150"


def capture(path: Path, frames: list[Any], link_type: int = pcapng.LINKTYPE_ETHERNET) -> Path:
    blocks = [pcapng.build_section_header("test"), pcapng.build_interface("x", link_type)]
    for index, frame in enumerate(frames):
        data = bytes(frame)
        blocks.append(pcapng.build_packet(0, 1_700_000_000_000_000_000 + index * 1_000_000, data, len(data)))
    path.write_bytes(b"".join(blocks))
    return path


def seen(path: Path, frames: list[Any], link_type: int = pcapng.LINKTYPE_ETHERNET, **limits: int) -> Observation:
    return observe(capture(path / "x.pcapng", frames, link_type), limits=Limits(**limits))


def values(observation: Observation, kind: Kind) -> list[str]:
    return [sighting.value for sighting in observation.sightings if sighting.kind == kind]


def udp(data: bytes, source: int = 4000, destination: int = 9999) -> Any:
    return IP(src=A, dst=B) / UDP(sport=source, dport=destination) / Raw(data)


@pytest.mark.parametrize(
    ("link", "link_type"),
    [
        (Ether(), pcapng.LINKTYPE_ETHERNET),
        (Ether() / Dot1Q(vlan=5), pcapng.LINKTYPE_ETHERNET),
        (Ether(type=0x88A8) / Dot1Q(vlan=5) / Dot1Q(vlan=6), pcapng.LINKTYPE_ETHERNET),
        (CookedLinux(), pcapng.LINKTYPE_LINUX_SLL),
        (CookedLinuxV2(), pcapng.LINKTYPE_LINUX_SLL2),
        (Loopback(), pcapng.LINKTYPE_NULL),
        (None, pcapng.LINKTYPE_RAW),
    ],
)
@pytest.mark.parametrize("six", [False, True])
def test_every_link_layer_is_read(tmp_path: Path, link: Any, link_type: int, six: bool) -> None:
    packet = IPv6(src=A6, dst=B6) / UDP(sport=4000, dport=9999) / Raw(TEXT) if six else udp(TEXT)
    observation = seen(tmp_path, [link / packet if link else packet], link_type)
    assert values(observation, Kind.PAYLOAD) == [TEXT.decode()]
    assert values(observation, Kind.CLIENT_ADDRESS) == [A6 if six else A]


def test_an_unknown_link_type_is_said_and_the_observation_is_not_complete(tmp_path: Path) -> None:
    observation = seen(tmp_path, [udp(TEXT)], 147)
    assert observation.warnings == ("frames of link type 147 cannot be read (frame 1)",)
    assert not observation.complete


def test_scapys_fragments_are_put_together_in_both_versions_of_ip(tmp_path: Path) -> None:
    text = TEXT * 200
    four = fragment(udp(text), fragsize=800)  # type: ignore[no-untyped-call]  # scapy's
    whole = IPv6(src=A6, dst=B6) / IPv6ExtHdrFragment() / UDP(sport=1, dport=2) / Raw(text)
    six = fragment6(whole, 900)  # type: ignore[no-untyped-call]  # scapy's
    random.Random(4).shuffle(six)
    observation = seen(tmp_path, [*four, *six], pcapng.LINKTYPE_RAW)
    (payload,) = [s for s in observation.sightings if s.kind == Kind.PAYLOAD]
    assert payload.value == text.decode()
    assert len(payload.frames) == 2
    assert [flow.sent.packets for flow in observation.flows] == [len(four), len(six)]
    assert observation.warnings == ()


def test_an_incomplete_datagram_is_said(tmp_path: Path) -> None:
    pieces = fragment(udp(TEXT * 200), fragsize=800)  # type: ignore[no-untyped-call]  # scapy's
    observation = seen(tmp_path, pieces[1:], pcapng.LINKTYPE_RAW)
    assert observation.warnings == ("1 fragmented IP datagrams are incomplete (frame 6)",)
    # Both addresses stand in every piece all the same.
    assert observation.addresses == {A: (1, 2, 3, 4, 5, 6), B: (1, 2, 3, 4, 5, 6)}


def test_a_fragment_that_cannot_be_kept_makes_the_observation_incomplete(tmp_path: Path) -> None:
    beyond = IP(src=A, dst=B, proto=17, frag=8191) / Raw(TEXT)
    observation = seen(tmp_path, [beyond], pcapng.LINKTYPE_RAW)
    assert not observation.complete
    assert set(observation.addresses) == {A, B}


def segment(data: bytes, sequence: int, flags: str, reverse: bool = False, port: int = 4000) -> Any:
    network, transport = IP(src=A, dst=B), TCP(sport=port, dport=80, seq=sequence, flags=flags)
    if reverse:
        network, transport = IP(src=B, dst=A), TCP(sport=80, dport=port, seq=sequence, flags=flags)
    return Ether() / network / transport / Raw(data)


def test_who_sends_the_syn_is_the_client_and_reused_ports_are_a_new_flow(tmp_path: Path) -> None:
    def conversation(path: bytes, sequence: int) -> list[Any]:
        request = b"GET " + path + b" HTTP/1.1\r\nHost: h.example\r\n\r\n"
        return [
            segment(b"", sequence, "S"),
            segment(b"", 7000, "SA", reverse=True),
            segment(request, sequence + 1, "PA"),
            segment(b"", sequence + 1 + len(request), "FA"),
            segment(b"", 7001, "FA", reverse=True),
        ]

    observation = seen(tmp_path, [*conversation(b"/one", 100), *conversation(b"/two", 900_000)])
    assert [(str(f.client), str(f.server)) for f in observation.flows] == [(f"{A}:4000", f"{B}:80")] * 2
    assert values(observation, Kind.HTTP_URL) == ["http://h.example/one", "http://h.example/two"]


@pytest.mark.parametrize(("former", "latter"), [(4_000_000, 100), (100, 4_000_000)])
def test_a_syn_of_another_number_is_a_new_flow_though_nobody_saw_the_former_end(
    tmp_path: Path, former: int, latter: int
) -> None:
    frames = []
    for path, sequence in ((b"/one", former), (b"/two", latter)):
        request = b"GET " + path + b" HTTP/1.1\r\nHost: h.example\r\n\r\n"
        halves = (request[:9], sequence + 1), (request[9:], sequence + 10)
        # The SYN was sent twice, and what follows it came in two segments.
        frames += [segment(b"", sequence, "S")] * 2 + [segment(part, at, "PA") for part, at in halves]
    observation = seen(tmp_path, frames)
    assert len(observation.flows) == 2
    assert values(observation, Kind.HTTP_URL) == ["http://h.example/one", "http://h.example/two"]


@pytest.mark.parametrize(("port", "client"), [(53, A), (443, A), (1194, A)])
def test_a_capture_that_begins_with_an_answer_still_finds_the_client(tmp_path: Path, port: int, client: str) -> None:
    answer = Ether() / IP(src=B, dst=A) / UDP(sport=port, dport=40000) / Raw(b"\0" * 5)
    observation = seen(tmp_path, [answer])
    assert str(observation.flows[0].client.address) == client


def test_a_message_that_is_cut_off_is_found_by_its_octets(tmp_path: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\nX-Token: token-8808\r\n\r\nbegin"
    observation = seen(tmp_path, [segment(b"", 1, "SA", reverse=True), segment(head, 2, "PA", reverse=True)])
    (header,) = [s for s in observation.sightings if s.value == "X-Token: token-8808"]
    assert header.frames == (2,)
    assert header.display_filter == "tcp.payload contains " + head[:15].hex(":") + ":0d"
    assert values(observation, Kind.HTTP_BODY) == ["begin"]
    assert observation.warnings == ("an HTTP message is not in the capture to its end (frame 2)",)


def both_ways(packets: Sequence[tuple[bool, bytes]], port: int) -> list[Any]:
    there = IP(src=A, dst=B) / UDP(sport=40000, dport=port)
    back = IP(src=B, dst=A) / UDP(sport=port, dport=40000)
    return [Ether() / (there if from_client else back) / Raw(data) for from_client, data in packets]


def openvpn_data(count: int, first: int = 500) -> list[tuple[bool, bytes]]:
    noise = random.Random(2)
    packets = []
    for number in range(first, first + count):
        header = b"\x48\0\0\x07" + number.to_bytes(4, "big")
        packets += [(True, header + noise.randbytes(80)), (False, header + noise.randbytes(90))]
    return packets


def test_openvpn_is_recognised_by_its_data_alone_on_any_port(tmp_path: Path) -> None:
    (tunnel,) = seen(tmp_path, both_ways(openvpn_data(20), 443)).tunnels
    assert tunnel.protocol == "openvpn"
    assert tunnel.frame == 12
    assert "P_DATA_V2" in tunnel.rule


def test_data_whose_counter_does_not_count_or_that_flows_one_way_only_is_no_tunnel(tmp_path: Path) -> None:
    noise = random.Random(3)
    random_counters = [(way, data[:4] + noise.randbytes(4) + data[8:]) for way, data in openvpn_data(100)]
    assert seen(tmp_path, both_ways(random_counters, 1194)).tunnels == ()
    one_way = [(way, data) for way, data in openvpn_data(100) if way]
    assert seen(tmp_path, both_ways(one_way, 1194)).tunnels == ()


def test_resets_without_the_right_session_ids_are_no_tunnel(tmp_path: Path) -> None:
    noise = random.Random(5)
    packets = [(True, b"\x38" + noise.randbytes(53)), (False, b"\x40" + noise.randbytes(65))]
    packets += [(True, b"\x20" + noise.randbytes(300)) for _ in range(50)]
    assert seen(tmp_path, both_ways(packets, 1194)).tunnels == ()


def wireguard_handshake(answer_index: bytes) -> list[tuple[bool, bytes]]:
    initiation = b"\1\0\0\0abcd" + b"\x99" * 140
    return [(True, initiation), (False, b"\2\0\0\0wxyz" + answer_index + b"\x88" * 80)]


def test_wireguard_is_recognised_by_a_response_that_names_the_initiation(tmp_path: Path) -> None:
    (tunnel,) = seen(tmp_path, both_ways(wireguard_handshake(b"abcd"), 7777)).tunnels
    assert (tunnel.protocol, tunnel.frame, str(tunnel.server)) == ("wireguard", 2, f"{B}:7777")
    assert seen(tmp_path, both_ways(wireguard_handshake(b"dcba"), 7777)).tunnels == ()


def test_random_octets_are_neither_a_tunnel_nor_text(tmp_path: Path) -> None:
    noise = random.Random(6)
    frames = both_ways([(noise.random() < 0.5, noise.randbytes(noise.randrange(1, 1400))) for _ in range(3000)], 1194)
    observation = seen(tmp_path, frames)
    assert observation.tunnels == ()
    assert values(observation, Kind.PAYLOAD) == []


def test_what_a_limit_cuts_off_is_said(tmp_path: Path) -> None:
    frames = [Ether() / udp(TEXT + b"%d" % number, source=1000 + number % 20) for number in range(100)]
    for limit in (
        {"flows": 5},
        {"sightings": 30},
        {"stream_octets": 60},
        {"total_stream_octets": 500},
        {"value_octets": 9},
    ):
        observation = seen(tmp_path, frames, **limit)
        assert not observation.complete
        assert any("limit" in warning for warning in observation.warnings)
    assert seen(tmp_path, frames).complete


def test_a_classic_pcap_gives_the_same_answer(tmp_path: Path) -> None:
    frames = [Ether() / udp(TEXT)]
    wrpcap(str(tmp_path / "x.pcap"), frames)
    classic = observe(tmp_path / "x.pcap")
    assert values(classic, Kind.PAYLOAD) == [TEXT.decode()]
    assert (classic.frames, classic.octets) == (1, len(frames[0]))


def test_the_json_form_has_the_contracts_keys(tmp_path: Path) -> None:
    answer = seen(tmp_path, both_ways(openvpn_data(20), 443)).to_dict()
    assert set(answer) >= {"names", "flows", "tunnels", "cleartext", "warnings"}
    assert set(answer["tunnels"][0]) >= {"protocol", "client", "server", "rule", "frame"}

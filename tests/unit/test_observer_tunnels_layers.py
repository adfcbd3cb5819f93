"""Packets in packets: envelopes in clear are opened however deep they lie; what they carry is told with its layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scapy.contrib.geneve import GENEVE
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.ipsec import AH, ESP
from scapy.layers.l2 import GRE, Ether
from scapy.layers.l2tp import L2TP
from scapy.layers.ppp import PPP
from scapy.layers.vxlan import VXLAN
from scapy.packet import Raw

from testbed.facts import Kind
from testbed.observer import Limits, observe
from testbed.observer.model import Certainty
from tests.unit.test_observer_tunnels import A, B, datagrams, octets, seen, stream

INNER, INNER_SERVER = "172.16.0.1", "172.16.0.9"
TEREDO, SITE6 = "2001:0:1:2::3", "2001:db8::80"
REQUEST = b"GET /inner HTTP/1.1\r\nHost: inner.example\r\n\r\n"
SESSION, ANSWER = b"sesssess", b"answansw"


def request(six: bool = False) -> Any:
    lower = IPv6(src=TEREDO, dst=SITE6) if six else IP(src=INNER, dst=INNER_SERVER)
    return lower / TCP(sport=4001, dport=80, seq=1, flags="PA") / Raw(REQUEST)


def outer() -> Any:
    return Ether() / IP(src=A, dst=B)


def openvpn(from_client: bool) -> Any:
    """A client's hard reset, or the server's that names its session."""
    if from_client:
        return IP(src=INNER, dst=INNER_SERVER) / UDP(sport=4002, dport=1194) / Raw(b"\x38" + SESSION + bytes(5))
    answer = b"\x40" + ANSWER + b"\1" + bytes(4) + SESSION + bytes(4)
    return IP(src=INNER_SERVER, dst=INNER) / UDP(sport=1194, dport=4002) / Raw(answer)


ENVELOPES = {
    "gre": (outer() / GRE(), "ip"),
    "ipip": (outer(), "ip"),
    "vxlan": (outer() / UDP(sport=50001, dport=4789) / VXLAN(vni=7, flags=8) / Ether(), "udp"),
    "geneve": (outer() / UDP(sport=50001, dport=6081) / GENEVE(vni=7, proto=0x6558) / Ether(), "udp"),
    "ip-in-udp": (outer() / UDP(sport=5555, dport=5555), "udp"),
}


@pytest.mark.parametrize("name", ENVELOPES)
def test_an_envelope_is_a_tunnel_and_what_it_carries_is_read(tmp_path: Path, name: str) -> None:
    envelope, transport = ENVELOPES[name]
    observation = seen(tmp_path, [envelope / request()])
    (tunnel,) = observation.tunnels
    assert (tunnel.protocol, tunnel.transport, tunnel.certainty) == (name, transport, Certainty.CERTAIN)
    assert tunnel.layers == (("ipv4", "udp", name) if transport == "udp" else ("ipv4", name))
    assert [s.value for s in observation.sightings if s.kind is Kind.HTTP_URL] == ["http://inner.example/inner"]
    assert {A, B, INNER, INNER_SERVER} <= set(observation.addresses)


def test_a_layer_two_tunnel_over_gre_is_opened(tmp_path: Path) -> None:
    observation = seen(tmp_path, [outer() / GRE(proto=0x6558) / Ether() / request()])
    assert [s.value for s in observation.sightings if s.kind is Kind.HTTP_URL] == ["http://inner.example/inner"]


@pytest.mark.parametrize(
    ("frame", "name"),
    [
        (outer() / UDP(sport=3544, dport=50123) / request(six=True), "teredo"),
        (outer() / IPv6(src=SITE6, dst="2001:db8::81") / TCP(sport=4001, dport=80, flags="PA") / Raw(REQUEST), "6in4"),
    ],
)
def test_ipv6_in_ipv4_is_opened(tmp_path: Path, frame: Any, name: str) -> None:
    observation = seen(tmp_path, [frame])
    assert [tunnel.protocol for tunnel in observation.tunnels] == [name]
    assert [s.value for s in observation.sightings if s.kind is Kind.HTTP_URL] == ["http://inner.example/inner"]


def test_l2tp_is_recognised_by_its_control_messages_and_its_data_is_opened(tmp_path: Path) -> None:
    attributes = b"\x80\x08\0\0\0\0\0\1" + b"\x80\x08\0\0\0\2\1\0"
    control = b"\xc8\x02" + (12 + len(attributes)).to_bytes(2, "big") + bytes(8) + attributes
    data = L2TP(hdr=["length"], version=2, tunnel_id=5, session_id=6) / PPP(proto=0x21) / request()
    udp = UDP(sport=1701, dport=1701)
    observation = seen(tmp_path, [outer() / udp / Raw(control), outer() / udp / Raw(bytes(data))])
    (tunnel,) = observation.tunnels
    assert (tunnel.protocol, tunnel.client.address, tunnel.frame) == ("l2tp", A, 1)
    assert [s.value for s in observation.sightings if s.kind is Kind.HTTP_URL] == ["http://inner.example/inner"]


def test_openvpn_within_gre_within_vxlan_is_shown_with_every_layer(tmp_path: Path) -> None:
    gre = outer() / UDP(sport=50001, dport=4789) / VXLAN(flags=8) / Ether() / IP(src="10.9.0.1", dst="10.9.0.2") / GRE()
    observation = seen(tmp_path, [gre / openvpn(True), gre / openvpn(False)])
    layers = {tunnel.protocol: tunnel.layers for tunnel in observation.tunnels}
    assert layers["vxlan"] == ("ipv4", "udp", "vxlan")
    assert layers["gre"] == ("ipv4", "udp", "vxlan", "ipv4", "gre")
    assert layers["openvpn"] == ("ipv4", "udp", "vxlan", "ipv4", "gre", "ipv4", "udp", "openvpn")
    answer = observation.to_dict()["tunnels"][-1]
    assert answer["layers"][-1] == "openvpn"
    assert (answer["certainty"], answer["frame"], answer["packet"]) == ("certain", 2, 2)
    assert answer["false_positives"]


def test_openvpn_over_ipv6_is_told_with_its_layers(tmp_path: Path) -> None:
    lower = Ether() / IPv6(src="2001:db8::a", dst="2001:db8::b") / UDP(sport=4002, dport=1194)
    back = Ether() / IPv6(src="2001:db8::b", dst="2001:db8::a") / UDP(sport=1194, dport=4002)
    (tunnel,) = seen(tmp_path, [lower / openvpn(True)[UDP].payload, back / openvpn(False)[UDP].payload]).tunnels
    assert (str(tunnel.server), tunnel.layers) == ("[2001:db8::b]:1194", ("ipv6", "udp", "openvpn"))


def test_the_same_ends_inside_and_outside_of_a_tunnel_are_two_conversations(tmp_path: Path) -> None:
    observation = seen(tmp_path, [Ether() / openvpn(True), outer() / GRE() / openvpn(False)])
    assert "openvpn" not in {tunnel.protocol for tunnel in observation.tunnels}


def test_envelopes_in_envelopes_without_end_are_opened_so_far_and_no_further(tmp_path: Path) -> None:
    frame = request()
    for _ in range(60):
        frame = IP(src=INNER, dst=INNER_SERVER) / frame
    observation = seen(tmp_path, [Ether() / frame])
    assert 10 < len(observation.tunnels) < 40


@pytest.mark.parametrize(
    ("packet", "words"), [(ESP(spi=0x1234, seq=1, data=octets(1, 80)), "ESP"), (AH(spi=0x1234, seq=1), "AH")]
)
def test_raw_esp_and_ah_are_named_by_their_protocol_number(tmp_path: Path, packet: Any, words: str) -> None:
    observation = seen(tmp_path, [outer() / packet, outer() / packet])
    (tunnel,) = observation.tunnels
    assert (tunnel.protocol, tunnel.transport, tunnel.frame) == ("ipsec", "ip", 1)
    assert words in tunnel.rule
    (sighting,) = [s for s in observation.sightings if s.kind is Kind.TUNNEL]
    assert "ip.proto ==" in sighting.display_filter or words.lower() in sighting.display_filter


def test_the_two_one_way_flows_of_vxlan_are_one_tunnel(tmp_path: Path) -> None:
    there = outer() / UDP(sport=50001, dport=4789) / VXLAN(flags=8) / Ether() / request()
    again = outer() / UDP(sport=50002, dport=4789) / VXLAN(flags=8) / Ether() / request()
    back = Ether() / IP(src=B, dst=A) / UDP(sport=50003, dport=4789) / VXLAN(flags=8) / Ether() / openvpn(False)
    assert [tunnel.protocol for tunnel in seen(tmp_path, [there, again, back]).tunnels] == ["vxlan"]


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_datagram_whose_packet_is_not_whole_is_no_envelope(tmp_path: Path, cut: int) -> None:
    payload = bytes(request())[:-cut]
    assert seen(tmp_path, [outer() / UDP(sport=5555, dport=5555) / Raw(payload)]).tunnels == ()


def test_a_datagram_whose_packet_has_a_wrong_checksum_is_no_envelope(tmp_path: Path) -> None:
    payload = bytearray(bytes(request()))
    payload[10] ^= 1
    assert seen(tmp_path, [outer() / UDP(sport=5555, dport=5555) / Raw(bytes(payload))]).tunnels == ()


def test_datagrams_before_the_connection_that_says_whose_they_are_are_held_against_it(tmp_path: Path) -> None:
    """Whoever rests, and whether anybody asks for streams: which conversation came first changes nothing."""
    meta = stream([(True, b"0 alice 17.0\n1 94 64 0 0 ABCD\n"), (False, b"0 bob 17\n1 94 64 0 0 CDEF\n")], 655)
    early = datagrams([(way, octets(number, 80)) for number in range(6) for way in (True, False)], 655)
    others = [frame for port in range(7000, 7004) for frame in datagrams([(True, b"a word")], port)]
    expected = seen(tmp_path, [*early, *others, *meta])
    assert [(tunnel.protocol, tunnel.transport) for tunnel in expected.tunnels] == [("tinc", "udp"), ("tinc", "tcp")]
    for keep_streams, awake in ((False, 4096), (False, 1), (True, 1)):
        limits = Limits(awake_flows=awake)
        assert observe(tmp_path / "x.pcapng", limits=limits, keep_streams=keep_streams).tunnels == expected.tunnels

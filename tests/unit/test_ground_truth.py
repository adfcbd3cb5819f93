"""From captures to links: the tunnel's packets out of frames, inner packets found again, flows told apart."""

from __future__ import annotations

import csv
from io import StringIO
from ipaddress import ip_address
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.facts import Fact, Kind
from testbed.ground_truth import export
from testbed.ground_truth.data_keys import key_blocks
from testbed.ground_truth.mapping import NotMapped, TunnelSecrets, VariantMap, map_variant
from testbed.ground_truth.outer import End, outer_packets
from testbed.ground_truth.separable import SealedPacket, flow_shapes
from testbed.result import ActionRecord
from testbed.scenario import TunnelSpec
from testbed.verdict import TapEvidence, VariantEvidence
from tests.unit.verdict_samples import CLIENT, SITE, TUNNEL, VPN, Frame

SECRET = bytes(range(48))
KEYLOG = f"EXPORTER_SECRET {bytes(32).hex()} {SECRET.hex()}\n"
BLOCK = key_blocks([SECRET])[0]
INNER_CLIENT = "10.8.0.2"
PORT = 1194
SERVER = End(ip_address(VPN).packed, PORT)
ETHERNET = bytes(12) + b"\x08\x00"


def ipv4(source: str, destination: str, protocol: int, payload: bytes, piece: int = 0) -> bytes:
    length = (20 + len(payload)).to_bytes(2, "big")
    ends = ip_address(source).packed + ip_address(destination).packed
    return (
        b"\x45\0"
        + length
        + b"\0\7"
        + piece.to_bytes(2, "big")
        + b"\x40"
        + bytes([protocol])
        + bytes(2)
        + ends
        + payload
    )


def udp(source: str, destination: str, ports: tuple[int, int], payload: bytes) -> bytes:
    head = ports[0].to_bytes(2, "big") + ports[1].to_bytes(2, "big") + (8 + len(payload)).to_bytes(2, "big") + bytes(2)
    return ipv4(source, destination, 17, head + payload)


def tcp(
    source: str,
    destination: str,
    ports: tuple[int, int],
    sequence: int,
    payload: bytes = b"",
    flags: int = 16,
    options: bytes = b"",
) -> bytes:
    head = ports[0].to_bytes(2, "big") + ports[1].to_bytes(2, "big") + (sequence & 0xFFFFFFFF).to_bytes(4, "big")
    offset = (20 + len(options)) // 4 << 4
    return ipv4(source, destination, 6, head + bytes(4) + bytes([offset, flags]) + bytes(6) + options + payload)


def sealed(payload: bytes, packet_id: int, *, up: bool = True) -> bytes:
    at = 0 if up else 128
    head = b"\x48\0\0\0" + packet_id.to_bytes(4, "big")
    nonce = head[4:] + BLOCK[at + 64 : at + 72]
    box = AESGCM(BLOCK[at : at + 32]).encrypt(nonce, payload, head)
    return head + box[-16:] + box[:-16]


def datagram(payload: bytes, packet_id: int, *, up: bool = True) -> bytes:
    ends = (CLIENT, VPN, (40000, PORT)) if up else (VPN, CLIENT, (PORT, 40000))
    return ETHERNET + udp(*ends, sealed(payload, packet_id, up=up))


def capture(name: str, frames: list[tuple[float, bytes]], link_type: int = 1) -> TapEvidence:
    numbered = tuple(Frame(number, time, data, len(data)) for number, (time, data) in enumerate(frames, 1))
    return TapEvidence(name, f"with/{name}.pcapng", len(numbered), 0, (), numbered, link_type=link_type)


def mapped(
    outer: list[tuple[float, bytes]],
    inner: list[tuple[float, bytes]],
    *,
    actions: tuple[ActionRecord, ...] = (),
    facts: tuple[Fact, ...] = (),
    tunnel: TunnelSpec = TUNNEL,
    keylog: str = KEYLOG,
) -> VariantMap | NotMapped:
    taps = (capture("isp", outer),)
    evidence = VariantEvidence("with", tunnel, VPN, facts, actions, taps, capture("client-tun", inner, 101))
    return map_variant(evidence, TunnelSecrets(keylog), PORT)


def carried(found: VariantMap | NotMapped) -> list[tuple[int, tuple[int, ...]]]:
    assert isinstance(found, VariantMap)
    return [(link.packet.frame, tuple(f for c in link.packet.carriers for f in c.outer.frames)) for link in found.links]


ASKED = udp(INNER_CLIENT, "10.8.0.1", (5000, 53), b"which?")
ANSWERED = udp("10.8.0.1", INNER_CLIENT, (53, 5000), b"this one")


def test_each_inner_packet_is_linked_to_the_datagram_that_carried_it_with_overhead_and_delay() -> None:
    found = mapped(
        [(1.0, bytes(60)), (1.003, datagram(ASKED, 1)), (1.5, datagram(ANSWERED, 1, up=False))],
        [(1.001, ASKED), (1.504, ANSWERED)],
    )
    assert carried(found) == [(1, (2,)), (2, (3,))]
    assert isinstance(found, VariantMap)
    assert [(link.up, round(link.delay or 0, 6), link.overhead) for link in found.links] == [
        (True, 0.002, 52),
        (False, 0.004, 52),
    ]
    assert {link.flow for link in found.links} == {f"udp {INNER_CLIENT}:5000 -> 10.8.0.1:53"}


def test_equal_packets_are_linked_in_order_and_a_doubled_datagram_is_called_repeated() -> None:
    found = mapped(
        [(1.0, datagram(ASKED, 1)), (1.1, datagram(ASKED, 1)), (1.2, datagram(ASKED, 2))],
        [(0.9, ASKED), (1.15, ASKED)],
    )
    assert carried(found) == [(1, (1,)), (2, (3,))]
    assert export.summary(found, "f")["outer_packets"] == {"packet": 2, "repeated": 1}


def test_what_was_lost_on_either_side_is_left_without_a_partner() -> None:
    found = mapped([(1.0, datagram(ANSWERED, 1, up=False))], [(0.9, ASKED)])
    assert carried(found) == [(1, ())]
    assert isinstance(found, VariantMap)
    assert len(found.alone) == 1
    assert export.summary(found, "f")["inner_packets_mapped"] == 0


def test_a_lowered_mss_and_other_checksums_do_not_hide_a_packet() -> None:
    before = tcp(INNER_CLIENT, SITE, (4000, 80), 7, flags=2, options=b"\2\4\5\xb4\1\1\4\2")
    after = bytearray(before)
    after[42:44], after[36:38] = b"\5\x16", b"\xab\xcd"
    assert carried(mapped([(1.0, datagram(bytes(after), 1))], [(0.9, before)])) == [(1, (1,))]


def test_a_large_packet_is_linked_to_every_segment_that_was_sealed_by_itself() -> None:
    whole = tcp(INNER_CLIENT, SITE, (4000, 80), 1000, bytes(range(250)) * 12)
    parts = [
        tcp(INNER_CLIENT, SITE, (4000, 80), 1000 + at, (bytes(range(250)) * 12)[at : at + 1000])
        for at in (0, 1000, 2000)
    ]
    outer = [(1.0 + n / 10, datagram(part, n)) for n, part in enumerate(parts, 1)]
    found = mapped(outer, [(0.9, whole)])
    assert carried(found) == [(1, (1, 2, 3))]
    assert isinstance(found, VariantMap)
    assert found.links[0].overhead == 3 * 52 + 2 * 40


def test_a_ping_of_the_tunnel_and_control_packets_carry_nothing() -> None:
    ping = bytes.fromhex("2a187bf3641eb4cb07ed2d0a981fc748")
    control = ETHERNET + udp(CLIENT, VPN, (40000, PORT), b"\x20" + bytes(30))
    found = mapped([(1.0, control), (1.1, datagram(ping, 1)), (1.2, datagram(ASKED, 2))], [(1.15, ASKED)])
    assert export.summary(found, "f")["outer_packets"] == {"packet": 1, "ping": 1, "control": 1}


@pytest.mark.parametrize(
    ("tunnel", "keylog", "words"),
    [
        (TUNNEL, "", "no exporter secret"),
        (TUNNEL, f"EXPORTER_SECRET aa {bytes(48).hex()}", "none of the 1 data packets"),
        (TunnelSpec("openvpn", "openvpn", "tls", "udp", "AES-256-GCM", "none", "all", "tunnel"), KEYLOG, "openvpn"),
        (TunnelSpec("wireguard", "wireguard", "tls", "udp", "AES-256-GCM", "none", "all", "tunnel"), "", "wireguard"),
        (TunnelSpec("vpn", "vpn", "static-key", "udp", "AES-256-CBC", "none", "all", "tunnel"), KEYLOG, "static key"),
    ],
)
def test_where_the_keys_are_not_known_the_reason_is_said(tunnel: TunnelSpec, keylog: str, words: str) -> None:
    found = mapped([(1.0, datagram(ASKED, 1))], [(0.9, ASKED)], tunnel=tunnel, keylog=keylog)
    assert isinstance(found, NotMapped)
    assert words in found.reason
    assert export.summary(found, "f") == {"mapped": False, "reason": found.reason}


def test_flows_get_the_action_under_way_that_called_their_far_end() -> None:
    web = tcp(INNER_CLIENT, SITE, (4000, 80), 1, flags=2)
    actions = (
        ActionRecord("1-dns", "dns", "www.example.com", True, 1.0, 5.0),
        ActionRecord("2-http", "http", "http://www.example.com/", True, 2.0, 3.0),
        ActionRecord("3-ping", "ping", "www.example.com", True, 2.1, 3.0),
    )
    facts = (Fact(Kind.SERVER_ADDRESS, SITE, "2-http"),)
    inner = [(1.5, ASKED), (2.5, web), (9.0, ANSWERED.replace(b"this one", b"that one"))]
    outer = [(1.5, datagram(ASKED, 1)), (2.5, datagram(web, 2))]
    found = mapped(outer, inner, actions=actions, facts=facts)
    assert isinstance(found, VariantMap)
    assert [link.action for link in found.links[:2]] == ["1-dns", "2-http"]


def test_the_csv_has_every_link_and_labels_every_packet_of_the_tunnel() -> None:
    control = ETHERNET + udp(CLIENT, VPN, (40000, PORT), b"\x28" + bytes(30))
    found = mapped([(1.0, control), (1.2, datagram(ASKED, 2))], [(1.15, ASKED), (1.3, ANSWERED)])
    assert isinstance(found, VariantMap)
    rows = list(csv.DictReader(StringIO(export.to_csv(found))))
    assert [(r["inner_frame"], r["outer_frame"], r["carries"], r["direction"]) for r in rows] == [
        ("", "1", "acknowledgement", "up"),
        ("1", "2", "packet", "up"),
        ("2", "", "nothing", "down"),
    ]
    assert rows[1]["overhead_octets"] == "52"
    assert rows[1]["delay_seconds"] == "0.050000"


def test_the_csv_says_on_each_line_of_a_flow_whether_it_stays_apart() -> None:
    def asking(port: int, octets: int) -> bytes:
        return udp(INNER_CLIENT, SITE, (port, 53), bytes(octets))

    sizes = ((1000, 10), (1000, 20), (2000, 30), (3000, 30), (2000, 40), (3000, 50), (3000, 60))
    inner = [(float(at), asking(*size)) for at, size in enumerate(sizes, 1)]
    outer = [(at + 0.5, datagram(packet, number)) for number, (at, packet) in enumerate(inner, 1)]
    control = ETHERNET + udp(CLIENT, VPN, (40000, PORT), b"\x28" + bytes(30))
    found = mapped([(0.5, control), *outer], [*inner, (9.0, asking(4000, 5))])
    assert isinstance(found, VariantMap)
    rows = list(csv.DictReader(StringIO(export.to_csv(found))))
    told = [(row["flow_alone"], row["flow_packets_of_own_size"]) for row in rows]
    first, second, third = ("yes", "2"), ("no", "1"), ("no", "2")
    assert told == [("", ""), first, first, second, third, second, third, third, ("", "")]
    assert {(flow["alone"], flow["packets_of_own_size"]) for flow in export.summary(found, "")["flows"]} == {
        (True, 2),
        (False, 1),
        (False, 2),
    }


@settings(deadline=None)
@given(st.data())
def test_tcp_packets_are_found_however_the_stream_is_cut_doubled_and_reordered(data: st.DataObject) -> None:
    packets = data.draw(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=8))
    stream = b"".join(len(packet).to_bytes(2, "big") + packet for packet in packets)
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(stream) - 1)), max_size=6)) | {0, len(stream)})
    base = data.draw(st.sampled_from([0, 0xFFFFFFF0]))
    segments = [(base + 1 + a, stream[a:b]) for a, b in pairwise(cuts)]
    segments += data.draw(st.lists(st.sampled_from(segments), max_size=3))
    segments = data.draw(st.permutations(segments))
    frames = [Frame(1, 1.0, ETHERNET + tcp(CLIENT, VPN, (40000, PORT), base, flags=2), 60)]
    for number, (sequence, payload) in enumerate(segments, 2):
        frame = ETHERNET + tcp(CLIENT, VPN, (40000, PORT), sequence, payload)
        frames.append(Frame(number, float(number), frame, len(frame)))
    found = outer_packets(frames, SERVER, 1)
    assert [packet.packet for packet in found] == packets
    first = {payload: number for number, (_, payload) in reversed(list(enumerate(segments, 2)))}
    assert {number for packet in found for number in packet.frames} <= set(first.values()) | {
        number for number, _ in enumerate(segments, 2)
    }


def test_a_segment_with_two_packets_is_shared_between_them_by_octets() -> None:
    stream = b"\0\x0a" + bytes(10) + b"\0\x1c" + bytes(28)
    frame = ETHERNET + tcp(CLIENT, VPN, (40000, PORT), 1, stream)
    one, other = outer_packets([Frame(1, 1.0, frame, len(frame))], SERVER, 1)
    assert (one.frames, other.frames) == ((1,), (1,))
    whole = len(frame) - 14
    assert (one.octets, other.octets) == pytest.approx((whole * 12 / 42, whole * 30 / 42))


def test_fragments_of_a_datagram_are_put_together_in_any_order() -> None:
    whole = udp(CLIENT, VPN, (40000, PORT), bytes(range(48)))[20:]
    pieces = [ipv4(CLIENT, VPN, 17, whole[:32], 0x2000), ipv4(CLIENT, VPN, 17, whole[32:], 4)]
    for order in (pieces, pieces[::-1]):
        frames = [Frame(n, float(n), ETHERNET + piece, 14 + len(piece)) for n, piece in enumerate(order, 1)]
        (found,) = outer_packets(frames, SERVER, 1)
        assert (found.packet, found.frames, found.octets) == (bytes(range(48)), (1, 2), len(whole) + 40)


def sealed_packet(flow: str, time: float, octets: int = 100) -> SealedPacket:
    return SealedPacket(flow, "", True, int(time * 10), time, octets, octets - 52)


def test_a_flow_is_alone_only_if_no_other_comes_between_its_packets() -> None:
    order = ["a", "a", "b", "c", "b", "d", "e", "f", "e", "f"]
    shapes = flow_shapes([sealed_packet(flow, float(at)) for at, flow in enumerate(order)])
    assert {shape.flow: shape.alone for shape in shapes} == {
        "a": True,
        "b": False,
        "c": False,
        "d": True,
        "e": False,
        "f": False,
    }


def test_sizes_that_no_other_flow_has_are_counted() -> None:
    packets = [sealed_packet("a", 1.0, 100), sealed_packet("a", 2.0, 200), sealed_packet("b", 3.0, 100)]
    assert [(shape.flow, shape.own_sizes) for shape in flow_shapes(packets)] == [("a", 1), ("b", 0)]

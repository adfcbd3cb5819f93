"""Each rule by which a tunnel is recognised, on packets made by hand: what it holds for, and the nearest miss.

Real programs are judged in tests/interop/test_tunnel_detection.py; here are the cases that no program produces at will.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from testbed.capture import pcapng
from testbed.facts import Kind
from testbed.observer import Observation, observe
from testbed.observer.model import Certainty
from testbed.observer.tunnels import encrypted
from testbed.observer.tunnels.candidates import datagram_detectors
from testbed.observer.tunnels.dtls import read_dtls
from testbed.observer.tunnels.openvpn_patterns import (
    acknowledgements_run_as_a_handshake,
    opcodes_run_as_a_handshake,
)

A, B = "10.1.0.1", "10.2.0.2"
Said = Sequence[tuple[bool, bytes]]  # whether the client sent it, and what


def seen(folder: Path, frames: Sequence[Any]) -> Observation:
    blocks = [pcapng.build_section_header("test"), pcapng.build_interface("x", pcapng.LINKTYPE_ETHERNET)]
    for index, frame in enumerate(frames):
        data = bytes(frame)
        blocks.append(pcapng.build_packet(0, 1_700_000_000_000_000_000 + index * 1_000_000, data, len(data)))
    path = folder / "x.pcapng"
    path.write_bytes(b"".join(blocks))
    return observe(path)


def datagrams(said: Said, port: int, source: int = 40000) -> list[Any]:
    there = Ether() / IP(src=A, dst=B) / UDP(sport=source, dport=port)
    back = Ether() / IP(src=B, dst=A) / UDP(sport=port, dport=source)
    return [(there if from_client else back) / Raw(data) for from_client, data in said]


def stream(said: Said, port: int, opened: bool = True) -> list[Any]:
    """A TCP conversation in which each piece is a segment."""
    ends = {True: (Ether() / IP(src=A, dst=B), 40000, port), False: (Ether() / IP(src=B, dst=A), port, 40000)}
    next_at = {True: 1000, False: 9000}

    def segment(from_client: bool, flags: str, data: bytes = b"") -> Any:
        lower, source, destination = ends[from_client]
        tcp = TCP(sport=source, dport=destination, seq=next_at[from_client], flags=flags)
        next_at[from_client] += len(data) + ("S" in flags)
        return lower / tcp / Raw(data) if data else lower / tcp

    opening = [segment(True, "S"), segment(False, "SA"), segment(True, "A")] if opened else []
    return opening + [segment(from_client, "PA", data) for from_client, data in said]


def octets(seed: int, count: int) -> bytes:
    return random.Random(seed).randbytes(count)


# OpenVPN by its patterns


def scrambled_openvpn(key: int = 0x5A, data_packets: int = 100) -> list[tuple[bool, bytes]]:
    """A handshake and data whose first octet is hidden by a XOR, as the patch of that name does."""
    noise = random.Random(4)
    opcodes = [(True, 0x38, 14), (False, 0x40, 26), (True, 0x28, 22)]
    opcodes += [(True, 0x20, 300), (False, 0x20, 1100), (False, 0x20, 900), (True, 0x28, 22), (True, 0x20, 800)]
    opcodes += [(False, 0x28, 22), (False, 0x20, 300), (True, 0x28, 22), (False, 0x28, 22), (True, 0x28, 22)]
    opcodes += [(bool(number % 2), 0x48, noise.randrange(60, 1400)) for number in range(data_packets)]
    return [(way, bytes((opcode ^ key,)) + noise.randbytes(size - 1)) for way, opcode, size in opcodes]


def test_openvpn_whose_opcodes_are_hidden_is_likely_after_a_hundred_packets(tmp_path: Path) -> None:
    (tunnel,) = seen(tmp_path, datagrams(scrambled_openvpn(), 443)).tunnels
    assert (tunnel.protocol, tunnel.certainty, tunnel.frame, tunnel.packet) == ("openvpn", Certainty.LIKELY, 100, 100)
    assert "0.75 %" in tunnel.false_positives
    assert seen(tmp_path, datagrams(scrambled_openvpn(data_packets=80), 443)).tunnels == ()


def test_over_tcp_the_patterns_hold_though_segments_cut_packets_in_two(tmp_path: Path) -> None:
    framed = [(way, len(data).to_bytes(2, "big") + data) for way, data in scrambled_openvpn()]
    halves = [(way, piece) for way, data in framed for piece in (data[:70], data[70:]) if piece]
    (tunnel,) = seen(tmp_path, stream(halves, 443)).tunnels
    assert (tunnel.protocol, tunnel.transport, tunnel.certainty) == ("openvpn", "tcp", Certainty.LIKELY)


def openvpn_data(count: int, seed: int) -> list[bytes]:
    noise = random.Random(seed)
    return [b"\x48\0\0\x07" + number.to_bytes(4, "big") + noise.randbytes(400) for number in range(700, 700 + count)]


def test_openvpn_over_tcp_is_certain_by_its_data_though_the_capture_began_within_a_packet(tmp_path: Path) -> None:
    ours, theirs = openvpn_data(20, 1), openvpn_data(20, 2)
    framed = [(way, len(data).to_bytes(2, "big") + data) for pair in zip(ours, theirs, strict=True)
              for way, data in zip((True, False), pair, strict=True)]  # fmt: skip
    late = [(True, framed[0][1][100:]), (False, framed[1][1][200:]), *framed[2:]]
    (tunnel,) = seen(tmp_path, stream(late, 1194, opened=False)).tunnels
    assert (tunnel.protocol, tunnel.certainty, tunnel.frame) == ("openvpn", Certainty.CERTAIN, 14)
    opened = stream(late, 1194)  # from the beginning, such a stream is no OpenVPN
    assert "openvpn" not in {tunnel.protocol for tunnel in seen(tmp_path, opened).tunnels}


@pytest.mark.parametrize(
    ("values", "holds"),
    [
        ([1, 2, *[3, 4, 5] * 33], True),
        ([1, 2, *[3, 4] * 49], True),  # four values
        ([1, 2, *[3] * 98], False),  # three
        ([1, 2, 3, 4, *[5] * 50, 1, *[5] * 45], False),  # a reset's value comes back
        ([1, 2, 1, 2, 3, 4, *[5] * 94], True),  # comes back before four are known: the resets are sent again
        ([1, 2, *range(3, 12), *[3] * 89], False),  # eleven values
        ([1, 2, *range(3, 11), *[3] * 90], True),  # ten
        ([1, 2, *[3, 4, 5] * 32], False),  # too short to say
    ],
)
def test_the_rule_of_opcodes_counts_values_and_forbids_the_first_two_to_come_back(
    values: list[int], holds: bool
) -> None:
    assert opcodes_run_as_a_handshake(values) is holds


def sizes_with(bins: Sequence[int], size: int = 22) -> list[int]:
    """A hundred sizes, so many of them `size` in each ten; the third is one of them."""
    found = []
    for index, count in enumerate(bins):
        ten = [1000] * 10
        for place in range(count):
            ten[(place + 2) % 10 if index == 0 else place] = size
        found += ten
    return found


@pytest.mark.parametrize(
    ("bins", "holds"),
    [
        ((3, 5, 5, 5, 5, 1, 1, 1, 1, 1), True),
        ((1, 2, 0, 0, 0, 0, 0, 0, 0, 0), True),
        ((4, 5, 5, 5, 5, 1, 1, 1, 1, 1), False),
        ((3, 1, 5, 5, 5, 1, 1, 1, 1, 1), False),
        ((3, 6, 5, 5, 5, 1, 1, 1, 1, 1), False),
        ((3, 5, 5, 5, 6, 1, 1, 1, 1, 1), False),
        ((3, 5, 5, 5, 5, 2, 1, 1, 1, 1), False),
        ((3, 5, 5, 5, 5, 1, 1, 1, 1, 2), False),
    ],
)
def test_the_rule_of_acknowledgements_holds_within_its_bins_alone(bins: tuple[int, ...], holds: bool) -> None:
    assert acknowledgements_run_as_a_handshake(sizes_with(bins), third_is_from_client=True) is holds
    assert not acknowledgements_run_as_a_handshake(sizes_with(bins), third_is_from_client=False)


def test_sizes_of_acknowledgements_alone_are_a_hint_of_which_no_sighting_is_made(tmp_path: Path) -> None:
    noise = random.Random(8)
    sizes = sizes_with((3, 5, 5, 5, 5, 1, 1, 1, 1, 1))
    said = [(index % 2 == 0, noise.randbytes(size)) for index, size in enumerate(sizes)]
    observation = seen(tmp_path, datagrams(said, 443))
    (tunnel,) = observation.tunnels
    assert (tunnel.protocol, tunnel.certainty, tunnel.packet) == ("openvpn", Certainty.POSSIBLE, 100)
    assert [s for s in observation.sightings if s.kind is Kind.TUNNEL] == []


# A block cipher without header


def blocks(seed: int, extra: int, count: int = 40) -> list[tuple[bool, bytes]]:
    noise = random.Random(seed)
    return [(index % 3 > 0, noise.randbytes(48 + extra + 16 * noise.randrange(12))) for index in range(count)]


@pytest.mark.parametrize(("extra", "words"), [(4, "SHA-1"), (0, "16, 32 or 64")])
def test_packets_without_header_in_whole_blocks_are_likely_a_static_key_tunnel(
    tmp_path: Path, extra: int, words: str
) -> None:
    (tunnel,) = seen(tmp_path, datagrams(blocks(1, extra), 5000)).tunnels
    assert (tunnel.protocol, tunnel.certainty) == ("openvpn-static-key", Certainty.LIKELY)
    assert words in tunnel.rule
    framed = [(way, len(data).to_bytes(2, "big") + data) for way, data in blocks(1, extra)]
    (tunnel,) = seen(tmp_path, stream(framed, 5000)).tunnels
    assert (tunnel.protocol, tunnel.transport) == ("openvpn-static-key", "tcp")


@pytest.mark.parametrize(
    "said",
    [
        [(way, b"\x80" + data[1:]) for way, data in blocks(2, 4)],  # a header
        [(way, index.to_bytes(4, "big") + data[4:]) for index, (way, data) in enumerate(blocks(2, 4))],  # a counter
        [*blocks(2, 4, 10), (True, octets(3, 61)), *blocks(2, 4, 30)],  # one length that does not fit
        blocks(2, 7),  # a remainder that no HMAC leaves
        [(way, data) for way, data in blocks(2, 4) if way],  # one direction
        [(way, data[:52]) for way, data in blocks(2, 4)],  # one length
    ],
)
def test_what_has_a_header_or_other_lengths_is_none(tmp_path: Path, said: Said) -> None:
    assert seen(tmp_path, datagrams(said, 5000)).tunnels == ()


# IPsec


def ike(initiator: bytes, responder: bytes, exchange: int = 34, version: int = 0x20, flags: int = 0x08) -> bytes:
    body = octets(9, 200)
    first_payload = 33 if version == 0x20 else 1  # a security association
    head = initiator + responder + bytes((first_payload, version, exchange, flags)) + bytes(4)
    return head + (len(head) + 4 + len(body)).to_bytes(4, "big") + body


@pytest.mark.parametrize("port", [500, 4500, 7000])
@pytest.mark.parametrize(("version", "exchange", "words"), [(0x20, 34, "IKEv2"), (0x10, 2, "IKEv1")])
def test_ike_is_certain_with_the_answer_on_any_port(
    tmp_path: Path, port: int, version: int, exchange: int, words: str
) -> None:
    marker = bytes(4) if port == 4500 else b""
    asked = marker + ike(b"initiate", bytes(8), exchange, version)
    answered = marker + ike(b"initiate", b"responds", exchange, version, 0x20)
    (tunnel,) = seen(tmp_path, datagrams([(True, asked), (False, answered)], port)).tunnels
    assert (tunnel.protocol, tunnel.certainty, tunnel.frame) == ("ipsec", Certainty.CERTAIN, 2)
    assert (tunnel.client.address, words in tunnel.rule) == (A, True)
    other = marker + ike(b"somebody", b"responds", exchange, version, 0x20)
    assert seen(tmp_path, datagrams([(True, asked), (False, other)], port)).tunnels == ()
    longer = [(True, asked + b"\0"), (False, answered + b"\0")]
    assert seen(tmp_path, datagrams(longer, port)).tunnels == ()


def esp(spi: bytes, first: int, count: int, seed: int) -> list[bytes]:
    noise = random.Random(seed)
    return [
        spi + number.to_bytes(4, "big") + noise.randbytes(60 + 4 * (number % 9))
        for number in range(first, first + count)
    ]


def test_esp_in_udp_is_likely_by_both_counters(tmp_path: Path) -> None:
    ours, theirs = esp(b"\xc1\xd2\xe3\xf4", 500, 10, 1), esp(b"\x11\x22\x33\x44", 90, 10, 2)
    said = [pair for one, other in zip(ours, theirs, strict=True) for pair in ((True, one), (False, other))]
    keepalive = (True, b"\xff")
    (tunnel,) = seen(tmp_path, datagrams([keepalive, *said], 4500)).tunnels
    assert (tunnel.protocol, tunnel.certainty, tunnel.frame) == ("ipsec", Certainty.LIKELY, 13)
    one_way = [(True, packet) for packet in esp(b"\xc1\xd2\xe3\xf4", 500, 60, 1)]
    assert seen(tmp_path, datagrams(one_way, 4500)).tunnels == ()


def test_counters_under_one_header_for_both_directions_are_not_esp(tmp_path: Path) -> None:
    packets = esp(b"\xc1\xd2\xe3\xf4", 500, 30, 1)
    said = [(way, packet) for packet in packets for way in (True, False)]
    assert seen(tmp_path, datagrams(said, 4500)).tunnels == ()


def test_esp_whose_index_begins_like_an_opcode_is_not_taken_for_openvpn(tmp_path: Path) -> None:
    ours, theirs = esp(b"\x48\x00\x00\x07", 500, 10, 1), esp(b"\x49\x12\x34\x56", 90, 10, 2)
    said = [pair for one, other in zip(ours, theirs, strict=True) for pair in ((True, one), (False, other))]
    (tunnel,) = seen(tmp_path, datagrams(said, 4500)).tunnels
    assert tunnel.protocol == "ipsec"


# DTLS


def record(kind: int, number: int, size: int, version: bytes = b"\xfe\xfd", epoch: int = 0) -> bytes:
    head = bytes((kind,)) + version + epoch.to_bytes(2, "big") + number.to_bytes(6, "big")
    return head + size.to_bytes(2, "big") + octets(number, size)


def dtls(size: int = 1200, count: int = 60) -> list[tuple[bool, bytes]]:
    handshake = [(True, record(22, 0, 180)), (False, record(22, 0, 60) + record(22, 1, 900))]
    data = [(way, record(23, number, size, epoch=1)) for number in range(count) for way in (True, False)]
    return [*handshake, *data]


TLS_HELLO = b"\x16\x03\x01\x00\x30\x01\x00\x00\x2c\x03\x03" + bytes(42)


def test_dtls_to_the_server_of_a_tls_connection_is_likely_a_vpn(tmp_path: Path) -> None:
    tls = stream([(True, TLS_HELLO), (False, b"\x16\x03\x03\x00\x04\x02\x00\x00\x00")], 443)
    late = stream(
        [(True, TLS_HELLO), (False, b"\x16\x03\x03\x00\x04\x02\x00\x00\x00"), (True, b"\x17\x03\x03\x00\x01a")], 443
    )
    (tunnel,) = seen(tmp_path, [*tls, *datagrams(dtls(100, 5), 443), late[-1]]).tunnels
    assert (tunnel.protocol, tunnel.certainty) == ("anyconnect-like", Certainty.LIKELY)
    assert tunnel.frame == len(tls) + 2
    elsewhere = [*tls, *datagrams(dtls(100, 5), 4433), late[-1]]
    assert seen(tmp_path, elsewhere).tunnels == ()
    over = [*tls, *datagrams(dtls(100, 5), 443)]
    assert seen(tmp_path, over).tunnels == ()  # the connection was silent before DTLS began: it may be long gone


def test_dtls_alone_is_a_hint_if_it_carries_much_and_is_no_call(tmp_path: Path) -> None:
    (tunnel,) = seen(tmp_path, datagrams(dtls(), 4433)).tunnels
    assert (tunnel.protocol, tunnel.certainty) == ("dtls", Certainty.POSSIBLE)
    assert seen(tmp_path, datagrams(dtls(size=60), 4433)).tunnels == ()
    assert seen(tmp_path, datagrams(dtls(count=40), 4433)).tunnels == ()
    stun = b"\0\1\0\0\x21\x12\xa4\x42" + bytes(12)
    call = dtls()
    assert seen(tmp_path, datagrams([*call[:2], (True, stun), *call[2:]], 4433)).tunnels == ()


def test_a_call_is_told_from_a_tunnel_by_stun_at_any_time() -> None:
    stun = (True, b"\0\1\0\0\x21\x12\xa4\x42" + bytes(12))
    said = dtls(count=5)
    for at in range(len(said)):
        found = read_dtls([*said[:at], stun, *said[at:]])
        assert found is not None
        assert found.is_call
    plain = read_dtls(said)
    assert plain is not None
    assert (plain.is_call, plain.certain_at, plain.data_sent, plain.data_received) == (False, 1, 5, 5)
    assert read_dtls([said[0]]) is None


# What introduces itself


@pytest.mark.parametrize(
    ("client", "server", "protocol"),
    [
        (b"0 alice 17.0\n1 94 64 0 0 ABCD\n", b"0 bob 17\n1 94 64 0 0 CDEF\n", "tinc"),
        (b"0 alice 17.0\n", b"what do you want?\n", ""),
        (b"\0\x9c\0\1\x1a\x2b\x3c\x4d\0\1" + bytes(146), b"\0\x9c\0\1\x1a\x2b\x3c\x4d\0\2" + bytes(146), "pptp"),
        (b"\0\x9c\0\1\x1a\x2b\x3c\x4d\0\1" + bytes(146), bytes(156), ""),
        (b"IKETCP\0\0" + bytes(40), bytes(40), "ipsec"),
        (b"SSH-2.0-x\r\n", b"SSH-2.0-y\r\n", ""),  # a session, and no more known of it
    ],
)
def test_tunnels_that_introduce_themselves_are_certain(
    tmp_path: Path, client: bytes, server: bytes, protocol: str
) -> None:
    found = seen(tmp_path, stream([(True, client), (False, server)], 7000)).tunnels
    assert [(tunnel.protocol, tunnel.certainty.value) for tunnel in found] == (
        [(protocol, "certain")] if protocol else []
    )


def ssh_session(turns: Sequence[tuple[int, int]]) -> list[tuple[bool, bytes]]:
    handshake = [(True, b"SSH-2.0-OpenSSH_9.2\r\n"), (False, b"SSH-2.0-dropbear\r\n")]
    handshake += [(way, octets(size, size)) for size in (900, 1100, 300, 500, 200) for way in (True, False)]
    return handshake + [
        (way, octets(size, size)) for asked, got in turns for way, size in ((True, asked), (False, got))
    ]


@pytest.mark.parametrize(
    ("turns", "hint"),
    [
        ([(500, 3000)] * 8, True),
        ([(500, 3000)] * 7, False),
        ([(36, 52)] * 200, False),  # keystrokes and their echo
        ([(100, 30_000)] * 20, False),  # a copy: windows are adjusted
    ],
)
def test_an_ssh_session_that_takes_turns_with_large_messages_may_forward(
    tmp_path: Path, turns: list[tuple[int, int]], hint: bool
) -> None:
    observation = seen(tmp_path, stream(ssh_session(turns), 22))
    assert [tunnel.certainty for tunnel in observation.tunnels] == [Certainty.POSSIBLE] * hint
    assert observation.flows[0].application == "ssh"


def test_of_a_long_ssh_session_the_beginning_is_enough(tmp_path: Path) -> None:
    """More than the observer looks at, in segments of all sizes: the hint is where it was."""
    turns = [(500, 3000)] * 8 + [(500, 60_000)] * 30
    (tunnel,) = seen(tmp_path, stream(ssh_session(turns), 22)).tunnels
    (short,) = seen(tmp_path, stream(ssh_session(turns[:8]), 22)).tunnels
    assert tunnel.frame == short.frame


# Fully encrypted


UNPRINTABLE = b"\x8f\x83" * 30  # four bits on average


def with_bits(bits: float, size: int = 100) -> bytes:
    """Octets without printable ones, so many bits of which are set on average."""
    low, high = (0x07, 0x0F) if bits < 4 else (0x0F, 0x8F)
    count = round((bits - low.bit_count()) * size)
    return bytes([high] * count + [low] * (size - count))


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (with_bits(3.4), "3.40 bits"),
        (with_bits(3.45), ""),
        (with_bits(4.6), "4.60 bits"),
        (with_bits(4.55), ""),
        (b"abcdef" + UNPRINTABLE, "first six"),
        (b"abcde" + UNPRINTABLE, ""),
        (b"\x8f" + b"k\x83" * 15 + b"kk", "more than half"),
        (b"\x8f" + b"k\x83" * 15 + b"k", ""),
        (UNPRINTABLE + b"k" * 21, "20 octets in a row"),
        (UNPRINTABLE + b"k" * 20, ""),
        (b"\x16\x03\x01" + UNPRINTABLE, "TLS"),
        (b"\x17\x03\x09" + UNPRINTABLE, "TLS"),
        (b"\x16\x03\x0a" + UNPRINTABLE, ""),
        (b"GET " + UNPRINTABLE, "HTTP"),
        (b"", "no payload"),
    ],
)
def test_each_exemption_of_the_firewall_holds_within_its_bounds(payload: bytes, words: str) -> None:
    reason = encrypted.exemption(payload)
    assert words in reason
    assert bool(reason) is bool(words)


def test_a_connection_encrypted_from_its_first_octet_is_a_hint_if_its_beginning_was_seen(tmp_path: Path) -> None:
    said = [(True, octets(1, 300)), (False, octets(2, 700))]
    (tunnel,) = seen(tmp_path, stream(said, 8388)).tunnels
    assert (tunnel.protocol, tunnel.certainty, tunnel.frame) == ("fully-encrypted", Certainty.POSSIBLE, 4)
    assert "0.6 %" in tunnel.false_positives
    assert seen(tmp_path, stream(said, 8388, opened=False)).tunnels == ()


# Fastd, and what a detector costs


def fastd_handshake(step: int) -> bytes:
    records = b"\0\0\1\0" + bytes((step,)) + b"\4\0\x05\0tunne" + b"\x09\0\x03\0xyz"
    return b"\1\0" + len(records).to_bytes(2, "big") + records


def test_fastd_says_who_began(tmp_path: Path) -> None:
    (tunnel,) = seen(tmp_path, datagrams([(True, fastd_handshake(1))], 10000)).tunnels
    assert (tunnel.protocol, tunnel.client.address) == ("fastd", A)
    (tunnel,) = seen(tmp_path, datagrams([(True, fastd_handshake(2))], 10000)).tunnels
    assert tunnel.client.address == B
    assert seen(tmp_path, datagrams([(True, fastd_handshake(1) + b"\0")], 10000)).tunnels == ()


@pytest.mark.parametrize(
    ("make", "most"),
    [
        (lambda number: octets(number, 899), 40),  # random octets
        (lambda number: b"\x80\x60" + number.to_bytes(2, "big") + octets(number, 160), 100),  # a call's sound
        (lambda number: b"\0\1" + number.to_bytes(4, "big") + b"\0" * 50, 100),
        (lambda number: b"\x40" + octets(number, 1200), 100),  # QUIC's short header
        (lambda number: b"text number %d" % number, 100),
    ],
)
def test_no_detector_looks_at_more_than_a_hundred_packets_of_ordinary_traffic(
    make: Callable[[int], bytes], most: int
) -> None:
    detectors = datagram_detectors(make(0))
    packets = 0
    while detectors:
        packet = make(packets)
        assert not any(detector.add(packet, packets % 2 == 0) for detector in detectors)
        detectors = [detector for detector in detectors if not detector.hopeless]
        packets += 1
    assert packets <= most

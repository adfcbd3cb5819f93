"""Opened packets: layers cover the octets they name, summaries read like Wireshark's, hostile octets never raise."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from testbed.capture import pcapng
from testbed.capture.reader import CaptureReader, Frame
from testbed.dissection.capture import CaptureDissector
from testbed.dissection.openvpn import recognise
from testbed.dissection.shown import shown_packets
from testbed.report.packets import Layer, PacketView
from testbed.result import Evidence, Exposure, FactRef, RunResult, TapRecord, VariantResult, Verdict

CAPTURES = Path(__file__).parents[1] / "data" / "captures"
CLIENT, SERVER = bytes((192, 168, 0, 13)), bytes((198, 51, 100, 10))
SYN, ACK, PSH_ACK = 0x02, 0x10, 0x18


def ipv4(protocol: int, body: bytes, source: bytes = CLIENT, destination: bytes = SERVER) -> bytes:
    return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 1, 0x4000, 64, protocol, 0, source, destination) + body


def udp(payload: bytes, ports: tuple[int, int], *, back: bool = False) -> bytes:
    ends = (SERVER, CLIENT) if back else (CLIENT, SERVER)
    return ipv4(17, struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload, *ends)


def tcp(
    payload: bytes,
    sequence: int,
    flags: int = PSH_ACK,
    *,
    acknowledged: int = 0,
    options: bytes = b"",
    back: bool = False,
) -> bytes:
    ports = (80, 40000) if back else (40000, 80)
    word = (5 + len(options) // 4) << 12 | flags
    header = struct.pack("!HHIIHHHH", *ports, sequence, acknowledged, word, 512, 0, 0) + options
    return ipv4(6, header + payload, *((SERVER, CLIENT) if back else (CLIENT, SERVER)))


def opened(*packets: bytes, link_type: int = pcapng.LINKTYPE_RAW) -> list[PacketView]:
    dissector = CaptureDissector()
    return [
        dissector.open(Frame(number, number * 10**9, link_type, data, len(data), 0))
        for number, data in enumerate(packets, start=1)
    ]


def layer(view: PacketView, name: str) -> Layer:
    return next(one for one in view.layers if one.name == name)


def test_a_name_that_is_asked_for_reads_as_in_wireshark() -> None:
    query = bytes.fromhex("abcd0100000100000000000003777777076578616d706c6503636f6d0000010001")
    (view,) = opened(udp(query, (40000, 53)))
    assert (view.protocol, view.summary) == ("DNS", "Standard query 0xabcd A www.example.com")
    assert (view.source, view.destination) == ("192.168.0.13", "198.51.100.10")
    assert ("question", "www.example.com A") in layer(view, "Domain Name System").fields
    assert view.octets[layer(view, "Domain Name System").start :] == query


def test_tcp_numbers_are_relative_and_the_window_is_scaled_once_both_ends_agreed() -> None:
    scale = bytes.fromhex("01030307")
    views = opened(
        tcp(b"", 1000, SYN, options=scale),
        tcp(b"", 9000, SYN | ACK, acknowledged=1001, options=scale, back=True),
        tcp(b"hello", 1001, acknowledged=9001),
    )
    assert [view.summary for view in views] == [
        "40000 → 80 [SYN] Seq=0 Win=512 Len=0 WS=128",
        "80 → 40000 [SYN, ACK] Seq=0 Ack=1 Win=512 Len=0 WS=128",
        "40000 → 80 [PSH, ACK] Seq=1 Ack=1 Win=65536 Len=5",
    ]


def test_a_request_in_two_segments_is_named_by_the_first_and_shown_whole_by_the_second() -> None:
    request = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"
    first, second = opened(tcp(request[:-4], 1), tcp(request[-4:], 1 + len(request) - 4))
    assert first.summary == "POST /a HTTP/1.1  [TCP segment of a reassembled PDU]"
    assert (second.protocol, second.summary) == ("HTTP", "POST /a HTTP/1.1")
    fields = dict(layer(second, "Hypertext Transfer Protocol").fields)
    assert (fields["put together from"], fields["body"], fields["Host"]) == ("frames 1, 2", "body", "x")
    assert second.octets[layer(second, "Hypertext Transfer Protocol").start :] == b"body"


def test_a_long_body_is_put_together_and_named_again_by_its_last_segment() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5000\r\n\r\n"
    pieces = [head + b"a" * 1000, *(b"b" * 1000,) * 4]
    starts = [1, *(1 + len(head) + 1000 * number for number in range(1, 5))]
    views = opened(*(tcp(piece, start, back=True) for piece, start in zip(pieces, starts, strict=True)))
    assert [view.protocol for view in views] == ["TCP"] * 4 + ["HTTP"]
    assert all(view.summary.endswith("[TCP segment of a reassembled PDU]") for view in views[:4])
    assert views[4].summary == "HTTP/1.1 200 OK  (text/plain)"


def test_a_hole_in_the_stream_never_joins_what_does_not_belong_together() -> None:
    request = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
    views = opened(tcp(request[:20], 1), tcp(bytes(8), 25), tcp(request[20:], 33), tcp(request[20:], 21))
    assert all(view.protocol == "TCP" for view in views)


@pytest.mark.parametrize(
    ("file", "wrapping"),
    [("openvpn-crypt", "tls-crypt: encrypted"), ("openvpn-auth256", "tls-auth: readable"), ("openvpn-plain", None)],
)
def test_the_wrapping_of_the_control_channel_is_told_from_the_first_packet(file: str, wrapping: str | None) -> None:
    with CaptureReader(CAPTURES / f"{file}.pcapng") as reader:
        first = opened(*(frame.data for frame in reader), link_type=pcapng.LINKTYPE_ETHERNET)[0]
    assert first.summary == "MessageType: P_CONTROL_HARD_RESET_CLIENT_V2"
    assert dict(layer(first, "OpenVPN").fields).get("control channel") == wrapping


def test_what_a_data_packet_carries_is_marked_encrypted_and_its_counter_is_not() -> None:
    reset = b"\x38" + b"s" * 8 + bytes(5)
    data = b"\x48\x00\x00\x07" + (1).to_bytes(4, "big") + bytes(range(60))
    view = opened(udp(reset, (40000, 1194)), udp(data, (40000, 1194)))[1]
    header, sealed = view.layers[-2:]
    assert view.summary == "MessageType: P_DATA_V2"
    assert dict(header.fields) == {"opcode": "P_DATA_V2 (9)", "key id": "0", "peer id": "7", "packet id": "1"}
    assert (header.encrypted, sealed.encrypted) == (False, True)
    assert view.octets[sealed.start : sealed.end] == bytes(range(60))


def test_random_octets_on_the_tunnels_port_are_not_taken_for_its_headers() -> None:
    (view,) = opened(udp(bytes(range(7, 100)), (40000, 1194)))
    assert (view.protocol, view.layers[-1].name) == ("UDP", "Data")
    assert recognise(b"") is None


def test_a_tls_hello_tells_the_name_and_application_data_is_encrypted() -> None:
    name = b"www.example.com"
    server_name = struct.pack("!HHHBH", 0, len(name) + 5, len(name) + 3, 0, len(name)) + name
    hello = b"\x03\x03" + bytes(32) + b"\0" + b"\0\x02\x13\x01" + b"\x01\0" + struct.pack("!H", len(server_name))
    hello += server_name
    handshake = b"\x01" + len(hello).to_bytes(3, "big") + hello
    record = b"\x16\x03\x01" + len(handshake).to_bytes(2, "big") + handshake
    sealed = b"\x17\x03\x03\x00\x10" + bytes(16)
    first, second = opened(tcp(record, 1), tcp(sealed, 1 + len(record)))
    assert (first.protocol, first.summary) == ("TLSv1", "Client Hello")
    assert ("server name", "www.example.com") in first.layers[-1].fields
    assert (second.summary, second.layers[-1].encrypted) == ("Application Data", True)


def test_what_follows_a_change_of_ciphers_is_encrypted_whatever_its_record_says() -> None:
    hello = b"\x16\x03\x03\x00\x04\x0e\x00\x00\x00"
    change, finished = b"\x14\x03\x03\x00\x01\x01", b"\x16\x03\x03\x00\x10" + bytes(range(16))
    clear, sealed = opened(tcp(hello, 1), tcp(change + finished, 1 + len(hello)))
    assert (clear.summary, clear.layers[-1].encrypted) == ("Server Hello Done", False)
    assert sealed.summary == "Change Cipher Spec, Encrypted Handshake Message"
    assert [one.encrypted for one in sealed.layers[-2:]] == [False, True]


def test_a_frame_without_an_ip_packet_and_one_that_is_cut_off_are_said_to_be_so() -> None:
    lldp, short = opened(bytes(12) + b"\x88\xcc\x02\x07", bytes(9), link_type=pcapng.LINKTYPE_ETHERNET)
    assert lldp.summary == "Ethernet type 0x88cc"
    assert "cut off" in short.summary
    assert "cut off" in opened(ipv4(17, b"\x00\x35"))[0].summary


def check(views: list[PacketView]) -> None:
    for view in views:
        for one in view.layers:
            assert 0 <= one.start <= one.end <= len(view.octets)
            assert all(isinstance(text, str) for field in one.fields for text in field)


@example([b"\x08\x00"], 276)  # a cooked header cut short after its protocol
@given(st.lists(st.binary(max_size=300), max_size=4), st.sampled_from((0, 1, 9, 12, 101, 113, 276, 999)))
def test_any_octets_of_any_link_type_open_without_an_error(packets: list[bytes], link_type: int) -> None:
    check(opened(*packets, link_type=link_type))


@given(st.lists(st.tuples(st.sampled_from((1, 6, 17, 58)), st.binary(max_size=200)), max_size=5))
def test_any_octets_in_an_ip_packet_open_without_an_error(parts: list[tuple[int, bytes]]) -> None:
    check(opened(*(ipv4(protocol, body) for protocol, body in parts)))


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=120)), max_size=6), st.sampled_from((53, 80, 443, 1194)))
def test_any_octets_that_claim_to_be_a_protocol_open_without_an_error(
    parts: list[tuple[bool, bytes]], port: int
) -> None:
    starts = (
        *(b"\x38" + b"s" * 13, b"\x16\x03\x01\x00", b"GET / HTTP/1.1\r\n"),
        *(b"\x00\x0e\x38ssssssss", b"\x12\x34\x81\x80"),
    )
    sequence = 1
    packets = []
    for number, (as_tcp, body) in enumerate(parts):
        octets = starts[(number + port) % len(starts)] + body
        packets.append(tcp(octets, sequence) if as_tcp else udp(octets, (40000, port)))
        sequence += len(octets) if as_tcp else 0
    check(opened(*packets))


@pytest.mark.parametrize("file", sorted(path.name for path in CAPTURES.glob("*.pcapng")))
def test_recorded_tunnels_with_flipped_octets_and_cut_ends_open_without_an_error(file: str) -> None:
    with CaptureReader(CAPTURES / file) as reader:
        frames = [frame.data for frame in reader]
    chance = random.Random(file)
    for _ in range(40):
        damaged = []
        for data in frames:
            octets = bytearray(data)
            for _ in range(chance.randrange(4)):
                octets[chance.randrange(len(octets))] = chance.randrange(256)
            damaged.append(bytes(octets[: chance.choice((len(octets), chance.randrange(len(octets))))]))
        check(opened(*damaged, link_type=pcapng.LINKTYPE_ETHERNET))


def test_the_frames_that_evidence_names_are_opened_and_the_first_observers_are_listed() -> None:
    def tap(name: str) -> TapRecord:
        return TapRecord(name, "n", "i", f"{name}.pcapng", 26, 1, 0)

    def seen(observer: str, file: str, frame: int, wanted: str = "udp") -> Exposure:
        proof = tuple(Evidence(file, number, 0.0, wanted) for number in range(frame, frame + 5))
        return Exposure(observer, FactRef("tunnel", "x", ""), Verdict.SEEN, proof)

    exposure = (
        seen("isp", "openvpn-plain.pcapng", 3),
        seen("transit", "openvpn-crypt.pcapng", 1),
        seen("server:x", "logs/x.jsonl", 1, ""),
    )
    taps = (TapRecord("isp", "n", "i", "openvpn-plain.pcapng", 26, 1, 0), tap("openvpn-crypt"))
    variant = VariantResult("with", None, (), (), (), (), taps, exposure, (), {})
    shown = shown_packets(RunResult({}, 1, True, {"with": variant}, (), {}), CAPTURES)
    plain, crypt = "openvpn-plain.pcapng", "openvpn-crypt.pcapng"
    assert set(shown.packets) == {(crypt, 1), (crypt, 2), *((plain, frame) for frame in range(1, 27))}
    assert list(shown.packets)[:4] == [(plain, 3), (plain, 4), (crypt, 1), (crypt, 2)]  # proofs before the list
    assert [line.frame for line in shown.lists["with"]] == list(range(1, 27))
    assert shown.lists["with"][2].summary == shown.packets[plain, 3].summary

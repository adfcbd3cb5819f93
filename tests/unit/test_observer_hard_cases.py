"""What is allowed and seldom: pieces that overlap, headers in pieces, ports used again, messages that break off."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.dns import DNS, DNSQR, DNSRR
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, GRE, Ether
from scapy.packet import Raw

from testbed.capture import pcapng
from testbed.facts import Kind
from testbed.observer import Limits, Observation, observe
from testbed.observer.tls import parse_client_hello, parse_handshakes
from tests.unit.test_observer_conversations import request, response, seen, tcp, udp, values
from tests.unit.test_observer_fingerprints import client_hello

A, B = "10.1.0.1", "10.2.0.2"
A6, B6 = "2001:db8::1", "2001:db8::2"
NAME = "secret.example.com"
QUESTION = bytes(DNS(id=1, rd=1, qd=DNSQR(qname=NAME)))
OTHER = bytes(DNS(id=2, rd=1, qd=DNSQR(qname="other.example.com")))
DATAGRAM = bytes(UDP(sport=4000, dport=53) / Raw(QUESTION))
PACKET = IP(src=A, dst=B) / UDP(sport=4000, dport=53) / Raw(QUESTION)
LEASE = b"\1\1\6\0" + bytes(24) + b"\2\0\0\0\0\x0a" + bytes(10)  # of DHCP, up to the two fields
VXLAN = IP(src=A, dst=B) / UDP(sport=40_000, dport=4789) / Raw(b"\x08\0\0\0\0\0\5\0")


def piece4(offset: int, more: bool, octets: bytes) -> Any:
    return IP(src=A, dst=B, id=9, flags=int(more), frag=offset, proto=17) / Raw(octets)


def piece6(header: int, offset: int, more: bool, octets: bytes) -> Any:
    fragment = IPv6ExtHdrFragment(nh=header, offset=offset, m=int(more), id=7)
    return IPv6(src=A6, dst=B6, nh=44) / fragment / Raw(octets)


OPTIONED = bytes(IPv6ExtHdrDestOpt(nh=17)) + DATAGRAM
HEAD, TAIL = DATAGRAM[:32], DATAGRAM[32:]
PIECES = {
    "an extension header in pieces": [piece6(60, 0, True, OPTIONED[:24]), piece6(60, 3, False, OPTIONED[24:])],
    "a later piece that names another header": [piece6(17, 0, True, HEAD), piece6(59, 4, False, TAIL)],
    "the same beginning, longer": [piece4(0, True, HEAD[:16]), piece4(0, True, HEAD), piece4(4, False, TAIL)],
    "the last piece first, twice": [*2 * [piece4(4, False, TAIL)], piece4(0, True, HEAD)],
}  # fmt: skip


@pytest.mark.parametrize("frames", PIECES.values(), ids=PIECES)
def test_a_question_in_pieces_is_read_however_it_was_cut(frames: list[Any], tmp_path: Path) -> None:
    observation = seen(tmp_path, frames)
    assert values(observation, Kind.DNS_NAME) == [NAME]
    assert observation.warnings == ()


def at_times(directory: Path, frames: Sequence[tuple[float, Any]]) -> Observation:
    blocks = [pcapng.build_section_header("test"), pcapng.build_interface("x", pcapng.LINKTYPE_ETHERNET)]
    for seconds, frame in frames:
        data = bytes(Ether(src="02:00:00:00:00:0a", dst="02:00:00:00:00:0b") / frame)
        blocks.append(pcapng.build_packet(0, 10**18 + int(seconds * 1e9), data, len(data)))
    path = directory / "x.pcapng"
    path.write_bytes(b"".join(blocks))
    return observe(path)


@pytest.mark.parametrize(("later", "found"), [(61, ["other.example.com"]), (50, [])])
def test_pieces_of_a_datagram_that_never_became_whole_are_no_part_of_a_later_one(
    later: float, found: list[str], tmp_path: Path
) -> None:
    second = bytes(UDP(sport=4000, dport=53) / Raw(OTHER))
    frames = [
        (0.0, piece4(0, True, DATAGRAM[:24])),
        (later, piece4(0, True, second[:32])),
        (later, piece4(4, False, second[32:])),
    ]
    observation = at_times(tmp_path, frames)
    assert values(observation, Kind.DNS_NAME) == found
    assert any("incomplete" in warning for warning in observation.warnings) == bool(found)


def test_what_authentication_signs_over_ipv4_is_read_as_over_ipv6(tmp_path: Path) -> None:
    for ends in (IP(src=A, dst=B, proto=51), IPv6(src=A6, dst=B6, nh=51)):
        signed = ends / Raw(b"\x11\4\0\0" + bytes(20) + DATAGRAM)
        assert values(seen(tmp_path, [signed]), Kind.DNS_NAME) == [NAME]


def test_options_of_ip_before_a_question_hide_nothing(tmp_path: Path) -> None:
    packet = IP(src=A, dst=B, options=IPOption(b"\x94\x04\0\0")) / UDP(sport=4000, dport=53) / Raw(QUESTION)
    assert values(seen(tmp_path, [packet]), Kind.DNS_NAME) == [NAME]


def test_a_syn_after_the_tail_of_an_older_conversation_begins_another_with_its_answer(tmp_path: Path) -> None:
    for flags, tail in (("PA", b"the tail of something"), ("FA", b"")):
        older = IP(src=B, dst=A) / TCP(sport=80, dport=4000, seq=900_000, flags=flags) / Raw(tail)
        frames = [older, *tcp([(True, request("/one")), (False, response(b"the answer"))])]
        observation = seen(tmp_path, frames)
        assert values(observation, Kind.HTTP_BODY) == ["the answer"]
        assert [flow.sent.packets + flow.received.packets for flow in observation.flows] == [1, 4]


ANSWER = bytes(DNS(qr=1, ra=1, qd=DNSQR(qname=NAME), an=[DNSRR(rrname=NAME, rdata=f"1.2.3.{n}") for n in (1, 2)]))
BROKEN = {
    "cut off in its records": (ANSWER[:-3], [NAME], ["1.2.3.1"]),
    "cut off in its question": (QUESTION[:-6], [], []),
    "nonsense behind the question": (QUESTION[:10] + b"\0\1" + QUESTION[12:] + b"\xc0", [NAME], []),
    "no class that there is": (QUESTION[:10] + b"\0\1" + QUESTION[12:-2] + b"\x77\x77\xc0", [], []),
    "no name": (QUESTION[:10] + b"\0\1\0\0\1\0\1\xc0", [], []),
}


@pytest.mark.parametrize(("message", "names", "answers"), BROKEN.values(), ids=BROKEN)
def test_a_message_that_breaks_off_is_read_as_far_as_it_is_one_beyond_doubt(
    message: bytes, names: list[str], answers: list[str], tmp_path: Path
) -> None:
    observation = seen(tmp_path, udp([(True, message)], port=53))
    assert values(observation, Kind.DNS_NAME) == names
    assert values(observation, Kind.DNS_ANSWER) == answers
    assert len(observation.warnings) == 1


def test_the_owner_of_any_record_is_a_name(tmp_path: Path) -> None:
    record = DNSRR(rrname="Julia's Laptop._ssh._tcp.local", type="TXT", rdata="a=b")
    observation = seen(tmp_path, udp([(True, bytes(DNS(qr=1, qd=[], an=[record])))], source=5353, port=5353))
    assert values(observation, Kind.DNS_NAME) == ["julia's laptop._ssh._tcp.local"]


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


def test_dns_over_tcp_goes_on_behind_a_hole_an_empty_message_and_a_bad_one(tmp_path: Path) -> None:
    bad = framed(b"\xff" * 20)
    others = ["other.example.com", "third.example.com"]
    said = [(True, framed(QUESTION)[:20]), (True, framed(QUESTION)[20:])]
    said.append((True, framed(OTHER) + framed(b"") + framed(OTHER.replace(b"other", b"third"))))
    assert values(seen(tmp_path, tcp(said, port=53)), Kind.DNS_NAME) == [NAME, *others]
    assert values(seen(tmp_path, tcp(said, port=53, lost=frozenset((0,)))), Kind.DNS_NAME) == others
    mixed = [(True, framed(QUESTION) + bad + framed(OTHER))]
    assert values(seen(tmp_path, tcp(mixed, port=53)), Kind.DNS_NAME) == [NAME, "other.example.com"]
    assert values(seen(tmp_path, tcp([(True, bad + framed(OTHER))], port=53)), Kind.DNS_NAME) == []


def test_an_icmp_error_tells_what_the_packet_asked_for_over_tcp_and_inside_a_tunnel(tmp_path: Path) -> None:
    over_tcp = IP(src=A, dst=B) / TCP(sport=4000, dport=53, flags="PA") / Raw(framed(QUESTION))
    inside = IP(src=A, dst=B) / GRE() / IP(src="10.9.9.9", dst="10.8.8.8") / UDP(sport=4000, dport=53) / Raw(QUESTION)
    for quoted in (over_tcp, inside):
        observation = seen(tmp_path, [IP(src=B, dst=A) / ICMP(type=3, code=3) / Raw(bytes(quoted))])
        assert values(observation, Kind.DNS_NAME) == [NAME]
        assert ("10.8.8.8" in observation.addresses) == (quoted is inside)


def test_gre_may_carry_labels_and_vxlan_begins_with_arp(tmp_path: Path) -> None:
    labelled = IP(src=A, dst=B) / GRE(proto=0x8847) / Raw(b"\0\1\x41\x40" + bytes(PACKET))
    assert values(seen(tmp_path, [labelled]), Kind.DNS_NAME) == [NAME]
    asked = VXLAN / Raw(bytes(Ether(src="02:00:00:00:00:01") / ARP(psrc="10.9.9.9", pdst="10.8.8.8")))
    observation = seen(tmp_path, [*5 * [asked], VXLAN / Raw(bytes(Ether(src="02:00:00:00:00:01") / PACKET))])
    assert values(observation, Kind.DNS_NAME) == [NAME]
    assert [(tunnel.protocol, tunnel.frame) for tunnel in observation.tunnels] == [("vxlan", 1)]


def test_empty_lines_between_http_messages_are_passed_over(tmp_path: Path) -> None:
    asked = b"\r\n\r\n" + request("/one") + b"\r\n" + request("/two")
    said = [(True, asked), (False, response(b"a1") + b"\r\n" + response(b"b2"))]
    for only in (said, said[:1]):
        observation = seen(tmp_path, tcp(only))
        assert values(observation, Kind.HTTP_URL) == ["http://h.example/one", "http://h.example/two"]
        assert values(observation, Kind.PAYLOAD) == []
    assert values(seen(tmp_path, tcp(said)), Kind.HTTP_BODY) == ["a1", "b2"]


def test_headers_that_come_again_are_told_once_with_all_their_frames_up_to_the_limit(tmp_path: Path) -> None:
    said = [message for path in "abc" for message in ((True, request(f"/{path}")), (False, response(b"body")))]
    for most in (1, 2, 1000):
        seen(tmp_path, tcp(said))
        observation = observe(tmp_path / "x.pcapng", limits=Limits(frames_per_sighting=most))
        headers = {s.value: s.frames for s in observation.sightings if s.kind == Kind.HTTP_HEADER}
        assert headers == {"Host: h.example": (3, 5, 7)[:most], "Content-Length: 4": (4, 6, 8)[:most]}


@pytest.mark.parametrize(("length", "bodies"), [("2, 2", ["a1", "b2"]), ("2,3", None)])
def test_a_length_said_twice_is_one_length(length: str, bodies: list[str] | None, tmp_path: Path) -> None:
    first = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\na1".encode()
    said = [(True, request("/one") + request("/two")), (False, first + response(b"b2"))]
    found = values(seen(tmp_path, tcp(said)), Kind.HTTP_BODY)
    assert found == bodies if bodies else found[0].startswith("a1HTTP/1.1")


def test_the_filter_of_a_page_whose_address_is_not_ascii_has_octets_that_stand_there(tmp_path: Path) -> None:
    octets = "GET /é HTTP/1.1\r\nHost: hé.example\r\n\r\n".encode()
    observation = seen(tmp_path, tcp([(True, octets)]))
    (url,) = (s for s in observation.sightings if s.kind == Kind.HTTP_URL)
    needle = bytes.fromhex(url.display_filter.rpartition(" ")[2].replace(":", ""))
    assert url.value == "http://hé.example/é"
    assert needle in octets


@pytest.mark.parametrize(
    ("overload", "names"), [(0, []), (1, ["in-file"]), (2, ["in-sname"]), (3, ["in-filein-sname"])]
)
def test_options_of_dhcp_that_go_on_in_other_fields_are_read(overload: int, names: list[str], tmp_path: Path) -> None:
    sname, file = (bytes((12, len(name))) + name + b"\xff" for name in (b"in-sname", b"in-file"))
    options = b"\x63\x82\x53\x63\x35\1\1\x34\1" + bytes((overload,)) + b"\xff"
    message = LEASE + sname.ljust(64, b"\0") + file.ljust(128, b"\0") + options
    observation = seen(tmp_path, udp([(True, message)], source=68, port=67))
    assert [name.name for name in observation.names] == names
    assert [flow.application for flow in observation.flows] == ["dhcp"]


WARNING = b"\x15\3\3\0\2\1\x70"  # unrecognised name
SERVER_HELLO = b"\x16\3\3\0\x2a\2\0\0\x26\3\3" + bytes(range(32)) + b"\0\x13\1\0"


def test_a_warning_before_the_servers_hello_and_a_proxys_words_before_the_clients_hide_nothing(tmp_path: Path) -> None:
    hello = client_hello(b"name.example")
    proxied = b"PROXY TCP4 192.0.2.1 192.0.2.2 4000 443\r\n"
    for asked, answered in ((proxied + hello, SERVER_HELLO), (hello, WARNING + SERVER_HELLO)):
        observation = seen(tmp_path, tcp([(True, asked), (False, answered)], port=443))
        assert values(observation, Kind.TLS_NAME) == ["name.example"]
        assert values(observation, Kind.PAYLOAD) == ([proxied.decode()] if asked.startswith(proxied) else [])
        assert [hint.frames for hint in observation.hints if hint.what == "ja3s"] == [(4,)]


def extension(kind: int, octets: bytes) -> bytes:
    return kind.to_bytes(2, "big") + len(octets).to_bytes(2, "big") + octets


@pytest.mark.parametrize("behind", [extension(16, b"\0\x09\x08abc"), b"\0\x2b\xff", extension(13, b"\0\xff\4")])
def test_an_extension_that_makes_no_sense_does_not_hide_the_name_beside_it(behind: bytes) -> None:
    (handshake,) = parse_handshakes(client_hello(b"name.example"))
    named = extension(0, b"\0\x0f\0\0\x0cname.example") + behind
    body = handshake.body[:34] + b"\0\0\2\x13\1\1\0" + len(named).to_bytes(2, "big") + named
    hello = parse_client_hello(body)
    assert hello is not None
    assert hello.server_name == b"name.example"


def test_a_name_of_other_octets_is_found_by_those_that_wireshark_shows(tmp_path: Path) -> None:
    observation = seen(tmp_path, tcp([(True, client_hello("bücher.example".encode()))], port=443))
    (name,) = (s for s in observation.sightings if s.kind == Kind.TLS_NAME)
    assert name.value == "bücher.example"
    assert name.display_filter.startswith('tls.handshake.extensions_server_name contains "cher.example"')


@pytest.mark.parametrize("octets", [b"\x28\xb5\x2f\xfd\x04\x58", b"\x5e\x2a\x4d\x18\x20\0", b"\x1f\x9d\x90"])
def test_a_body_in_a_coding_that_is_not_undone_leaves_the_answer_incomplete(octets: bytes, tmp_path: Path) -> None:
    said = [(True, request("/one")), (False, response(octets + b"\xb1\xff" * 20, "Content-Encoding: zstd\r\n"))]
    observation = seen(tmp_path, tcp(said))
    assert not observation.complete
    assert "are not decoded" in observation.warnings[0]
    assert seen(tmp_path, tcp([said[0], (False, response(b"a text", "Content-Encoding: utf-8\r\n"))])).complete


def test_headers_of_http2_that_nobody_can_decompress_leave_the_answer_incomplete(tmp_path: Path) -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
    good, bad = b"\x82\x86\x84\x41\x01h", b"\xff\xff\xff\xff\x0f"
    for block, complete in ((good, True), (bad, False)):
        frame = len(block).to_bytes(3, "big") + b"\1\5\0\0\0\1" + block
        assert seen(tmp_path, tcp([(True, preface + frame)])).complete == complete

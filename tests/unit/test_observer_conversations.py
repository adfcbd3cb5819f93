"""Whole conversations, crafted frame by frame: one protocol inside or behind another, holes, moves, encrypted DNS."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.dns import DNS, DNSQR, DNSRR
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from testbed.capture import pcapng
from testbed.capture.reader import LARGE_FILE_OCTETS
from testbed.facts import Kind
from testbed.observer import Limits, Observation, observe
from testbed.observer.wire import quic
from testbed.report.observation import observation_text
from tests.unit.test_observer_fingerprints import client_hello
from tests.unit.test_observer_quic import Conversation
from tests.unit.test_observer_wire import configurations

A, B, H = "10.1.0.1", "10.2.0.2", "02:00:00:00:00:0a"
Said = list[tuple[bool, bytes]]


def seen(directory: Path, frames: list[Any]) -> Observation:
    blocks = [pcapng.build_section_header("test"), pcapng.build_interface("x", pcapng.LINKTYPE_ETHERNET)]
    for index, frame in enumerate(frames):
        data = bytes(Ether(src=H, dst=H) / frame)
        blocks.append(pcapng.build_packet(0, 1_700_000_000_000_000_000 + index * 1_000_000, data, len(data)))
    path = directory / "x.pcapng"
    path.write_bytes(b"".join(blocks))
    return observe(path)


def tcp(said: Said, port: int = 80, lost: frozenset[int] = frozenset()) -> list[Any]:
    """A conversation over TCP, a segment for each thing said; of those in `lost`, the capture knows nothing."""
    numbers = {True: 1000, False: 5000}
    frames = [IP(src=A, dst=B) / TCP(sport=4000, dport=port, seq=999, flags="S")]
    frames.append(IP(src=B, dst=A) / TCP(sport=port, dport=4000, seq=4999, flags="SA"))
    for index, (from_client, data) in enumerate(said):
        ends, ports = (IP(src=A, dst=B), (4000, port)) if from_client else (IP(src=B, dst=A), (port, 4000))
        if index not in lost:
            frames.append(ends / TCP(sport=ports[0], dport=ports[1], seq=numbers[from_client], flags="PA") / Raw(data))
        numbers[from_client] += len(data)
    return frames


def udp(said: Said, source: int = 4000, port: int = 443) -> list[Any]:
    there, back = IP(src=A, dst=B) / UDP(sport=source, dport=port), IP(src=B, dst=A) / UDP(sport=port, dport=source)
    return [(there if from_client else back) / Raw(data) for from_client, data in said]


def values(observation: Observation, kind: Kind) -> list[str]:
    return [sighting.value for sighting in observation.sightings if sighting.kind == kind]


def hints(observation: Observation, what: str) -> list[str]:
    return [hint.value for hint in observation.hints if hint.what == what]


def request(path: str, method: str = "GET", more: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: h.example\r\n{more}\r\n".encode()


def response(body: bytes, more: str = "") -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


def test_a_request_behind_a_hole_is_read_again_and_its_answer_belongs_to_it(tmp_path: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n"
    said = [
        (True, request("/one")), (False, response(b"first" * 9)),
        (True, request("/lost")), (False, response(b"lost" * 9)[:40]), (False, b"the rest of it is lost"),
        (True, request("/head", "HEAD")), (False, head), (True, request("/last")), (False, response(b"last body")),
    ]  # fmt: skip
    observation = seen(tmp_path, tcp(said, lost=frozenset((2, 4))))
    assert values(observation, Kind.HTTP_URL) == [f"http://h.example/{path}" for path in ("one", "head", "last")]
    assert "last body" in values(observation, Kind.HTTP_BODY)


def test_tls_and_clear_requests_inside_a_connect_are_read(tmp_path: Path) -> None:
    opened = [(True, request("inner.example:443", "CONNECT")), (False, b"HTTP/1.1 200 OK\r\n\r\n")]
    observation = seen(tmp_path, tcp([*opened, (True, client_hello(b"inner.example"))]))
    assert values(observation, Kind.TLS_NAME) == ["inner.example"]
    clear = seen(tmp_path, tcp([*opened, (True, request("/inside")), (False, response(b"inside"))]))
    assert "http://h.example/inside" in values(clear, Kind.HTTP_URL)
    assert values(clear, Kind.HTTP_BODY) == ["inside"]


def test_tls_behind_starttls_is_read_and_so_is_what_was_said_before(tmp_path: Path) -> None:
    said = [(False, b"220 mail.example\r\n"), (True, b"STARTTLS\r\n"), (True, client_hello(b"mail.example"))]
    observation = seen(tmp_path, tcp(said, 25))
    assert values(observation, Kind.TLS_NAME) == ["mail.example"]
    assert {"220 mail.example\r\n", "STARTTLS\r\n"} == set(values(observation, Kind.PAYLOAD))


def test_a_hello_whose_end_is_not_captured_still_tells_its_name(tmp_path: Path) -> None:
    hello = client_hello(b"cut.example")
    observation = seen(tmp_path, tcp([(True, hello[:90]), (True, hello[90:])], 443, lost=frozenset((1,))))
    (sighting,) = [s for s in observation.sightings if s.kind == Kind.TLS_NAME]
    assert (sighting.value, sighting.frames) == ("cut.example", (3,))
    assert sighting.display_filter == f"tcp.payload contains {b'cut.example'.hex(':')}"
    assert observation.warnings == ("a TLS ClientHello is not in the capture to its end (frame 3)",)


@pytest.mark.parametrize(("status", "method"), [(204, "GET"), (304, "GET"), (200, "HEAD")])
def test_an_answer_without_a_body_swallows_nothing(tmp_path: Path, status: int, method: str) -> None:
    empty = f"HTTP/1.1 {status} X\r\nContent-Length: 4000\r\n\r\n".encode()
    said = [(True, request("/a", method)), (False, empty), (True, request("/b")), (False, response(b"body of b"))]
    observation = seen(tmp_path, tcp(said))
    assert values(observation, Kind.HTTP_BODY) == ["body of b"]
    assert observation.warnings == ()


def test_codings_are_undone_in_turn_and_trailers_read(tmp_path: Path) -> None:
    twice = gzip.compress(gzip.compress(b"twice over"))
    chunks = b"%x\r\n%s\r\n0\r\nX-Sum: token-9e9e\r\n\r\n" % (len(twice), twice)
    coded = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: gzip, chunked\r\n\r\n" + chunks
    observation = seen(tmp_path, tcp([(True, request("/")), (False, coded)]))
    assert values(observation, Kind.HTTP_BODY) == ["twice over"]
    assert "X-Sum: token-9e9e" in values(observation, Kind.HTTP_HEADER)


def test_bodies_that_decode_to_more_than_the_limits_are_cut_and_it_is_said(tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(b"abcd" * 25_000))
    coded = response(bomb, "Content-Encoding: gzip\r\n")
    frames = tcp([(True, request("/")), (False, coded), (True, request("/")), (False, coded)])
    whole = seen(tmp_path, frames)
    assert whole.complete
    one = observe(tmp_path / "x.pcapng", limits=Limits(decoded_octets=1000))
    assert not one.complete
    assert [len(value) for value in values(one, Kind.HTTP_BODY)] == [1000]
    together = observe(tmp_path / "x.pcapng", limits=Limits(total_stream_octets=101_000))
    assert together.warnings[0].startswith("decoded bodies longer than the limit were cut")
    assert sum(len(s.data) for s in together.streams if s.layer == "http-body") <= 101_000


def hello_with_alpn(name: bytes, protocol: bytes) -> bytes:
    """The hello of the other test with a list of protocols in place of its padding."""
    padding = b"\0\x15\0\x40" + bytes(64)
    listed = bytes((len(protocol),)) + protocol
    alpn = b"\0\x10" + (len(listed) + 2).to_bytes(2, "big") + len(listed).to_bytes(2, "big") + listed
    rest = len(padding) - len(alpn) - 4
    return client_hello(name).replace(padding, alpn + b"\0\x15" + rest.to_bytes(2, "big") + bytes(rest))


@pytest.mark.parametrize(
    ("hello", "port", "application", "rule"),
    [
        (client_hello(b"r.example"), 853, "dot", "port 853"),
        (hello_with_alpn(b"r.example", b"dot"), 8853, "dot", "the client offers the protocol dot"),
        (client_hello(b"dns.google"), 443, "doh", "dns.google is a public resolver"),
        (client_hello(b"dns2.example.net"), 443, "doh", "the name begins with dns2."),
        (client_hello(b"dnsmasq.example.net"), 443, "tls", ""),
        (client_hello(b"r.example"), 443, "tls", ""),
    ],
)
def test_encrypted_dns_is_recognised_and_the_rule_is_said(
    tmp_path: Path, hello: bytes, port: int, application: str, rule: str
) -> None:
    observation = seen(tmp_path, tcp([(True, hello)], port))
    assert [flow.application for flow in observation.flows] == [application]
    assert [hint.rule for hint in observation.hints if hint.what == "encrypted-dns"] == ([rule] if rule else [])


@pytest.mark.parametrize("resolves", [True, False])
def test_a_resolver_in_clear_is_taken_for_one_on_443_as_well_and_an_authoritative_server_is_not(
    tmp_path: Path, resolves: bool
) -> None:
    answer = DNS(qr=1, ra=int(resolves), qd=DNSQR(qname="x.example"), an=DNSRR(rrname="x.example", rdata="192.0.2.1"))
    frames = [IP(src=B, dst=A) / UDP(sport=53, dport=4444) / answer, *tcp([(True, client_hello(b"r.example"))], 443)]
    observation = seen(tmp_path, frames)
    assert observation.flows[1].application == ("doh" if resolves else "tls")


def hello_with_ech(name: bytes, config_id: int) -> bytes:
    padding = b"\0\x15\0\x40" + bytes(64)
    outer = b"\0" + b"\0\1\0\1" + bytes((config_id,)) + b"\0\x20" + bytes(32) + b"\0\x16" + bytes(22)
    extension = b"\xfe\x0d" + len(outer).to_bytes(2, "big") + outer
    assert len(extension) == len(padding)
    return client_hello(name).replace(padding, extension)


@pytest.mark.parametrize(
    ("name", "config_id", "hidden"),
    [(b"cover.example", 7, True), (b"cover.example", 9, False), (b"hidden.example", 7, False)],
    ids=["real", "another configuration", "grease"],
)
def test_that_a_name_is_hidden_is_said_only_where_dns_gave_the_configuration(
    tmp_path: Path, name: bytes, config_id: int, hidden: bool
) -> None:
    listed = configurations(b"cover.example")
    data = b"\0\1\0" + b"\0\5" + len(listed).to_bytes(2, "big") + listed
    answer = DNS(qr=1, qd=DNSQR(qname="hidden.example", qtype=65))
    record = b"\xc0\x0c\0\x41\0\1\0\0\0\x3c" + len(data).to_bytes(2, "big") + data
    message = bytes(answer)[:6] + b"\0\1" + bytes(answer)[8:] + record
    frames = [IP(src=B, dst=A) / UDP(sport=53, dport=4444) / Raw(message)]
    observation = seen(tmp_path, [*frames, *tcp([(True, hello_with_ech(name, config_id))], 8443)])
    assert hints(observation, "ech-offered") == ["cover.example (configuration 7)"]
    assert hints(observation, "ech") == ["a name is hidden behind cover.example" if hidden else "present"]


def dtls_hello(name: bytes, size: int) -> list[bytes]:
    """A ClientHello in fragments of so many octets, a record and a datagram each."""
    body = client_hello(name)[9:]
    body = b"\xfe\xfd" + body[2:35] + b"\0" + body[35:]  # the cookie, empty
    pieces = []
    for at in range(0, len(body), size):
        part = body[at : at + size]
        fragment = b"\1" + len(body).to_bytes(3, "big") + b"\0\0" + at.to_bytes(3, "big")
        fragment += len(part).to_bytes(3, "big") + part
        pieces.append(b"\x16\xfe\xfd\0\0" + bytes(6) + len(fragment).to_bytes(2, "big") + fragment)
    return pieces


@pytest.mark.parametrize("size", [1000, 40])
def test_the_name_in_dtls_is_read_whole_or_in_fragments_in_any_order(tmp_path: Path, size: int) -> None:
    pieces = dtls_hello(b"dtls.example", size)
    observation = seen(tmp_path, udp([(True, piece) for piece in reversed(pieces)], port=4433))
    assert values(observation, Kind.TLS_NAME) == ["dtls.example"]
    assert hints(observation, "ja4")[0].startswith("dd2d0102")


def test_a_quic_connection_that_moves_is_followed_by_its_id(tmp_path: Path) -> None:
    said = Conversation().hold()
    server_id = next(packets[0].source for way, data in said if not way and (packets := quic.split_datagram(data)))
    moved = [(True, b"\x45" + server_id + bytes(range(40))) for _ in range(2)]
    observation = seen(tmp_path, [*udp(said), *udp(moved, source=4999)])
    assert [flow.application for flow in observation.flows] == ["quic", "quic"]
    assert "a connection moved here from another address or port" in hints(observation, "quic")
    unknown = [(True, b"\x45" + bytes(8) + bytes(range(40)))]
    assert seen(tmp_path, [*udp(said), *udp(unknown, source=4999)]).flows[1].application == ""


def test_a_second_quic_connection_between_the_same_ports_is_read_as_well(tmp_path: Path) -> None:
    observation = seen(tmp_path, udp([*Conversation().hold(), *Conversation([quic.VERSION_2]).hold()]))
    (sighting,) = [s for s in observation.sightings if s.kind == Kind.QUIC_NAME]
    assert len(sighting.frames) == 2
    assert {"version 1", "version 2"} <= set(hints(observation, "quic"))


def test_a_further_quic_connection_is_found_in_a_capture_so_large_that_packets_are_taken_many_at_once(
    tmp_path: Path,
) -> None:
    download = [(False, b"\x45" + bytes(1200))]
    said = [*Conversation().hold(), *download, *Conversation([quic.VERSION_2]).hold()]
    frames = [bytes(Ether(src=H, dst=H) / frame) for frame in udp(said)]
    at = said.index(download[0])
    count = LARGE_FILE_OCTETS // len(frames[at])
    frames = [*frames[:at], *frames[at : at + 1] * count, *frames[at:], *frames[at : at + 1] * 99]
    blocks = [pcapng.build_section_header("test"), pcapng.build_interface("x", pcapng.LINKTYPE_ETHERNET)]
    blocks += [pcapng.build_packet(0, index * 1000, data, len(data)) for index, data in enumerate(frames)]
    (tmp_path / "large.pcapng").write_bytes(b"".join(blocks))
    (sighting,) = [s for s in observe(tmp_path / "large.pcapng").sightings if s.kind == Kind.QUIC_NAME]
    assert len(sighting.frames) == 2
    assert sighting.frames[1] > count


def test_text_in_a_datagram_that_is_no_quic_is_still_shown(tmp_path: Path) -> None:
    observation = seen(tmp_path, udp([(True, b"Every word of this is plain")]))
    assert values(observation, Kind.PAYLOAD) == ["Every word of this is plain"]


def test_what_is_no_fact_is_in_the_json_as_a_hint_with_its_filter(tmp_path: Path) -> None:
    observation = seen(tmp_path, tcp([(True, client_hello(b"r.example"))], 443))
    listed = observation.to_dict()
    (ja4,) = [hint for hint in listed["hints"] if hint["what"] == "ja4"]
    assert (ja4["value"][:4], ja4["about"], ja4["frames"]) == ("t12d", A, [3])
    assert ja4["filter"].startswith("tls.handshake.type == 1 && ip.addr == ")
    assert f"ja4: {ja4['value']}  ({A}, frame 3)" in observation_text(observation)
    assert listed["names"][0]["filter"] == 'tls.handshake.extensions_server_name == "r.example" && !quic'

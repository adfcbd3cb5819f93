"""The observer against Wireshark on protocols of today: QUIC, HTTP/2, DTLS, EDNS, fingerprints, bodies of every coding.

Every finding's display filter is given to Wireshark's own engine, which must return exactly the frames the finding
names, but for those in `MORE_FOUND`, each with its reason. What Wireshark 4.0 does not show is in docs/observer.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from testbed.facts import Kind
from testbed.observer import Hint, Observation, observe
from tests.interop.sharkd import Sharkd
from tests.interop.test_observer_against_tshark import every_value, fields
from tests.lab.two_nodes import CLIENT, CLIENT6, SERVER, run_apart

pytestmark = [pytest.mark.interop, pytest.mark.root]
TRAFFIC = Path(__file__).with_name("observed_programs.py")
MORE_FOUND = {
    "http-body": "a body may contain another, and a coded one comes over HTTP/1.1 and HTTP/2 alike",
    "http-header": "Wireshark shows a header in the frame of its last octet, the observer where the block was whole",
    "quic": "the hint names the first packet of a version, the filter finds all",
    "volume": "an ICMP error quotes the packet it answers",
    "timing": "an ICMP error quotes the packet it answers",
    "payload": "an ICMP error quotes the packet it answers",
    "tunnel": "the frames are those that make it certain, the filter finds the whole tunnel",
}
MOST_VOLUMES = 20  # their filters are all of one form


@dataclass
class Recorded:
    path: Path
    observation: Observation

    def values(self, kind: Kind, via: str) -> set[str]:
        return {s.value for s in self.observation.sightings if s.kind == kind and s.via == via}

    def hints(self, what: str) -> list[Hint]:
        return [hint for hint in self.observation.hints if hint.what == what]

    def by_frame(self, what: str) -> dict[int, set[str]]:
        found: dict[int, set[str]] = defaultdict(set)
        for hint in self.hints(what):
            for frame in hint.frames:
                found[frame].add(hint.value)
        return found

    def names(self, via: str) -> set[str]:
        return {name.name for name in self.observation.names if name.via == via}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    directory = tmp_path_factory.mktemp("observed-protocols")
    run_apart(TRAFFIC, "everything", directory)
    path = directory / "server:client.pcapng"
    return Recorded(path, observe(path))


def findings(observation: Observation) -> Iterator[tuple[str, str, tuple[int, ...], str]]:
    """What each finding is, its value, its frames and its filter."""
    volumes = 0
    for sighting in observation.sightings:
        volumes += sighting.kind in (Kind.VOLUME, Kind.TIMING)
        if sighting.kind not in (Kind.VOLUME, Kind.TIMING) or volumes <= MOST_VOLUMES:
            yield sighting.kind.value, sighting.value, sighting.frames, sighting.display_filter
    for hint in observation.hints:
        yield hint.what, hint.value, hint.frames, hint.display_filter


def shown_by_frame(path: Path, field: str) -> dict[int, set[str]]:
    rows = fields(path, field, "frame.number", field)
    return {int(number): set(values.split("|")) for number, values in rows}


def test_every_filter_finds_the_frames_that_the_finding_names(recorded: Recorded) -> None:
    wrong = []
    with Sharkd(recorded.path) as wireshark:
        for what, value, frames, display_filter in findings(recorded.observation):
            found = wireshark.frames(display_filter)
            agrees = set(frames) <= set(found) if what in MORE_FOUND else list(frames) == found
            if not agrees or not found:
                wrong.append(f"{what} {value[:60]!r}: {frames} not {found} by {display_filter}")
        wrong += [
            f"name {name.name} via {name.via}: not {name.frame} by {name.display_filter}"
            for name in recorded.observation.names
            if wireshark.frames(name.display_filter)[:1] != [name.frame]
        ]
    assert wrong == []


def test_nothing_is_warned_of_and_each_conversation_is_called_what_it_is(recorded: Recorded) -> None:
    assert recorded.observation.warnings == ()
    assert recorded.observation.complete
    called = {(flow.protocol, flow.server.port): flow.application for flow in recorded.observation.flows}
    expected = {("udp", port): "quic" for port in (443, 444, 445)} | {("tcp", port): "tls" for port in (1443, 1444)}
    expected |= {("tcp", 80): "http", ("tcp", 8080): "http2", ("udp", 53): "dns", ("tcp", 53): "dns"}
    expected |= {("udp", 3478): "stun", ("udp", 5353): "mdns"}
    assert {key: called[key] for key in expected} == expected


def test_quic_names_are_those_that_wireshark_decrypts(recorded: Recorded) -> None:
    names = recorded.values(Kind.QUIC_NAME, "quic")
    shown = fields(
        recorded.path, "quic && tls.handshake.extensions_server_name", "tls.handshake.extensions_server_name"
    )
    assert names == {value for (row,) in shown for value in row.split("|")}
    own = {f"quic{port}-{version}.example.org" for port, version in (("443", "1"), ("443", "2"), ("443", "both"))}
    assert names == own | {"quic444-1.example.org", "quic445-1.example.org", "www.example.com"}
    details = {s.value: s.detail for s in recorded.observation.sightings if s.kind == Kind.QUIC_NAME}
    assert details["quic443-2.example.org"]["quic_version"] == "2"
    assert {detail["alpn"] for detail in details.values()} == {"h3"}


def test_a_retry_and_a_change_of_version_are_followed_where_wireshark_does_not(recorded: Recorded) -> None:
    said = {hint.value for hint in recorded.hints("quic")}
    retried = "the server asks for another try (Retry)"
    assert said == {"version 1", "version 2", retried, "the server offers versions 2"}
    again = dict.fromkeys(("quic444-1.example.org", "quic445-1.example.org"), 0)
    for sighting in recorded.observation.sightings:
        if sighting.value in again:
            again[sighting.value] += len(sighting.frames)
    assert set(again.values()) == {2}


def test_chromiums_hello_is_put_together_from_more_than_one_datagram(recorded: Recorded) -> None:
    (sighting,) = [
        s for s in recorded.observation.sightings if s.kind == Kind.QUIC_NAME and s.value == "www.example.com"
    ]
    first = min(
        flow.first_frame
        for flow in recorded.observation.flows
        if flow.first_frame >= sighting.frames[0] - 2 and flow.application == "quic"
    )
    assert first < sighting.frames[0]
    assert sighting.detail["encrypted_client_hello"] == 1
    assert str(sighting.detail["ja4"]).startswith("q13d")


@pytest.mark.parametrize("what", ["ja3", "ja3s"])
def test_fingerprints_are_wiresharks_in_every_frame_it_shows_them(recorded: Recorded, what: str) -> None:
    ours = recorded.by_frame(what)
    theirs = shown_by_frame(recorded.path, f"tls.handshake.{what}")
    theirs |= shown_by_frame(recorded.path, f"dtls.handshake.{what}")
    assert len(theirs) >= 10
    assert {frame: ours.get(frame) for frame in theirs} == theirs


def test_servers_choices_and_certificates_are_wiresharks(recorded: Recorded) -> None:
    suites = {
        f"cipher suite {int(row[0].split('|')[0], 16):#06x}"
        if row[0].startswith("0x")
        else f"cipher suite {int(row[0].split('|')[0]):#06x}"
        for row in fields(recorded.path, "tls.handshake.type == 2", "tls.handshake.ciphersuite")
    }
    assert {hint.value.split(", ")[1] for hint in recorded.hints("tls") if "DTLS" not in hint.value} == suites
    certified = every_value(recorded.path, "x509ce.dNSName") | {"site.example.com"}
    assert recorded.values(Kind.TLS_CERTIFICATE, "tls") == certified
    assert recorded.values(Kind.TLS_CERTIFICATE, "dtls") == certified


def test_the_name_in_dtls_is_wiresharks(recorded: Recorded) -> None:
    assert recorded.names("dtls") == every_value(recorded.path, "dtls.handshake.extensions_server_name")


def test_http2_headers_and_addresses_are_wiresharks(recorded: Recorded) -> None:
    rows = fields(recorded.path, "http2.header.name", "http2.header.name", "http2.header.value")
    theirs = {
        f"{name}: {value}"
        for names, values in rows
        for name, value in zip(names.split("|"), values.split("|"), strict=True)
        if not name.startswith(":")
    }
    assert recorded.values(Kind.HTTP_HEADER, "http2") == theirs
    assert recorded.values(Kind.HTTP_URL, "http2") == every_value(recorded.path, "http2.request.full_uri")
    assert recorded.values(Kind.HTTP_HOST, "http2") == {"www.example.com"}
    assert {"cookie: session=token-8f8f", "user-agent: Browser/2.0", "x-digest: token-6d6d"} <= theirs
    assert any(len(line) > 20_000 for line in theirs)  # over several frames


def test_bodies_of_every_coding_read_alike_over_both_versions_of_http(recorded: Recorded) -> None:
    page = "<html><body>page of token-2f2f</body></html>\n"
    one, two = (recorded.values(Kind.HTTP_BODY, via) for via in ("http", "http2"))
    assert {page * count for count in (8, 7, 6, 5, 4, 9, 3, 1)} | {"hello again"} == one
    assert {page * count for count in (8, 7, 1)} <= two
    assert {"user=alice&password=token-9a9a", "got 30 octets"} <= two
    assert any(body.endswith("line 004999 of the long body\n") for body in two)
    assert "X-Digest: token-3a3a" in recorded.values(Kind.HTTP_HEADER, "http")


def test_answers_without_a_body_do_not_swallow_what_follows_them(recorded: Recorded) -> None:
    asked = every_value(recorded.path, "http.request.full_uri")
    assert recorded.values(Kind.HTTP_URL, "http") == asked
    responses = fields(recorded.path, "http.response.code", "http.response.code")
    lines = [
        s for s in recorded.observation.sightings if s.kind == Kind.HTTP_HEADER and s.value == "X-Empty: token-4b4b"
    ]
    assert len(lines[0].frames) == 2
    assert len(responses) == len(asked)


def test_compressed_octets_can_be_searched_as_text(recorded: Recorded) -> None:
    decoded = [stream for stream in recorded.observation.streams if stream.layer == "http-body"]
    for token in (b"token-8f8f", b"token-2f2f", b"token-6d6d", b"token-7e7e"):
        assert any(token in stream.data for stream in decoded)


def test_dns_tells_of_its_client_and_of_other_ways_to_the_server(recorded: Recorded) -> None:
    assert {hint.value for hint in recorded.hints("edns-client-subnet")} == {"198.51.100.0/24", "2001:db8:77::/48"}
    shown = every_value(recorded.path, "dns.opt.cookie.client")
    assert {hint.value for hint in recorded.hints("edns-cookie")} == {value.replace(":", "") for value in shown}
    assert [(hint.value, hint.about) for hint in recorded.hints("alpn-offered")] == [("h3,h2", "www.example.com")]
    assert [hint.about for hint in recorded.hints("ech-offered")] == ["www.example.com"]
    named = {s.value: s.detail.get("name") for s in recorded.observation.sightings if s.kind == Kind.DNS_ANSWER}
    assert named[SERVER] == "www.example.com"
    assert len(named) == 200
    addressed = [s for s in recorded.observation.sightings if "in-addr.arpa" in s.display_filter]
    assert SERVER in {s.value for s in addressed}


def test_an_icmp_error_tells_the_name_that_nobody_answered(recorded: Recorded) -> None:
    (sighting,) = [s for s in recorded.observation.sightings if s.value == "quoted.example.com"]
    assert len(sighting.frames) == 2
    assert fields(recorded.path, "icmp.type == 3", "frame.number") == [[str(sighting.frames[1])]]
    assert sighting.frames[1] in recorded.observation.addresses[CLIENT]


def test_stun_arp_and_the_clients_system_are_seen(recorded: Recorded) -> None:
    (mapped,) = recorded.hints("stun-mapped-address")
    shown = fields(recorded.path, "stun.att.port", "stun.att.ipv6", "stun.att.port")
    assert [f"[{address}]:{port}" for address, port in shown] == [mapped.value]
    assert mapped.value.startswith(f"[{CLIENT6}]:")
    assert [(hint.value, hint.about) for hint in recorded.hints("os")] == [("Linux or Android", CLIENT)]
    assert {hint.about for hint in recorded.hints("arp")} == every_value(recorded.path, "arp.src.proto_ipv4")


def test_flows_have_wiresharks_packets_and_octets(recorded: Recorded) -> None:
    for protocol in ("tcp", "udp"):
        rows = fields(recorded.path, f"{protocol} && !icmp", f"{protocol}.stream", "frame.len")
        theirs: dict[str, list[int]] = defaultdict(list)
        for stream, octets in rows:
            theirs[stream].append(int(octets))
        ours = [
            (flow.sent.packets + flow.received.packets, flow.sent.octets + flow.received.octets)
            for flow in recorded.observation.flows
            if flow.protocol == protocol
        ]
        assert sorted(ours) == sorted((len(octets), sum(octets)) for octets in theirs.values())

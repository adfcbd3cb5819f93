"""The observer against tshark, field by field, on what curl, dig, openssl, ping and socat said over a tapped wire.

Each sighting's display filter is given to tshark, which must return the very frames the sighting names. Where a filter
can return more by its nature, the kind stands in `SUPERSETS` with the reason.
"""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from testbed.capture.reader import CaptureReader
from testbed.facts import Kind, Sighting
from testbed.observer import Observation, observe
from tests.interop.sharkd import Sharkd
from tests.lab.two_nodes import CLIENT, CLIENT6, SERVER, SERVER6, run_apart

pytestmark = [pytest.mark.interop]
TRAFFIC = Path(__file__).with_name("observed_traffic.py")
CAPTURES = Path(__file__).parents[1] / "data" / "captures"
SUPERSETS = {
    Kind.HTTP_BODY: "a body may contain another",
    Kind.PAYLOAD: "an ICMP error quotes the datagram it answers",
    Kind.VOLUME: "an ICMP error quotes the packet it answers",
    Kind.TIMING: "an ICMP error quotes the packet it answers",
    Kind.TUNNEL: "the frames are those that make it certain, the filter finds the whole tunnel",
}


@dataclass
class Recorded:
    path: Path
    observation: Observation
    report: Any

    def values(self, kind: Kind) -> set[str]:
        return {sighting.value for sighting in self.observation.sightings if sighting.kind == kind}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    directory = tmp_path_factory.mktemp("observed")
    report = run_apart(TRAFFIC, "everything", directory)
    path = directory / "server:client.pcapng"
    return Recorded(path, observe(path), report)


def tshark(path: Path, *arguments: str) -> list[str]:
    done = subprocess.run(["tshark", "-n", "-r", str(path), *arguments], capture_output=True, text=True, check=True)
    assert [line for line in done.stderr.splitlines() if "Running as user" not in line] == []
    return done.stdout.splitlines()


def fields(path: Path, display_filter: str, *names: str) -> list[list[str]]:
    words = [word for name in names for word in ("-e", name)]
    lines = tshark(path, "-Y", display_filter, "-T", "fields", "-E", "aggregator=|", *words)
    return [line.split("\t") for line in lines]


def every_value(path: Path, name: str) -> set[str]:
    return {value for (row,) in fields(path, name, name) for value in row.split("|")}


def frames_found(path: Path, display_filter: str) -> list[int]:
    return [int(row[0]) for row in fields(path, display_filter, "frame.number")]


def disagreements(path: Path, sightings: Sequence[Sighting]) -> list[str]:
    wrong = []
    with Sharkd(path) as wireshark:
        for sighting in sightings:
            ours, found = list(sighting.frames), wireshark.frames(sighting.display_filter)
            agrees = set(ours) <= set(found) if sighting.kind in SUPERSETS else ours == found
            if not agrees or not found:
                wrong.append(
                    f"{sighting.kind} {sighting.value[:60]!r}: {ours} not {found} by {sighting.display_filter}"
                )
    return wrong


@pytest.mark.root
@pytest.mark.slow
def test_every_display_filter_returns_the_frames_that_the_sighting_names(recorded: Recorded) -> None:
    sightings = recorded.observation.sightings
    assert {s.kind for s in sightings} == {*Kind} - {Kind.QUIC_NAME, Kind.TUNNEL}
    assert disagreements(recorded.path, sightings) == []


@pytest.mark.root
def test_dns_names_and_answers_are_tsharks(recorded: Recorded) -> None:
    asked = {name.lower() for name in every_value(recorded.path, "dns.qry.name")}
    named = {"www.example.com", "mail.example.com", "ns1.example.com", "sip.example.com"}
    assert recorded.values(Kind.DNS_NAME) == {name.replace("\\032", " ") for name in asked} | named
    addresses = every_value(recorded.path, "dns.a") | every_value(recorded.path, "dns.aaaa")
    assert recorded.values(Kind.DNS_ANSWER) == addresses
    assert len(addresses) == 102
    assert {n.name for n in recorded.observation.names if n.via == "dns"} == recorded.values(Kind.DNS_NAME)


@pytest.mark.root
def test_hosts_and_urls_and_headers_are_tsharks(recorded: Recorded) -> None:
    hosts = every_value(recorded.path, "http.host")
    assert recorded.values(Kind.HTTP_HOST) == {host.split(":")[0] for host in hosts} == {"www.example.com"}
    full = every_value(recorded.path, "http.request.full_uri")
    assert recorded.values(Kind.HTTP_URL) == full
    assert "http://www.example.com/account?id=token-77cd&x=%22y%22" in full
    assert "http://www.example.com:8000/other-port" in full
    headers = recorded.values(Kind.HTTP_HEADER)
    cookies = every_value(recorded.path, "http.cookie") | every_value(recorded.path, "http.set_cookie")
    assert {line.split(": ", 1)[1] for line in headers if "Cookie:" in line} == {
        c.replace("\\\\", "\\") for c in cookies
    }
    assert {"Cookie: session=token-51aa; theme=dark", "User-Agent: Browser/1.0 (ä)", 'X-Quoted: a "b" \\c'} <= headers


@pytest.mark.root
def test_http_bodies_are_octet_for_octet_what_tshark_exports(recorded: Recorded, tmp_path: Path) -> None:
    tshark(recorded.path, "-q", "--export-objects", f"http,{tmp_path}")
    theirs = {path.read_bytes() for path in tmp_path.iterdir()}
    ours = {value.encode() for value in recorded.values(Kind.HTTP_BODY)}
    assert ours == theirs
    assert {len(body) for body in ours} >= {len(b"line 000000 of the long body\n") * 20_000}


@pytest.mark.root
def test_tls_names_and_certificates_are_tsharks(recorded: Recorded) -> None:
    assert recorded.values(Kind.TLS_NAME) == every_value(recorded.path, "tls.handshake.extensions_server_name")
    assert recorded.values(Kind.TLS_NAME) == {"www.example.com", "sni.example.org"}
    certified = every_value(recorded.path, "x509ce.dNSName") | {"site.example.com"}
    assert recorded.values(Kind.TLS_CERTIFICATE) == certified
    alpn = {s.value: s.detail["alpn"] for s in recorded.observation.sightings if s.kind == Kind.TLS_NAME}
    assert alpn == {"www.example.com": "h2,http/1.1", "sni.example.org": "h2"}


@pytest.mark.root
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_flows_have_tsharks_packets_octets_and_times(recorded: Recorded, protocol: str) -> None:
    names = (f"{protocol}.stream", "frame.len", f"{protocol}.dstport", "frame.time_epoch")
    theirs: dict[str, list[list[str]]] = {}
    for row in fields(recorded.path, f"{protocol} && !icmp", *names):
        theirs.setdefault(row[0], []).append(row)
    flows = [flow for flow in recorded.observation.flows if flow.protocol == protocol]

    def summary(rows: list[list[str]]) -> tuple[float, ...]:
        port = min(int(row[2]) for row in rows)
        return float(rows[0][3]), float(rows[-1][3]), len(rows), sum(int(row[1]) for row in rows), port

    ours = [
        (
            flow.started_at,
            flow.ended_at,
            flow.sent.packets + flow.received.packets,
            flow.sent.octets + flow.received.octets,
            flow.server.port,
        )
        for flow in flows
    ]
    assert len(ours) > 8
    assert len(ours) == len(theirs)
    for own, other in zip(sorted(ours), sorted(summary(rows) for rows in theirs.values()), strict=True):
        assert own == pytest.approx(other, rel=0, abs=2e-6)  # a float of Unix seconds has no more


@pytest.mark.root
def test_both_ends_of_every_conversation_are_named_and_the_client_is_the_one_who_began(recorded: Recorded) -> None:
    assert recorded.values(Kind.CLIENT_ADDRESS) == {CLIENT, CLIENT6}
    assert recorded.values(Kind.SERVER_ADDRESS) == {SERVER, SERVER6}


@pytest.mark.root
def test_plain_payloads_are_read_from_ping_datagrams_and_streams(recorded: Recorded) -> None:
    payloads = recorded.values(Kind.PAYLOAD)
    assert {"datagram with token-12ab\n", "stream with token-34cd\n"} <= payloads
    pings = [value for value in payloads if "token-abcd" in value]
    assert len(pings) == 2
    assert any(len(value) >= 4000 for value in payloads)  # a fragmented ping, put together
    assert {clear.what for clear in recorded.observation.cleartext} == {"http", "http-body", "payload"}


@pytest.mark.root
def test_streams_lead_back_from_an_octet_to_the_frame_that_carried_it(recorded: Recorded) -> None:
    for token in (b"token-77cd", b"line 019999", b"token-12ab", b"token-abcd", b"token-34cd"):
        stream = next(s for s in recorded.observation.streams if token in s.data and s.layer != "http-body")
        at = stream.data.index(token)
        frames = stream.frames_between(at, at + len(token))
        field = {"tcp": "tcp.payload", "udp": "udp.payload", "icmp": "icmp"}[stream.layer]
        assert set(frames) <= set(frames_found(recorded.path, f"{field} contains {token.hex(':')}"))
    assert any(s.layer == "http-body" and b"token-8f1e77aa" in s.data for s in recorded.observation.streams)


@pytest.mark.root
def test_nothing_was_dropped_or_left_out_and_the_tap_agrees_with_tcpdump(recorded: Recorded) -> None:
    observation, stats = recorded.observation, recorded.report["stats"]
    assert (observation.frames, observation.octets) == (stats["packets"], stats["octets"])
    assert observation.complete
    assert observation.dropped == stats["dropped"] == 0
    assert observation.warnings == ()
    with CaptureReader(recorded.path) as ours, CaptureReader(recorded.path.with_name("tcpdump.pcap")) as theirs:
        tapped, dumped = ([f.data for f in frames if not f.data[0] & 1] for frames in (ours, theirs))
    # Without multicast, which repeats itself to the octet, the first frame tcpdump has is found in its right place.
    before_tcpdump_was_there = tapped.index(dumped[0])
    assert Counter(tapped[before_tcpdump_was_there:]) == Counter(dumped)


@pytest.mark.root
def test_ordinary_traffic_is_not_taken_for_a_tunnel(recorded: Recorded) -> None:
    assert recorded.observation.tunnels == ()


@pytest.mark.parametrize(
    ("name", "transport", "frame", "words"),
    [
        ("plain", "udp", 2, "no control wrapping"),
        ("auth", "udp", 2, "tls-auth, 160-bit HMAC"),
        ("auth256", "udp", 2, "tls-auth, 256-bit HMAC"),
        ("crypt", "udp", 3, "tls-crypt)"),
        ("cryptv2", "udp", 3, "tls-crypt-v2)"),
        ("tcp", "tcp", 6, "no control wrapping"),
    ],
)
def test_openvpn_is_recognised_in_each_mode(name: str, transport: str, frame: int, words: str) -> None:
    path = CAPTURES / f"openvpn-{name}.pcapng"
    observation = observe(path)
    (tunnel,) = observation.tunnels
    assert (tunnel.protocol, tunnel.transport, tunnel.frame) == ("openvpn", transport, frame)
    assert tunnel.client.address == "10.77.0.2"
    assert str(tunnel.server) == "10.77.0.1:1194"
    assert words in tunnel.rule
    (sighting,) = [s for s in observation.sightings if s.kind == Kind.TUNNEL]
    assert disagreements(path, [sighting]) == []
    assert len(frames_found(path, sighting.display_filter)) == observation.frames
    assert not [s for s in observation.sightings if s.kind == Kind.PAYLOAD]

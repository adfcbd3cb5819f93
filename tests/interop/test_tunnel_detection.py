"""Tunnels of real programs are recognised by their packets alone, and ordinary programs are not taken for tunnels.

One lab, everything side by side (`tunnel_programs`), one capture at the ISP: then every conversation is judged by its
port. The table that the test prints stands in docs/tunnel-detection.md, next to the figures of the papers.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from testbed.facts import Kind
from testbed.observer import Observation, observe
from testbed.observer.model import Direction, Flow, Tunnel
from testbed.observer.tunnels.framing import split_frames
from testbed.observer.tunnels.openvpn_patterns import (
    FIRST_OCTET_OF_TCP,
    PACKETS,
    acknowledgements_run_as_a_handshake,
    opcodes_run_as_a_handshake,
)
from tests.interop import tunnel_programs as programs
from tests.interop.sharkd import Sharkd
from tests.interop.tunnel_configs import make_keys
from tests.interop.tunnel_lab import OPENVPN, in_lab

pytestmark = [pytest.mark.root, pytest.mark.interop]

# Port of the server, and what is expected there: protocol and certainty.
OTHERS = {
    programs.WIREGUARD_PORT: ("wireguard", "certain"),
    programs.TINC_PORT: ("tinc", "certain or likely"),
    programs.FASTD_PORT: ("fastd", "certain"),
    programs.FORWARDING_PORT: ("ssh", "possible"),
}
ORDINARY = {
    programs.HTTPS_PORT: "curl, HTTPS",
    programs.QUIC_PORT: "aioquic, QUIC",
    programs.DTLS_PORT: "openssl s_client -dtls",
    programs.SHELL_PORT: "ssh, a shell",
    programs.COPY_PORT: "ssh, a copy of 2 MB",
    **{port: " ".join(("iperf3", *words)) for port, words in programs.IPERFS.items()},
    programs.DNS_PORT: "dig",
    0: "ping",
}
PAPER = (
    "Xue et al. 2022, both passive rules: recall 90.42 % (3,635 of 4,020 VPN flows); before probing, 0.75 % "
    "of 10.07 million long flows flagged"
)


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The keys are beside it."""
    folder = tmp_path_factory.mktemp("tunnels")
    keys = make_keys(folder / "keys")
    recorded = folder / "isp.pcap"
    in_lab(lambda lab: programs.Programs(lab, keys).run_all(recorded), folder)
    return recorded


@pytest.fixture(scope="module")
def seen(capture: Path) -> Observation:
    return observe(capture)


def found_at(seen: Observation, port: int) -> list[Tunnel]:
    return [tunnel for tunnel in seen.tunnels if tunnel.server.port == port]


@pytest.mark.parametrize("index", range(len(programs.OPENVPNS)), ids=[pair.name for pair in programs.OPENVPNS])
def test_openvpn_is_recognised_in_every_mode(seen: Observation, index: int) -> None:
    pair = programs.OPENVPNS[index]
    tunnels = found_at(seen, programs.openvpn_port(index))
    assert tunnels
    for tunnel in tunnels:
        assert (tunnel.transport, tunnel.client.address) == (pair.transport, "192.168.0.13")
        assert tunnel.false_positives
        if pair.wrapping.startswith("static"):
            assert (tunnel.protocol, tunnel.certainty.value) == ("openvpn-static-key", "likely")
        else:
            assert (tunnel.protocol, tunnel.certainty.value) == ("openvpn", "certain")
            assert _wrapping_words(pair.wrapping) in tunnel.rule
            assert tunnel.packet <= 12
            assert tunnel.layers == ("ipv4", pair.transport, "openvpn")


def _wrapping_words(wrapping: str) -> str:
    sizes = {"SHA1": "160", "SHA256": "256", "SHA512": "512"}
    kind, _, digest = wrapping.partition(" ")
    return {"none": "no control wrapping", "tls-auth": f"tls-auth, {sizes.get(digest)}-bit"}.get(kind, kind)


@pytest.fixture(scope="module")
def handshakes(capture: Path) -> Path:
    """The control packets of the tunnels whose control channel is in clear, and nothing else: quick to read again."""
    path = capture.with_name("handshakes.pcap")
    ports = " or ".join(f"port {programs.openvpn_port(index)}" for index, _ in clear_pairs())
    subprocess.run(["tcpdump", "-n", "-r", capture, "-w", path, ports], check=True, capture_output=True)
    return path


def clear_pairs() -> list[tuple[int, programs.OpenVpn]]:
    return [(index, pair) for index, pair in enumerate(programs.OPENVPNS) if pair.has_clear_control]


@pytest.mark.parametrize(("index", "pair"), clear_pairs(), ids=[pair.name for _, pair in clear_pairs()])
def test_certificates_in_a_control_channel_in_clear_are_told_unless_tls_1_3_hides_them(
    seen: Observation, capture: Path, index: int, pair: programs.OpenVpn
) -> None:
    port = f"{pair.transport}.port == {programs.openvpn_port(index)}"
    told = [s for s in seen.sightings if s.via == "tls in openvpn" and port in s.display_filter]
    names = [common_name(capture.with_name("keys") / f"{role}.crt") for role in ("server", "client")]
    assert {(s.kind, s.value) for s in told} == (
        {(Kind.TLS_CERTIFICATE, name) for name in names} if pair.tls == "1.2" else set()
    )
    versions = [h.value for h in seen.hints if h.what == "tls" and h.about.endswith(f":{programs.openvpn_port(index)}")]
    assert [value.split(",")[0] for value in versions] == [f"TLS {pair.tls}"]


def common_name(certificate: Path) -> str:
    subject = x509.load_pem_x509_certificate(certificate.read_bytes()).subject
    return str(subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value).lower()


def test_what_a_control_channel_in_clear_tells_is_what_tshark_reads_in_it(handshakes: Path) -> None:
    """tshark takes any HMAC of tls-auth for SHA1's unless told its size: asked once for each wrapping."""
    ours = {frame: hint.value for hint in observe(handshakes).hints if hint.what == "ja3" for frame in hint.frames}
    theirs: dict[int, str] = {}
    for wrapping in sorted({pair.wrapping for _, pair in clear_pairs()}):
        size = {"none": 0, "tls-auth SHA1": 20, "tls-auth SHA256": 32, "tls-auth SHA512": 64}[wrapping]
        words = ["-o", "openvpn.tls_auth_detection_override:TRUE", "-o", f"openvpn.tls_auth_hmac_size:{size}"]
        words += ["-o", f"openvpn.tls_auth:{'TRUE' if size else 'FALSE'}"]
        pairs = [(index, pair) for index, pair in clear_pairs() if pair.wrapping == wrapping]
        for index, pair in pairs:
            words += ["-d", f"{pair.transport}.port=={programs.openvpn_port(index)},openvpn"]
        words += ["-T", "fields", "-e", "frame.number", "-e", "tls.handshake.ja3", "-Y", "tls.handshake.type == 1"]
        found = subprocess.run(["tshark", "-n", "-r", handshakes, *words], capture_output=True, text=True, check=True)
        hellos = dict(line.split("\t") for line in found.stdout.splitlines())
        # Of a conversation over TCP tshark may show none; the real program's are there in any case.
        assert len(hellos) >= sum(pair.program == OPENVPN for _, pair in pairs), wrapping
        theirs |= {int(frame): value for frame, value in hellos.items()}
    assert theirs.items() <= ours.items()
    assert len(set(ours)) >= len(clear_pairs())


def test_the_filters_of_what_a_control_channel_tells_find_its_packets(handshakes: Path) -> None:
    found = observe(handshakes)
    told = [s for s in found.sightings if s.via == "tls in openvpn"]
    assert len(told) == 2 * sum(pair.tls == "1.2" for _, pair in clear_pairs())
    with Sharkd(handshakes) as sharkd:
        for sighting in told:
            # A packet that was sent again as it was has the same octets.
            assert set(sighting.frames) <= set(sharkd.frames(sighting.display_filter)), sighting


@pytest.mark.parametrize("port", OTHERS, ids=[protocol for protocol, _ in OTHERS.values()])
def test_other_tunnels_are_recognised(seen: Observation, port: int) -> None:
    protocol, certainty = OTHERS[port]
    tunnels = found_at(seen, port)
    assert tunnels
    assert {tunnel.protocol for tunnel in tunnels} == {protocol}
    assert all(tunnel.certainty.value in certainty.split() for tunnel in tunnels)


def test_tinc_is_recognised_by_what_it_says_over_tcp_and_its_datagrams_by_that(seen: Observation) -> None:
    assert {(tunnel.transport, tunnel.certainty.value) for tunnel in found_at(seen, programs.TINC_PORT)} == {
        ("tcp", "certain"),
        ("udp", "likely"),
    }


@pytest.mark.parametrize("port", ORDINARY, ids=ORDINARY.values())
def test_ordinary_programs_are_not_taken_for_tunnels(seen: Observation, port: int) -> None:
    flows = [flow for flow in seen.flows if flow.server.port == port]
    assert flows
    assert found_at(seen, port) == []


def test_the_two_patterns_of_the_paper_hold_for_some_openvpn_and_no_ordinary_program(
    seen: Observation, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rules are measured apart from ours, which are quicker and would hide them."""
    measured: Counter[tuple[str, str]] = Counter()
    for flow, octets, sizes, from_client in long_flows(seen):
        kind = kind_of(flow)
        measured[kind, "flows"] += 1
        opcodes = opcodes_run_as_a_handshake(octets)
        acknowledgements = acknowledgements_run_as_a_handshake(sizes, from_client[2])
        measured[kind, "opcodes"] += opcodes
        measured[kind, "acknowledgements"] += acknowledgements
        measured[kind, "either"] += opcodes or acknowledgements
    for flow, octets in framed_flows(seen):
        measured[kind_of(flow), "by packet"] += opcodes_run_as_a_handshake(octets)
    with capsys.disabled(), contextlib.redirect_stdout(sys.stderr):  # which pytest's workers let through
        print_tables(seen, measured)
    handshakes = measured["OpenVPN with handshake", "flows"]
    assert handshakes >= 10
    assert measured["OpenVPN with handshake", "opcodes"] > handshakes / 2
    over_tcp = sum(pair.transport == "tcp" and not pair.wrapping.startswith("static") for pair in programs.OPENVPNS)
    assert measured["OpenVPN with handshake", "by packet"] > over_tcp / 2
    assert measured["ordinary program", "by packet"] == 0
    assert measured["ordinary program", "flows"] >= 4
    # The paper's own rules err for 75 of 10,000 long conversations; how the machine paces ours decides which.
    assert measured["ordinary program", "either"] <= 1


def long_flows(seen: Observation) -> Iterator[tuple[Flow, list[int], list[int], list[bool]]]:
    """Of every conversation with enough packets: first octets, payload sizes, and whether the client sent each."""
    pieces: dict[int, list[tuple[int, bool, bytes]]] = {}
    for stream in seen.streams:
        if stream.layer not in ("tcp", "udp"):
            continue
        data, from_client = bytes(stream.data), stream.direction is Direction.CLIENT_TO_SERVER
        ends = [*stream.offsets[1:], len(data)]
        for start, end, frame in list(zip(stream.offsets, ends, stream.frames, strict=True))[:PACKETS]:
            pieces.setdefault(stream.flow, []).append((frame, from_client, data[start:end]))
    for index, packets in pieces.items():
        flow = seen.flows[index]
        at = FIRST_OCTET_OF_TCP if flow.protocol == "tcp" else 0
        first = [packet for packet in sorted(packets) if len(packet[2]) > at][:PACKETS]
        if len(first) == PACKETS:
            yield flow, [p[2][at] for p in first], [len(p[2]) for p in first], [p[1] for p in first]


def framed_flows(seen: Observation) -> Iterator[tuple[Flow, list[int]]]:
    """Of every TCP conversation in which lengths lead from packet to packet: the packets' first octets in order."""
    packets: dict[int, list[tuple[int, int, int]]] = {}
    for stream in seen.streams:
        if stream.layer == "tcp":
            for number, (end, packet) in enumerate(split_frames(bytes(stream.data), 1, PACKETS)):
                packets.setdefault(stream.flow, []).append((stream.frame_at(end - 1), number, packet[0]))
    for index, found in packets.items():
        if len(found) >= PACKETS:
            yield seen.flows[index], [octet for _, _, octet in sorted(found)[:PACKETS]]


def kind_of(flow: Flow) -> str:
    index = flow.server.port - programs.OPENVPN_PORT
    if 0 <= index < len(programs.OPENVPNS):
        static = programs.OPENVPNS[index].wrapping.startswith("static")
        return "OpenVPN, static key" if static else "OpenVPN with handshake"
    return "other tunnel" if flow.server.port in OTHERS else "ordinary program"


def print_tables(seen: Observation, measured: Counter[tuple[str, str]]) -> None:
    print("\n\nwhat                             server port  recognised as        certainty  at packet")
    names = {programs.openvpn_port(index): pair.name for index, pair in enumerate(programs.OPENVPNS)}
    names |= {port: protocol for port, (protocol, _) in OTHERS.items()} | ORDINARY
    for port, name in names.items():
        tunnels = found_at(seen, port)
        for tunnel in tunnels[:2]:
            print(f"{name:32} {port:11}  {tunnel.protocol:20} {tunnel.certainty.value:9} {tunnel.packet:10}")
        if not tunnels:
            count = sum(flow.server.port == port for flow in seen.flows)
            print(f"{name:32} {port:11}  -  ({count} conversations)")
    print(f"\nover {PACKETS} packets        flows  opcodes  acknowledgements  either  (TCP: opcodes by packet)")
    for kind in sorted({kind for kind, _ in measured}):
        names_of_columns = ("flows", "opcodes", "acknowledgements", "either", "by packet")
        columns = [measured[kind, column] for column in names_of_columns]
        print("{:24} {:5} {:8} {:17} {:7} {:9}".format(kind, *columns))
    print(PAPER)

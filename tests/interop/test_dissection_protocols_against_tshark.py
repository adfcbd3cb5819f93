"""The opened packets of QUIC, HTTP/2, DHCP, mDNS, WireGuard and IPsec against tshark, field by field.

QUIC comes from aioquic and HTTP/2 from h2, octets of others; the short messages are written down here, and tshark says
whether they are what they claim to be. One capture of all, one run of tshark.
"""

from __future__ import annotations

import contextlib
import datetime
import struct
import subprocess
from collections.abc import Iterator, Sequence

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from h2.config import H2Configuration
from h2.connection import H2Connection
from OpenSSL import SSL

from testbed.capture import pcapng
from testbed.capture.reader import CaptureReader
from testbed.dissection.capture import CaptureDissector
from testbed.report.packets import PacketView
from tests.unit.report_run import CLIENT, WEB, ipv4, tcp, udp

pytestmark = pytest.mark.interop
NAME = "quic.example.org"
FIELDS = (
    *("_ws.col.Protocol", "_ws.col.Info", "quic.version", "quic.dcid", "quic.scid", "quic.long.packet_type"),
    *("tls.handshake.extensions_server_name", "http2.type", "http2.headers.path", "http2.headers.status"),
    *("dhcp.option.hostname", "dhcp.option.dhcp", "dns.qry.name", "wg.type", "wg.sender", "wg.receiver", "wg.counter"),
    *("esp.spi", "esp.sequence", "isakmp.exchangetype", "isakmp.messageid"),
)


def certificate() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now).not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    return made, key


def quic_talk() -> Iterator[bytes]:
    """A handshake and a page's octets between two of aioquic's connections, without a socket."""
    made, key = certificate()
    client = QuicConnection(configuration=QuicConfiguration(server_name=NAME, verify_mode=0, alpn_protocols=["h3"]))
    settings = QuicConfiguration(is_client=False, certificate=made, private_key=key, alpn_protocols=["h3"])
    client.connect((WEB, 443), now=0.0)
    server: QuicConnection | None = None
    for turn in range(6):
        for data, _ in client.datagrams_to_send(now=turn * 0.01):
            if server is None:
                server = QuicConnection(
                    configuration=settings, original_destination_connection_id=client.original_destination_connection_id
                )
            yield udp(CLIENT, WEB, (40100, 443), data)
            server.receive_datagram(data, (CLIENT, 40100), now=turn * 0.01)
        assert server is not None
        for data, _ in server.datagrams_to_send(now=turn * 0.01 + 0.005):
            yield udp(WEB, CLIENT, (443, 40100), data)
            client.receive_datagram(data, (WEB, 443), now=turn * 0.01 + 0.005)
        if turn == 2:
            client.send_stream_data(client.get_next_available_stream_id(), b"sealed" * 20, end_stream=True)


def http2_talk() -> Iterator[bytes]:
    """Two requests of h2's with answers, some frames split over segments."""
    client, server = H2Connection(H2Configuration(client_side=True)), H2Connection(H2Configuration(client_side=False))
    client.initiate_connection()
    server.initiate_connection()
    numbers = {True: 1, False: 1}
    yield tcp((CLIENT, WEB), (40200, 8080), (0, 0), 0x02)
    yield tcp((WEB, CLIENT), (8080, 40200), (0, 1), 0x12)

    def say(octets: bytes, *, up: bool, pieces: int = 1) -> Iterator[bytes]:
        size = -(-len(octets) // pieces)
        for at in range(0, len(octets), size):
            piece = octets[at : at + size]
            ends, ports = ((CLIENT, WEB), (40200, 8080)) if up else ((WEB, CLIENT), (8080, 40200))
            yield tcp(ends, ports, (numbers[up], numbers[not up]), 0x18, piece)
            numbers[up] += len(piece)

    head = [(":method", "GET"), (":scheme", "http"), (":authority", "www.example.com")]
    for stream, path in ((1, "/first"), (3, "/second")):
        client.send_headers(stream, [*head, (":path", path), ("cookie", "session=1")], end_stream=True)
        asked = client.data_to_send()
        yield from say(asked, up=True, pieces=stream)
        server.receive_data(asked)
        server.send_headers(stream, [(":status", "200"), ("content-type", "text/plain")])
        server.send_data(stream, b"readable " * 30, end_stream=True)
        told = server.data_to_send()
        yield from say(told, up=False, pieces=stream)
        client.receive_data(told)


def dhcp() -> bytes:
    options = bytes([53, 1, 1, 12, 8]) + b"laptop-7" + bytes([50, 4, 192, 168, 0, 77, 60, 4]) + b"test" + b"\xff"
    head = struct.pack("!BBBBIHH4s4s4s4s16s192s", 1, 1, 6, 0, 0xDEADBEEF, 0, 0, *[bytes(4)] * 4, b"\2abcde", b"")
    return udp("0.0.0.0", "255.255.255.255", (68, 67), head + b"\x63\x82\x53\x63" + options)


def dtls_talk() -> Iterator[bytes]:
    """A handshake and application data of OpenSSL's DTLS, in memory."""
    made, key = certificate()
    context = SSL.Context(SSL.DTLS_SERVER_METHOD)
    context.use_certificate(made)
    context.use_privatekey(key)
    context.set_options(SSL.OP_NO_QUERY_MTU)
    client, server = SSL.Connection(SSL.Context(SSL.DTLS_CLIENT_METHOD), None), SSL.Connection(context, None)
    client.set_connect_state()
    client.set_tlsext_host_name(NAME.encode())
    server.set_accept_state()
    for end in (client, server):
        end.set_ciphertext_mtu(1400)

    def say(end: SSL.Connection, other: SSL.Connection, *, up: bool) -> Iterator[bytes]:
        while True:
            try:
                data = end.bio_read(1 << 16)
            except SSL.WantReadError:
                return
            for record in records(data):
                yield udp(*((CLIENT, WEB, (40300, 4433)) if up else (WEB, CLIENT, (4433, 40300))), record)
            other.bio_write(data)

    for _ in range(4):
        for end, other in ((client, server), (server, client)):
            with contextlib.suppress(SSL.WantReadError):
                end.do_handshake()
            yield from say(end, other, up=end is client)
    client.send(b"sealed")
    yield from say(client, server, up=True)


def records(data: bytes) -> Iterator[bytes]:
    """A memory BIO forgets where datagrams end: one for each record."""
    while data:
        end = 13 + int.from_bytes(data[11:13], "big")
        yield data[:end]
        data = data[end:]


def ssh_talk() -> Iterator[bytes]:
    """Banners, key exchange, new keys, then noise: written down, since tshark only reads the outside of it."""
    numbers = {True: 1, False: 1}
    yield tcp((CLIENT, WEB), (40400, 22), (0, 0), 0x02)
    yield tcp((WEB, CLIENT), (22, 40400), (0, 1), 0x12)
    algorithms = b"\x14" + bytes(16) + b"".join(struct.pack("!I", 4) + b"none" for _ in range(10)) + bytes(5)
    share = b"\x1e" + struct.pack("!I", 32) + bytes(range(32))

    def packet(payload: bytes) -> bytes:
        padding = 8 - (len(payload) + 5) % 8 + 4
        return struct.pack("!IB", len(payload) + padding + 1, padding) + payload + bytes(padding)

    for up, octets in (
        *((True, b"SSH-2.0-test_1.0\r\n"), (False, b"SSH-2.0-other_2.0\r\n")),
        *((True, packet(algorithms)), (False, packet(algorithms)), (True, packet(share))),
        *((True, packet(b"\x15")), (True, bytes(range(64)))),
    ):
        ends, ports = ((CLIENT, WEB), (40400, 22)) if up else ((WEB, CLIENT), (22, 40400))
        yield tcp(ends, ports, (numbers[up], numbers[not up]), 0x18, octets)
        numbers[up] += len(octets)


def short_messages() -> Iterator[bytes]:
    yield dhcp()
    question = b"\0\0\0\0\0\1\0\0\0\0\0\0\x05_http\x04_tcp\x05local\0\0\x0c\0\1"
    yield udp(CLIENT, "224.0.0.251", (5353, 5353), question)
    yield udp(CLIENT, WEB, (51820, 51820), b"\1\0\0\0" + struct.pack("<I", 0x11223344) + bytes(range(140)))
    yield udp(WEB, CLIENT, (51820, 51820), b"\2\0\0\0" + struct.pack("<II", 0x55667788, 0x11223344) + bytes(range(80)))
    yield udp(CLIENT, WEB, (51820, 51820), b"\4\0\0\0" + struct.pack("<IQ", 0x55667788, 7) + bytes(range(64)))
    yield udp(CLIENT, WEB, (51820, 51820), b"\4\0\0\0" + struct.pack("<IQ", 0x55667788, 8) + bytes(range(16)))
    yield ipv4(CLIENT, WEB, 50, struct.pack("!II", 0xCAFE0001, 3) + bytes(range(60)))
    yield udp(CLIENT, WEB, (4500, 4500), struct.pack("!II", 0xCAFE0002, 4) + bytes(range(60)))
    yield udp(CLIENT, WEB, (40500, 123), b"\x23" + bytes(47))
    yield udp(CLIENT, WEB, (40600, 3478), b"\0\1\0\0\x21\x12\xa4\x42" + bytes(range(12)))
    mapped = b"\0\x20\0\x08\0\1" + struct.pack("!H", 40600 ^ 0x2112) + bytes(a ^ b for a, b in zip(
        bytes(map(int, CLIENT.split("."))), b"\x21\x12\xa4\x42", strict=True))  # fmt: skip
    yield udp(WEB, CLIENT, (3478, 40600), b"\1\1\0\x0c\x21\x12\xa4\x42" + bytes(range(12)) + mapped)
    ike = bytes(range(1, 9)) + bytes(8) + bytes([0, 0x20, 34, 8]) + struct.pack("!II", 0, 28)
    yield udp(CLIENT, WEB, (500, 500), ike)
    yield udp(CLIENT, WEB, (4500, 4500), bytes(4) + ike)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Sequence[tuple[dict[str, str], PacketView]]:
    path = tmp_path_factory.mktemp("protocols") / "all.pcapng"
    blocks = [pcapng.build_section_header("test"), pcapng.build_interface("eth0", pcapng.LINKTYPE_RAW)]
    for number, packet in enumerate((*quic_talk(), *http2_talk(), *dtls_talk(), *ssh_talk(), *short_messages())):
        blocks.append(pcapng.build_packet(0, 10**18 + number * 10**6, packet, len(packet)))
    path.write_bytes(b"".join(blocks))
    argv = [
        "tshark",
        "-n",
        "-r",
        str(path),
        "-d",
        "tcp.port==8080,http2",
        "-d",
        "udp.port==4433,dtls",
        "-T",
        "fields",
        "-E",
        "separator=/t",
    ]
    argv += [word for field in FIELDS for word in ("-e", field)]
    lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    dissector = CaptureDissector()
    with CaptureReader(path) as reader:
        views = [dissector.open(frame) for frame in reader]
    assert len(lines) == len(views)
    return [(dict(zip(FIELDS, line.split("\t"), strict=False)), view) for line, view in zip(lines, views, strict=True)]


def fields_of(view: PacketView, name: str) -> list[dict[str, str]]:
    return [dict(layer.fields) for layer in view.layers if layer.name == name]


def test_every_frame_is_of_the_protocol_that_tshark_says_and_every_octet_has_a_layer(
    told: Sequence[tuple[dict[str, str], PacketView]],
) -> None:
    pairs = [(shark["_ws.col.Protocol"], view.protocol) for shark, view in told]
    differing = [pair for pair in pairs if not pair[1].startswith(pair[0])]  # DTLS and SSH before it knows the version
    assert differing == []
    for _, view in told:
        assert {at for layer in view.layers for at in range(layer.start, layer.end)} == set(range(len(view.octets)))


def test_quics_long_headers_and_the_name_in_its_initial_packets_are_tsharks(
    told: Sequence[tuple[dict[str, str], PacketView]],
) -> None:
    types = {"0": "Initial", "2": "Handshake"}
    compared = 0
    names = []
    for shark, view in told:
        if view.protocol != "QUIC":
            continue
        headers = [fields for fields in fields_of(view, "QUIC header") if "version" in fields]
        kinds = [types[kind] for kind in shark["quic.long.packet_type"].split(",") if kind]
        assert [fields["kind"] for fields in headers] == kinds
        if headers:
            assert [f["destination id"] for f in headers] == shark["quic.dcid"].split(",")[: len(headers)]
            assert [f["source id"] for f in headers] == shark["quic.scid"].split(",")
            compared += 1
        opened = fields_of(view, "Initial packet of QUIC, opened")
        names += [fields["server name"] for fields in opened if "server name" in fields]
        for name in filter(None, shark["tls.handshake.extensions_server_name"].split(",")):
            assert name in names
        sealed = any(layer.encrypted for layer in view.layers)
        assert sealed == ("Handshake" in kinds or not kinds or view.layers[-1].name == "QUIC 1-RTT packet")
    assert compared >= 3
    assert names == [NAME]


def test_http2s_frames_paths_and_answers_are_tsharks(told: Sequence[tuple[dict[str, str], PacketView]]) -> None:
    paths, answers = [], []
    for shark, view in told:
        types = [kind for kind in shark["http2.type"].split(",") if kind]
        shown = [
            fields
            for layer in view.layers
            if layer.name == "HyperText Transfer Protocol 2"
            for fields in [layer.fields]
        ]
        frames = [value for fields in shown for name, value in fields if name == "frame"]
        assert len(frames) == len(types), (shark, frames)
        paths += [value for fields in shown for name, value in fields if name == ":path"]
        answers += [value for fields in shown for name, value in fields if name == ":status"]
        if shark["http2.headers.path"]:
            assert f": GET {shark['http2.headers.path']}" in view.summary
    assert paths == ["/first", "/second"]
    assert answers == ["200", "200"]


def test_short_messages_say_what_tshark_says(told: Sequence[tuple[dict[str, str], PacketView]]) -> None:
    found = {view.protocol: view for _, view in told}
    for shark, view in told:
        if view.protocol in ("WireGuard", "ESP", "MDNS", "DHCP"):
            words = shark["_ws.col.Info"].replace(', "QM" question', "").replace("  ", " ").strip()
            assert view.summary == words
        if view.protocol in ("ISAKMP", "NTP"):
            assert view.summary == shark["_ws.col.Info"]
    assert {"WireGuard", "ESP", "ISAKMP", "DHCP", "MDNS"} <= set(found)
    assert {"NTP", "STUN"} <= set(found)
    said = [shark["_ws.col.Info"].split(" XOR-MAPPED")[0] for shark, view in told if view.protocol == "STUN"]
    assert said == [view.summary for _, view in told if view.protocol == "STUN"]
    (answer,) = fields_of(found["STUN"], "Session Traversal Utilities for NAT")
    assert answer["your address as I see it"] == f"{CLIENT} port 40600"
    (lease,) = fields_of(found["DHCP"], "Dynamic Host Configuration Protocol")
    assert lease["host name"] == next(
        shark["dhcp.option.hostname"] for shark, _ in told if shark["dhcp.option.hostname"]
    )
    sealed = [view for _, view in told if view.protocol in ("ESP", "WireGuard")]
    assert all(view.layers[-1].encrypted for view in sealed)


def test_dtls_and_ssh_say_what_tshark_says_and_seal_what_it_cannot_read(
    told: Sequence[tuple[dict[str, str], PacketView]],
) -> None:
    layers = [fields for _, view in told for fields in fields_of(view, "Datagram Transport Layer Security")]
    names = [fields["server name"] for fields in layers if "server name" in fields]
    assert names == [NAME]
    compared = {"DTLSv1.2": 0, "SSHv2": 0}
    for shark, view in told:
        if view.protocol not in compared:
            continue
        words = shark["_ws.col.Info"].split(" (Fragment")[0].split(" (Reassembled")[0]
        if "Diffie-Hellman" not in words:
            assert view.summary == words
            compared[view.protocol] += 1
        assert view.layers[-1].encrypted == ("Encrypted" in words or "Application Data" in words)
    assert min(compared.values()) >= 5, compared

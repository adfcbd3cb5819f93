"""The opened packets against tshark: protocols, summaries and key fields, frame by frame.

Judged on what curl, dig, openssl, ping and socat said over a tapped wire, and on recordings of the real openvpn. Where
tshark itself goes wrong or says more, the exception is named here with its reason.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from testbed.capture.reader import CaptureReader
from testbed.dissection.capture import CaptureDissector
from testbed.report.packets import Layer, PacketView
from tests.lab.two_nodes import run_apart

pytestmark = [pytest.mark.interop]
TRAFFIC = Path(__file__).with_name("observed_traffic.py")
CAPTURES = Path(__file__).parents[1] / "data" / "captures"
RECORDINGS = sorted(path.name for path in CAPTURES.glob("openvpn-*.pcapng"))
FIELDS = (
    *("frame.number", "_ws.col.Protocol", "_ws.col.Info", "frame.protocols"),
    *("ip.src", "ip.dst", "ip.ttl", "ipv6.src", "ipv6.dst", "ipv6.hlim"),
    *("tcp.srcport", "tcp.dstport", "tcp.seq", "tcp.window_size", "udp.srcport", "udp.dstport"),
    *("dns.qry.name", "http.request.full_uri", "http.host", "tls.handshake.extensions_server_name"),
    *("openvpn.opcode", "openvpn.keyid", "openvpn.sessionid", "openvpn.peerid"),
)
LAYERS = {
    "eth": "Ethernet II",
    "arp": "Address Resolution Protocol",
    "ip": "Internet Protocol Version 4",
    "ipv6": "Internet Protocol Version 6",
    "udp": "User Datagram Protocol",
    "tcp": "Transmission Control Protocol",
    "dns": "Domain Name System",
    "icmp": "Internet Control Message Protocol",
    "icmpv6": "Internet Control Message Protocol v6",
    "openvpn": "OpenVPN",
}
# What tshark learns from looking back and ahead over a whole capture, and a summary of one frame does not need.
ANALYSIS = re.compile(
    r"\[TCP (?!segment)[^]]*\] ?|\((?:request|reply) in \d+\)|\(no response found!\)|S[LR]E=\d+|\[Malformed Packet\]"
)


@dataclass(frozen=True)
class Told:
    """One frame as tshark tells it and as the report shows it."""

    tshark: dict[str, str]
    view: PacketView


def told(path: Path) -> list[Told]:
    wanted = [word for field in FIELDS for word in ("-e", field)]
    argv = ["tshark", "-n", "-r", str(path), "-T", "fields", "-E", "separator=/t", "-E", "occurrence=f", *wanted]
    lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    dissector = CaptureDissector()
    with CaptureReader(path) as reader:
        views = [dissector.open(frame) for frame in reader]
    assert len(lines) == len(views)
    rows = [dict(zip(FIELDS, line.split("\t"), strict=False)) for line in lines]
    return [Told({key: row.get(key, "") for key in FIELDS}, view) for row, view in zip(rows, views, strict=True)]


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> list[Told]:
    directory = tmp_path_factory.mktemp("dissected")
    run_apart(TRAFFIC, "everything", directory)
    return told(directory / "server:client.pcapng")


def fields_of(view: PacketView, name: str) -> dict[str, str]:
    return dict(next((layer.fields for layer in view.layers if layer.name == name), ()))


def plain(summary: str) -> str:
    return " ".join(ANALYSIS.sub("", summary).split())


def sealed(view: PacketView) -> list[Layer]:
    return [layer for layer in view.layers if layer.encrypted]


def is_last_fragment(one: Told) -> bool:
    """tshark shows the whole datagram with its last fragment; the report shows what the frame holds."""
    return one.view.summary.startswith("Fragmented IP") and not one.tshark["_ws.col.Info"].startswith("Fragmented IP")


def test_the_layers_are_those_that_tshark_finds(traffic: list[Told]) -> None:
    for one in traffic:
        names = [layer.name for layer in one.view.layers]
        if is_last_fragment(one):
            continue
        for protocol in one.tshark["frame.protocols"].split(":")[:4]:
            if protocol in LAYERS and one.tshark["_ws.col.Protocol"] != "MDNS":
                assert LAYERS[protocol] in names, (one.tshark, names)


def test_every_octet_of_a_frame_belongs_to_a_layer(traffic: list[Told]) -> None:
    for one in traffic:
        covered = {at for layer in one.view.layers for at in range(layer.start, layer.end)}
        assert covered == set(range(len(one.view.octets))), one.tshark


def test_addresses_ports_hops_and_tcp_numbers_are_the_same(traffic: list[Told]) -> None:
    compared = 0
    for one in traffic:
        shark = one.tshark
        inner = fields_of(one.view, "Transmission Control Protocol") or fields_of(one.view, "User Datagram Protocol")
        outer = fields_of(one.view, "Internet Protocol Version 4") or fields_of(one.view, "Internet Protocol Version 6")
        if not outer:
            continue
        assert one.view.source == (shark["ip.src"] or shark["ipv6.src"])
        assert one.view.destination == (shark["ip.dst"] or shark["ipv6.dst"])
        assert outer.get("time to live", outer.get("hop limit")) == (shark["ip.ttl"] or shark["ipv6.hlim"])
        if inner:
            assert inner["source port"] == (shark["tcp.srcport"] or shark["udp.srcport"])
            assert inner["destination port"] == (shark["tcp.dstport"] or shark["udp.dstport"])
        if shark["tcp.seq"]:
            assert inner["sequence number"].split(" ")[0] == shark["tcp.seq"], shark
            assert inner["window"] == shark["tcp.window_size"], shark
            compared += 1
    assert compared > 100


def test_the_summaries_say_what_tsharks_say(traffic: list[Told]) -> None:
    """DNS, ICMP and ARP word for word; else nearly always: a body without a length, an answer to HEAD look ahead."""
    exact = ("DNS", "ICMP", "ICMPv6", "ARP")
    differing = [
        (
            one.tshark["frame.number"],
            one.tshark["_ws.col.Protocol"],
            plain(one.tshark["_ws.col.Info"]),
            one.view.summary,
        )
        for one in traffic
        if plain(one.tshark["_ws.col.Info"]) != plain(one.view.summary) and not is_last_fragment(one)
    ]
    assert [row for row in differing if row[1] in exact] == []
    assert len(differing) <= len(traffic) * 0.02, differing


def test_names_hosts_and_urls_are_the_same(traffic: list[Told]) -> None:
    found = {"dns.qry.name": 0, "http.host": 0, "tls.handshake.extensions_server_name": 0}
    for one in traffic:
        if one.tshark["dns.qry.name"] and one.view.protocol == "DNS":
            assert one.tshark["dns.qry.name"] in one.view.summary
            found["dns.qry.name"] += 1
        if one.tshark["http.host"] and one.view.protocol == "HTTP":
            assert fields_of(one.view, "Hypertext Transfer Protocol").get("Host") == one.tshark["http.host"]
            found["http.host"] += 1
        if one.tshark["tls.handshake.extensions_server_name"]:
            fields = fields_of(one.view, "Transport Layer Security")
            assert fields["server name"] == one.tshark["tls.handshake.extensions_server_name"]
            found["tls.handshake.extensions_server_name"] += 1
    assert min(found.values()) > 0, found


@pytest.mark.parametrize("file", RECORDINGS)
def test_openvpns_opcodes_and_identifiers_are_the_same_in_recordings_of_the_real_program(file: str) -> None:
    compared = 0
    for one in told(CAPTURES / file):
        if not one.tshark["openvpn.opcode"]:
            continue
        fields = fields_of(one.view, "OpenVPN")
        if not fields:  # over TCP: a segment that only continues a packet
            continue
        compared += 1
        if "," not in one.view.summary or one.tshark["udp.srcport"]:
            opcode = int(one.tshark["openvpn.opcode"], 0)
            assert fields["opcode"].endswith(f"({opcode})"), (one.tshark, fields)
            assert fields["key id"] == str(int(one.tshark["openvpn.keyid"], 0))
        if one.tshark["openvpn.sessionid"] and "session id" in fields and one.tshark["udp.srcport"]:
            assert int(fields["session id"], 0) == int(one.tshark["openvpn.sessionid"], 0)
        if one.tshark["openvpn.peerid"] and "peer id" in fields and one.tshark["udp.srcport"]:
            assert int(fields["peer id"]) == int(one.tshark["openvpn.peerid"], 0)
        if "P_DATA" in fields["opcode"]:
            assert sealed(one.view)
    assert compared >= 10

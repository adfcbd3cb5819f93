"""A small run on disk for the report's tests: captures of the sample's variants, made octet by octet.

Hostile text is among them. So opening, listing, pairing and drawing are tested on real frames without a lab.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from testbed.capture import pcapng
from testbed.result import RunResult, TapRecord
from tests.unit.test_report_sample import START, sample_result

CLIENT, TUN, ISP, VPN, WEB, INSIDE = (
    *("192.168.0.13", "10.8.0.2", "192.168.0.1"),
    *("198.51.100.10", "93.184.216.34", "10.8.0.1"),
)
HOSTILE_PATH = "/<script>document.title=1</script>"
OVERHEAD_OCTETS = 52  # IP, UDP, OpenVPN's header and tag
TOPOLOGY = {
    "client": {"client-eth0": {"peer": "isp", "addresses": [CLIENT]}},
    "isp": {
        "isp-client": {"peer": "client", "addresses": [ISP]},
        "isp-eth1": {"peer": "transit", "addresses": ["192.0.2.1"]},
    },
    "transit": {
        "transit-eth0": {"peer": "isp", "addresses": ["192.0.2.2"]},
        "transit-eth1": {"peer": "vpn", "addresses": ["198.51.100.1"]},
        "transit-eth2": {"peer": "web", "addresses": ["93.184.216.1"]},
    },
    "web": {"web-eth0": {"peer": "transit", "addresses": [WEB]}},
    "vpn": {
        "vpn-eth0": {"peer": "transit", "addresses": [VPN]},
        "vpn-eth1": {"peer": "private", "addresses": ["10.20.0.1"]},
    },
    "private": {"private-eth0": {"peer": "vpn", "addresses": ["10.20.0.10"]}},
}

Timed = tuple[float, bytes]  # seconds after the first action, a packet beginning with its IP header


def ipv4(source: str, destination: str, protocol: int, body: bytes) -> bytes:
    ends = [bytes(map(int, address.split("."))) for address in (source, destination)]
    return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 1, 0x4000, 64, protocol, 0, *ends) + body


def udp(source: str, destination: str, ports: tuple[int, int], payload: bytes) -> bytes:
    return ipv4(source, destination, 17, struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload)


def tcp(
    ends: tuple[str, str], ports: tuple[int, int], numbers: tuple[int, int], flags: int, data: bytes = b""
) -> bytes:
    return ipv4(*ends, 6, struct.pack("!HHIIBBHHH", *ports, *numbers, 0x50, flags, 512, 0, 0) + data)


def talk(client: str, resolver: str) -> Iterator[Timed]:
    """What the client says and hears: a name, then a page. The same in clear text and inside the tunnel."""
    query = bytes.fromhex("abcd0100000100000000000003777777076578616d706c6503636f6d0000010001")
    answer = (
        b"\xab\xcd\x81\x80\0\1\0\1\0\0\0\0" + query[12:] + b"\xc0\x0c\0\1\0\1\0\0\0\x1e\0\4" + bytes((93, 184, 216, 34))
    )
    yield 0.001, udp(client, resolver, (40000, 53), query)
    yield 0.004, udp(resolver, client, (53, 40000), answer)
    up, down, ports, back = (client, WEB), (WEB, client), (40001, 80), (80, 40001)
    request = f"GET {HOSTILE_PATH} HTTP/1.1\r\nHost: www.example.com\r\nCookie: session=1\r\n\r\n".encode()
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 27\r\n\r\n<script>alert(1)</script>\r\n"
    yield 0.151, tcp(up, ports, (1, 0), 0x02)
    yield 0.152, tcp(down, back, (9, 2), 0x12)
    yield 0.153, tcp(up, ports, (2, 10), 0x10)
    yield 0.154, tcp(up, ports, (2, 10), 0x18, request)
    yield 0.156, tcp(down, back, (10, 2 + len(request)), 0x18, page)
    yield 0.157, tcp(up, ports, (2 + len(request), 10 + len(page)), 0x11)


def sealed(packets: Sequence[Timed]) -> Iterator[Timed]:
    """The same in the tunnel: a handshake, then a data packet for each, and a ping of the tunnel's own."""
    up, down = (CLIENT, VPN, (50000, 1194)), (VPN, CLIENT, (1194, 50000))
    client_id, server_id = b"clientid", b"serverid"
    yield -0.20, udp(*up, b"\x38" + client_id + bytes(5))
    yield -0.19, udp(*down, b"\x40" + server_id + b"\1" + bytes(4) + client_id + bytes(4))
    yield -0.18, udp(*up, b"\x28" + client_id + b"\1" + bytes(4) + server_id)
    yield -0.17, udp(*down, b"\x48\0\0\0" + (1).to_bytes(4, "big") + bytes(range(32)))
    for number, (time, packet) in enumerate(packets, start=2):
        way, later = (up, 0.0004) if packet[12:16] == bytes((10, 8, 0, 2)) else (down, -0.0004)
        yield time + later, udp(*way, b"\x48\0\0\0" + number.to_bytes(4, "big") + bytes(16) + bytes(len(packet)))


def capture_octets(packets: Sequence[Timed], link_type: int) -> bytes:
    ethernet = bytes.fromhex("0200000001020200000001010800") if link_type == pcapng.LINKTYPE_ETHERNET else b""
    blocks = [pcapng.build_section_header("test"), pcapng.build_interface("eth0", link_type)]
    blocks += [
        pcapng.build_packet(0, round((START + time) * 1e9), ethernet + packet, len(ethernet + packet))
        for time, packet in packets
    ]
    return b"".join(blocks)


def write_run(directory: Path) -> RunResult:
    """Write the captures and return the result that names them."""
    inner = list(talk(TUN, INSIDE))
    captures = {"without": list(talk(CLIENT, ISP)), "with": list(sealed(inner)), "split": []}
    for name, packets in captures.items():
        (directory / name).mkdir(parents=True)
        (directory / name / "isp.pcapng").write_bytes(capture_octets(packets, pcapng.LINKTYPE_ETHERNET))
    (directory / "with" / "client-tun.pcapng").write_bytes(capture_octets(inner, pcapng.LINKTYPE_RAW))
    result = sample_result()
    whole = result.variants["with"]
    taps = (*whole.taps, TapRecord("client-tun", "client", "tun0", "with/client-tun.pcapng", len(inner), 1, 0))
    whole = replace(whole, taps=taps, tunnel={**(whole.tunnel or {}), "server_address": VPN})
    scenario = {**result.scenario, "topology": TOPOLOGY}
    return replace(result, scenario=scenario, variants={**result.variants, "with": whole})

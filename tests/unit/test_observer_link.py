"""Link layers beyond plain Ethernet: a datagram in each is read, and tshark reads the same addresses."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.layers.ppp import PPP, PPPoE
from scapy.packet import Raw

from testbed.capture import pcapng
from testbed.observer import observe
from testbed.observer.link import PPP_HDLC, PPP_WITH_DIRECTION, PPPOE, network_offset

TEXT = b"a datagram with token-5150"
PACKETS = {
    4: IP(src="10.1.0.1", dst="10.2.0.2") / UDP(sport=4000, dport=9999) / Raw(TEXT),
    6: IPv6(src="2001:db8::a", dst="2001:db8::b") / UDP(sport=4000, dport=9999) / Raw(TEXT),
}
PPP_PROTOCOL = {4: b"\x00\x21", 6: b"\x00\x57"}
ETHERTYPE = {4: b"\x08\x00", 6: b"\x86\xdd"}


def snap(version: int, packet: bytes) -> bytes:
    return (8 + len(packet)).to_bytes(2, "big") + b"\xaa\xaa\x03\0\0\0" + ETHERTYPE[version] + packet


def framed(kind: str, version: int) -> tuple[int, bytes]:
    packet = bytes(PACKETS[version])
    ppp = PPP_PROTOCOL[version] + packet
    session: Any = PPPoE(sessionid=7) / PPP() / PACKETS[version]
    frames = {
        "pppoe": (pcapng.LINKTYPE_ETHERNET, bytes(Ether() / session)),
        "pppoe in a VLAN": (pcapng.LINKTYPE_ETHERNET, bytes(Ether() / Dot1Q(vlan=7) / session)),
        "ppp": (pcapng.LINKTYPE_PPP, b"\xff\x03" + ppp),
        "ppp, compressed": (pcapng.LINKTYPE_PPP, ppp),
        "ppp, compressed twice": (pcapng.LINKTYPE_PPP, ppp[1:]),
        "pppoe without Ethernet": (PPPOE, bytes(session)),
        "802.2 SNAP": (pcapng.LINKTYPE_ETHERNET, bytes(12) + snap(version, packet)),
        "802.2 SNAP in a VLAN": (
            pcapng.LINKTYPE_ETHERNET,
            bytes(12) + b"\x81\x00\x00\x07" + snap(version, packet),
        ),
        "MPLS": (
            pcapng.LINKTYPE_ETHERNET,
            bytes(12) + b"\x88\x47\x00\x01\x00\x40\x00\x01\x11\x40" + packet,
        ),
        "ppp, hdlc": (PPP_HDLC, b"\xff\x03" + ppp),
        "ppp with direction": (PPP_WITH_DIRECTION, b"\x01\xff\x03" + ppp),
        "cooked 2 in a VLAN": (
            pcapng.LINKTYPE_LINUX_SLL2,
            b"\x81\x00" + bytes(8) + b"\x00\x01\x00\x06" + bytes(6) + b"\x00\x07" + ETHERTYPE[version] + packet,
        ),
        "loopback of OpenBSD": (pcapng.LINKTYPE_LOOP, b"\0\0\0" + (b"\x02" if version == 4 else b"\x18") + packet),
        "loopback, big endian": (pcapng.LINKTYPE_NULL, b"\0\0\0" + (b"\x02" if version == 4 else b"\x1e") + packet),
    }
    return frames[kind]


KINDS = (
    *("pppoe", "pppoe in a VLAN", "ppp", "ppp, compressed", "ppp, hdlc", "ppp with direction", "cooked 2 in a VLAN"),
    *("ppp, compressed twice", "pppoe without Ethernet", "802.2 SNAP", "802.2 SNAP in a VLAN", "MPLS"),
    *("loopback of OpenBSD", "loopback, big endian"),
)


@pytest.mark.interop
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("kind", KINDS)
def test_a_datagram_is_read_in_every_link_layer(tmp_path: Path, kind: str, version: int) -> None:
    link_type, frame = framed(kind, version)
    path = tmp_path / "x.pcapng"
    head = pcapng.build_section_header("x") + pcapng.build_interface("x", link_type)
    path.write_bytes(head + pcapng.build_packet(0, 1, frame, len(frame)))
    found = observe(path)
    assert [stream.data for stream in found.streams] == [TEXT]
    assert found == observe(path, in_columns=True)
    fields = ["-T", "fields", "-e", "udp.payload"]
    shown = subprocess.run(["tshark", "-r", str(path), *fields], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == TEXT.hex()


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_cut_anywhere_in_its_link_layer_is_survived(kind: str) -> None:
    link_type, frame = framed(kind, 4)
    for end in range(len(frame)):
        assert network_offset(link_type, frame[:end]) <= len(frame)


def test_frames_of_other_kinds_are_counted_by_kind_but_for_those_of_the_link_itself(tmp_path: Path) -> None:
    head = pcapng.build_section_header("x") + pcapng.build_interface("x", pcapng.LINKTYPE_ETHERNET)
    kinds = (b"\x88\xe5", b"\x88\xe5", b"\x81\0\0\7\x89\x15", b"\x08\x06", b"\x88\xcc", b"\x88\x8e", b"\x00\x26")
    frames = [bytes(12) + kind + bytes(60) for kind in kinds]
    path = tmp_path / "x.pcapng"
    path.write_bytes(head + b"".join(pcapng.build_packet(0, 1, frame, len(frame)) for frame in frames))
    found = observe(path)
    warnings = ("frames of Ethertype 0x88e5 are not read (frame 1 and 1 more)",)
    assert found.warnings == (*warnings, "frames of Ethertype 0x8915 are not read (frame 3)")
    assert found == observe(path, in_columns=True)

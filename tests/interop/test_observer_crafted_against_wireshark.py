"""Messages that no program at hand sends, built by scapy, read by the observer, found by Wireshark's own engine.

Each finding's display filter must return exactly the frames the finding names; what the observer says of a frame is
held against what scapy was told to build.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dhcp6 import DHCP6_RelayForward, DHCP6_Solicit, DHCP6OptClientFQDN, DHCP6OptRelayMsg
from scapy.layers.dns import DNS, DNSQR, DNSRR, DNSRROPT, DNSRRSRV
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6TimeExceeded, IPv6
from scapy.layers.l2 import ARP, GRE, CookedLinux, Dot1Q, Ether
from scapy.layers.llmnr import LLMNRQuery
from scapy.layers.netbios import NBNSHeader, NBNSQueryRequest, NBNSRegistrationRequest
from scapy.layers.ntp import NTP
from scapy.packet import Raw

from testbed.capture import pcapng
from testbed.facts import Kind
from testbed.observer import Observation, observe
from tests.interop.sharkd import Sharkd

pytestmark = pytest.mark.interop
Observed = Callable[..., Observation]
A, B, C = "10.1.0.1", "10.2.0.2", "198.51.100.7"
A6, B6 = "2001:db8::a", "2001:db8::b"
HARDWARE, OTHER_HARDWARE = "02:00:00:00:00:0a", "02:00:00:00:00:0b"  # given, or scapy asks the network for them


def capture(path: Path, frames: Iterable[Any], link_type: int) -> Path:
    blocks = [pcapng.build_section_header("test"), pcapng.build_interface("x", link_type)]
    for index, frame in enumerate(frames):
        data = bytes(
            frame if link_type != pcapng.LINKTYPE_ETHERNET else Ether(src=HARDWARE, dst=OTHER_HARDWARE) / frame
        )
        blocks.append(pcapng.build_packet(0, 1_700_000_000_000_000_000 + index * 1_000_000, data, len(data)))
    path.write_bytes(b"".join(blocks))
    return path


@pytest.fixture(scope="module")
def wireshark() -> Iterator[Sharkd]:
    with Sharkd() as started:
        yield started


@pytest.fixture
def observed(tmp_path: Path, wireshark: Sharkd) -> Observed:
    """What the observer knows of frames; every filter it gives has been tried."""

    def observed(frames: Iterable[Any], link_type: int = pcapng.LINKTYPE_ETHERNET) -> Observation:
        path = capture(tmp_path / "crafted.pcapng", frames, link_type)
        observation = observe(path)
        assert [warning for warning in observation.warnings if "octets of an HTTP" not in warning] == []
        wireshark.load(path)
        for hint in observation.hints:
            assert wireshark.frames(hint.display_filter) == list(hint.frames), hint
        for name in observation.names:
            assert wireshark.frames(name.display_filter)[:1] == [name.frame], name
        for sighting in observation.sightings:
            if sighting.kind not in (Kind.TUNNEL, Kind.VOLUME, Kind.TIMING):
                assert wireshark.frames(sighting.display_filter) == list(sighting.frames), sighting
        return observation

    return observed


def named(observation: Observation) -> set[tuple[str, str]]:
    return {(name.name, name.via) for name in observation.names}


def hinted(observation: Observation, what: str) -> list[tuple[str, str]]:
    return [(hint.value, hint.about) for hint in observation.hints if hint.what == what]


def test_dhcp_tells_the_hosts_name_and_what_it_is(observed: Observed) -> None:
    def request(*options: Any) -> Any:
        hardware = bytes.fromhex(HARDWARE.replace(":", ""))
        head = IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67) / BOOTP(chaddr=hardware)
        return head / DHCP(options=[("message-type", "request"), *options, "end"])

    frames = [
        request(("hostname", b"Alices-Laptop"), ("vendor_class_id", b"MSFT 5.0"), ("requested_addr", "192.168.0.13")),
        request(("client_FQDN", b"\x04\0\0\x05desk1\x04corp\x07example\0"), ("client_id", b"\1" + b"abcdef")),
        request(("client_FQDN", b"\0\0\0desk2.corp.example")),
    ]
    observation = observed(frames)
    names = {"alices-laptop", "desk1.corp.example", "desk2.corp.example"}
    assert named(observation) == {(name, "dhcp") for name in names}
    assert hinted(observation, "dhcp-vendor") == [("MSFT 5.0", HARDWARE)]
    assert hinted(observation, "dhcp-requested-address") == [("192.168.0.13", HARDWARE)]
    assert hinted(observation, "dhcp-client-id") == [("01616263646566", HARDWARE)]
    assert {flow.application for flow in observation.flows} == {"dhcp"}


def test_dhcpv6_tells_the_hosts_name_also_behind_a_relay(observed: Observed) -> None:
    def solicit(name: bytes) -> Any:
        return DHCP6_Solicit(trid=7) / DHCP6OptClientFQDN(fqdn=name)

    direct = IPv6(src="fe80::1", dst="ff02::1:2") / UDP(sport=546, dport=547) / solicit(b"laptop.example.")
    relayed = DHCP6_RelayForward(linkaddr=A6, peeraddr=B6) / DHCP6OptRelayMsg(message=solicit(b"phone.example."))
    frames = [direct, IPv6(src=A6, dst=B6) / UDP(sport=547, dport=547) / relayed]
    assert named(observed(frames)) == {("laptop.example", "dhcpv6"), ("phone.example", "dhcpv6")}


def test_names_on_the_local_link_are_read(observed: Observed) -> None:
    service = "Alices Printer._ipp._tcp.local"
    announced = DNS(
        qr=1,
        aa=1,
        qd=[],
        an=[
            DNSRR(rrname="_ipp._tcp.local", type="PTR", rdata=service.replace(" ", "-")),
            DNSRRSRV(rrname=service.replace(" ", "-"), port=631, target="printer.local"),
            DNSRR(rrname="printer.local", type="A", rdata="192.168.0.77"),
        ],
    )
    frames = [
        IP(src=A, dst="224.0.0.251") / UDP(sport=5353, dport=5353) / announced,
        IP(src=A, dst="224.0.0.252") / UDP(sport=50000, dport=5355) / LLMNRQuery(qd=DNSQR(qname="wpad")),
        IP(src=A, dst="10.255.255.255")
        / UDP(sport=137, dport=137)
        / NBNSHeader()
        / NBNSQueryRequest(QUESTION_NAME=b"FILESERVER", QUESTION_TYPE="NB"),
        IP(src=A, dst="10.255.255.255")
        / UDP(sport=137, dport=137)
        / NBNSHeader(OPCODE=5)
        / NBNSRegistrationRequest(QUESTION_NAME=b"ALICE-PC", NB_ADDRESS=A),
    ]
    observation = observed(frames)
    assert named(observation) == {
        ("_ipp._tcp.local", "mdns"),
        ("alices-printer._ipp._tcp.local", "mdns"),
        ("printer.local", "mdns"),
        ("wpad", "llmnr"),
        ("fileserver", "nbns"),
        ("alice-pc", "nbns"),
    }
    answers = {s.value: s.detail["name"] for s in observation.sightings if s.kind == Kind.DNS_ANSWER}
    assert answers == {"192.168.0.77": "printer.local"}


def test_clocks_tell_whose_time_they_follow(observed: Observed) -> None:
    ask = IP(src=A, dst=B) / UDP(sport=123, dport=123) / NTP(mode=3, version=4)
    answer = IP(src=B, dst=A) / UDP(sport=123, dport=123) / NTP(mode=4, version=4, stratum=2, id="192.0.2.5")
    observation = observed([ask, answer])
    assert [value for value, _ in hinted(observation, "ntp")] == [
        "client, version 4",
        "server, version 4, stratum 2, reference 192.0.2.5",
    ]


SYN_OPTIONS = {
    "Linux or Android": (64, 3, [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)]),
    "Windows": (128, 9, [("MSS", 1460), ("NOP", None), ("WScale", 8), ("NOP", None), ("NOP", None), ("SAckOK", b"")]),
    "FreeBSD": (64, 0, [("MSS", 1460), ("NOP", None), ("WScale", 6), ("SAckOK", b""), ("Timestamp", (1, 0))]),
    "macOS or iOS": (
        64,
        20,
        [
            ("MSS", 1460),
            ("NOP", None),
            ("WScale", 6),
            ("NOP", None),
            ("NOP", None),
            ("Timestamp", (1, 0)),
            ("SAckOK", b""),
            ("EOL", None),
        ],
    ),
}


def test_the_system_behind_a_syn_is_told_where_its_options_are_known_and_not_guessed_elsewhere(
    observed: Observed,
) -> None:
    frames = [
        IP(src=f"10.1.0.{number}", dst=B, ttl=ttl - hops) / TCP(sport=4000, dport=80, flags="S", options=options)
        for number, (ttl, hops, options) in enumerate(SYN_OPTIONS.values(), 1)
    ]
    windows = SYN_OPTIONS["Windows"][2]
    frames.append(IP(src="10.1.0.9", dst=B, ttl=50) / TCP(sport=4000, dport=80, flags="S", options=windows))
    frames.append(IP(src=B, dst=A) / TCP(sport=80, dport=1, flags="SA", options=SYN_OPTIONS["FreeBSD"][2]))
    observation = observed(frames)
    found = hinted(observation, "os")
    assert found == [(system, f"10.1.0.{number}") for number, system in enumerate(SYN_OPTIONS, 1)]


def test_two_systems_behind_one_address_are_told_apart(observed: Observed) -> None:
    frames = [
        network / TCP(sport=4000 + number, dport=80, flags="S", window=window, options=SYN_OPTIONS[system][2])
        for number, (system, window) in enumerate(
            (("Linux or Android", 64_240), ("Windows", 64_240), ("Windows", 8192))
        )
        for network in (
            IP(src=A, dst=B, ttl=SYN_OPTIONS[system][0] - 2),
            IPv6(src=A6, dst=B6, hlim=SYN_OPTIONS[system][0] - 2),
        )
    ]
    found = hinted(observed(frames), "os")
    assert found == [(system, host) for system in ("Linux or Android", "Windows") for host in (A, A6)]


@pytest.mark.parametrize(
    "envelope",
    [
        IP(src=C, dst=B) / GRE(),
        IP(src=C, dst=B) / GRE(key_present=1, seqnum_present=1, chksum_present=1),
        IP(src=C, dst=B) / GRE(proto=0x6558) / Ether(src=HARDWARE, dst=OTHER_HARDWARE) / Dot1Q(vlan=7),
        IP(src=C, dst=B, proto=4),
        IPv6(src=B6, dst=A6, nh=4),
    ],
    ids=["gre", "gre with key, number and checksum", "gre with ethernet", "ip in ip", "ip in ipv6"],
)
def test_packets_in_packets_are_observed_as_such(observed: Observed, envelope: Any) -> None:
    question = IP(src=A, dst="10.9.9.9") / UDP(sport=4000, dport=53) / DNS(qd=DNSQR(qname="inner.example"))
    observation = observed([envelope / question])
    assert named(observation) == {("inner.example", "dns")}
    assert {A, "10.9.9.9"} <= set(observation.addresses)


def test_six_in_four_is_opened_and_the_frames_are_counted_in_both_layers(observed: Observed) -> None:
    inner = IPv6(src=A6, dst=B6) / UDP(sport=4000, dport=53) / DNS(qd=DNSQR(qname="six.example"))
    observation = observed([IP(src=C, dst=B, proto=41) / inner])
    assert named(observation) == {("six.example", "dns")}
    assert {flow.sent.packets for flow in observation.flows} == {1}
    assert {C, B, A6, B6} <= set(observation.addresses)


def test_icmp_errors_tell_the_addresses_and_the_name_in_what_they_quote(observed: Observed) -> None:
    quoted = IP(src=A, dst=C) / UDP(sport=4000, dport=53) / DNS(qd=DNSQR(qname="quoted.example"))
    quoted6 = (
        IPv6(src=A6, dst="2001:db8::c")
        / UDP(sport=4000, dport=53)
        / DNS(qd=DNSQR(qname="quoted6.example"), ar=DNSRROPT())
    )
    cut = Raw(bytes(quoted6)[:-3])
    frames = [
        IP(src=B, dst=A) / ICMP(type=11) / quoted,
        IPv6(src=B6, dst=A6) / ICMPv6TimeExceeded() / quoted6,
        IPv6(src=B6, dst=A6) / ICMPv6DestUnreach() / cut,
    ]
    observation = observed(frames)
    assert named(observation) == {("quoted.example", "dns"), ("quoted6.example", "dns")}
    assert observation.addresses[C] == (1,)
    assert observation.addresses["2001:db8::c"] == (2, 3)


def test_what_lies_behind_a_hole_is_found_in_the_frame_that_brought_it(observed: Observed) -> None:
    def segment(number: int, data: bytes, flags: str = "PA") -> Any:
        return IP(src=A, dst=B) / TCP(sport=4000, dport=80, seq=number, flags=flags) / Raw(data)

    requests = [b"GET /%d HTTP/1.1\r\nHost: h.example\r\n\r\n" % number for number in range(4)]
    starts = [1000 + sum(len(request) for request in requests[:number]) for number in range(4)]
    kept = [segment(starts[number], requests[number]) for number in (0, 2, 3)]
    observation = observed([segment(999, b"", "S"), *kept, segment(starts[3] + 99, b"", "A")])
    urls = {s.value: s.frames for s in observation.sightings if s.kind == Kind.HTTP_URL}
    assert urls == {"http://h.example/0": (2,), "http://h.example/2": (3,), "http://h.example/3": (4,)}


def test_arp_tells_who_has_which_address_also_in_a_vlan_and_a_cooked_capture(observed: Observed) -> None:
    arp = ARP(op=2, hwsrc=HARDWARE, psrc=A, hwdst=OTHER_HARDWARE, pdst=B)
    assert hinted(observed([arp, Dot1Q(vlan=5) / arp]), "arp") == [(HARDWARE, A)]
    cooked = [CookedLinux(proto=0x0806) / arp]
    assert hinted(observed(cooked, pcapng.LINKTYPE_LINUX_SLL), "arp") == [(HARDWARE, A)]
    probe = ARP(op=1, hwsrc=HARDWARE, psrc="0.0.0.0", pdst=A)
    assert hinted(observed([probe]), "arp") == []

"""Addresses and names wherever they stand: in ARP, quoted, inside other packets, in reverse names, in longer names."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from testbed.facts import Fact, Kind
from testbed.result import Verdict
from testbed.verdict import judge
from testbed.verdict.capture import Capture
from testbed.verdict.headers import fields, transport
from tests.unit.verdict_samples import CLIENT, SITE, VPN, Stream, frames_of, packet, sighting, tap, variant

V6_SITE = "2001:db8:4::34"
SERVER = Fact(Kind.SERVER_ADDRESS, SITE, "2-http", "www.example.com")
SERVER_V6 = Fact(Kind.SERVER_ADDRESS, V6_SITE, "2-http", "www.example.com")
NAME = Fact(Kind.DNS_NAME, "example.com", "1-dns", "example.com", ("example.com",))


def ipv4(destination: str, payload: bytes, protocol: int, source: str = CLIENT) -> bytes:
    """An IPv4 packet."""
    length = (20 + len(payload)).to_bytes(2, "big")
    addresses = ip_address(source).packed + ip_address(destination).packed
    return b"\x45\0" + length + bytes(4) + b"\x40" + bytes([protocol]) + bytes(2) + addresses + payload


def ipv6(destination: str, payload: bytes, protocol: int, source: str = "2001:db8:1::13") -> bytes:
    addresses = ip_address(source).packed + ip_address(destination).packed
    return b"\x60" + bytes(3) + len(payload).to_bytes(2, "big") + bytes([protocol]) + b"\x40" + addresses + payload


def ether(ethertype: bytes, payload: bytes) -> bytes:
    return bytes(12) + ethertype + payload


INNER = ipv4(SITE, bytes(8), 17)
INNER_V6 = ipv6(V6_SITE, bytes(8), 17)
ARP_HEAD = b"\0\1\x08\0\6\4\0\1" + bytes(6)


@pytest.mark.parametrize(
    ("frame", "field", "where"),
    [
        (
            ether(b"\x08\x06", ARP_HEAD + ip_address(CLIENT).packed + bytes(6) + ip_address(SITE).packed),
            "arp.dst.proto_ipv4",
            "ARP",
        ),
        (ether(b"\x08\x00", ipv4(CLIENT, b"\3\1" + bytes(6) + INNER, 1, VPN)), "ip.dst", "ICMP quotes"),
        (ether(b"\x08\x00", ipv4(VPN, b"\0\0\x08\0" + INNER, 47)), "ip.dst", "inside GRE"),
        (ether(b"\x08\x00", ipv4(VPN, b"\x20\0\x08\0" + bytes(4) + INNER, 47)), "ip.dst", "inside GRE"),
        (ether(b"\x08\x00", ipv4(VPN, INNER, 4)), "ip.dst", "inside IP"),
        (ether(b"\x81\0\0\5\x08\0", ipv4(SITE, b"", 6)), "ip.dst", "in the IP header"),
        (ether(b"\x08\x00", ipv4(CLIENT, b"\5\0\0\0" + ip_address(SITE).packed, 1)), "icmp.redir_gw", "redirect"),
        (
            ether(b"\x08\0", ipv4(VPN, b"\0\1\x12\xb5" + bytes(12) + ether(b"\x08\0", INNER), 17)),
            "ip.dst",
            "inside VXLAN",
        ),
    ],
)
def test_an_address_that_stands_in_no_outer_header_is_found_where_it_is(frame: bytes, field: str, where: str) -> None:
    found = Capture(tap("isp", frames=frames_of(packet(VPN), frame))).find(SERVER)
    assert found is not None
    assert found.evidence[0].frame == 2
    assert found.evidence[0].filter == f"{field} == {SITE}"
    assert where in found.how


@pytest.mark.parametrize(
    ("frame", "filter_"),
    [
        (ether(b"\x86\xdd", ipv6("2001:db8:3::1", b"\x01\0" + bytes(6) + INNER_V6, 58)), f"ipv6.dst == {V6_SITE}"),
        (ether(b"\x08\x00", ipv4(VPN, INNER_V6, 41)), f"ipv6.dst == {V6_SITE}"),
        (
            ether(b"\x86\xdd", ipv6("ff02::1", b"\x87\0\0\0" + bytes(4) + ip_address(V6_SITE).packed, 58)),
            f"icmpv6.nd.ns.target_address == {V6_SITE}",
        ),
        (packet(VPN, b"xx" + ip_address(V6_SITE).packed), f"frame contains {ip_address(V6_SITE).packed.hex(':')}"),
    ],
)
def test_an_ipv6_address_is_found_in_any_octets(frame: bytes, filter_: str) -> None:
    found = Capture(tap("isp", frames=frames_of(frame))).find(SERVER_V6)
    assert found is not None
    assert found.evidence[0].filter == filter_


@pytest.mark.parametrize(
    "text",
    [
        b"X-Forwarded-For: 93.184.216.34\r\n",
        b"34.216.184.93.in-addr.arpa",
        b"\x0234\x03216\x03184\x0293\x07in-addr\x04arpa\0",
        b"93.184.216.34".hex().encode(),
    ],
)
def test_an_address_as_text_or_reverse_name_is_found(text: bytes) -> None:
    found = Capture(tap("isp", frames=frames_of(packet(VPN, text)))).find(SERVER)
    assert found is not None
    assert found.read_as == "text"


@pytest.mark.parametrize(
    "payload",
    [b"193.184.216.34", b"93.184.216.345", ip_address(SITE).packed, b"x" * 12 + ip_address(SITE).packed[::-1]],
)
def test_a_longer_number_or_four_octets_by_chance_are_not_the_address(payload: bytes) -> None:
    assert Capture(tap("isp", frames=frames_of(packet(VPN, payload)))).find(SERVER) is None


def test_no_frame_however_damaged_stops_the_search() -> None:
    for whole in (
        ether(b"\x86\xdd", ipv6(VPN_V6, INNER_V6, 41)),
        ether(b"\x08\0", ipv4(VPN, b"\0\0\x08\0" + INNER, 47)),
    ):
        for cut in range(len(whole)):
            list(fields(whole[:cut]))
            transport(whole[:cut])
            list(fields(whole[:cut], 101))


VPN_V6 = "2001:db8:3::10"


def test_a_name_inside_another_name_that_the_client_used_is_explained_by_it() -> None:
    frames = frames_of(b"..www.example.com..", b"\x03www\x07example\x03com\0")
    read = sighting(Kind.DNS_NAME, "www.example.com", 1)
    assert Capture(tap("isp", read, frames=frames), ["www.example.com"]).find(NAME) is None
    found = Capture(tap("isp", read, frames=frames)).find(NAME)
    assert found is not None, "a name below it that nobody used tells it"


@pytest.mark.parametrize(("other", "tells"), [("notexample.com", False), ("example.com.lan", True)])
def test_a_piece_of_another_name_is_not_the_name_but_a_name_with_a_search_domain_is(other: str, tells: bool) -> None:
    read = sighting(Kind.HTTP_HOST, other, 1)
    found = Capture(tap("isp", read, frames=frames_of(f"Host: {other}\r\n".encode()))).find(NAME)
    assert (found is not None) is tells


def test_the_name_itself_beside_a_longer_one_is_still_found() -> None:
    frames = frames_of(b"www.example.com", b"the name example.com alone")
    capture = Capture(tap("isp", sighting(Kind.DNS_NAME, "www.example.com", 1), frames=frames), ["www.example.com"])
    found = capture.find(NAME)
    assert found is not None
    assert [one.frame for one in found.evidence] == [2]


def test_a_text_split_over_frames_that_no_stream_holds_is_found_in_both() -> None:
    fact = Fact(Kind.PAYLOAD, "c0ffee1234567890", "3-run", None, ("c0ffee1234567890",))
    pieces = [ether(b"\x08\0", ipv4(VPN, half, 132)) for half in (b"..c0ffee12", b"34567890..")]
    between = ether(b"\x08\0", ipv4(SITE, b"another conversation", 132))
    found = Capture(tap("isp", frames=frames_of(pieces[0], between, pieces[1]))).find(fact)
    assert found is not None
    assert [one.frame for one in found.evidence] == [1, 3]


def test_frames_that_a_stream_holds_are_not_joined_again() -> None:
    halves = [packet(VPN, b"c0ffee12"), packet(VPN, b"34567890")]
    streams = (Stream("tcp a -> b", b"c0ffee12", ((0, 1),)), Stream("tcp a -> b", b"34567890", ((0, 2),)))
    capture = Capture(tap("isp", frames=frames_of(*halves), streams=streams))
    assert capture.search.find("c0ffee1234567890") == ()


def test_a_hidden_name_says_which_longer_names_were_not_taken_for_it() -> None:
    longer = Fact(Kind.DNS_NAME, "www.example.com", "2-dns", "www.example.com", ("www.example.com",))
    control = tap("isp", sighting(Kind.DNS_NAME, "example.com"), frames=frames_of(b" example.com "), variant="without")
    beside = tap("isp", sighting(Kind.DNS_NAME, longer.value), frames=frames_of(packet(VPN, b"www.example.com")))
    without = variant("without", [NAME], control, tunnel=None)
    exposures = judge([without, variant("with", [NAME, longer], beside)]).exposures["with"]
    (row,) = [row for row in exposures if row.fact.value == "example.com"]
    assert row.verdict is Verdict.HIDDEN
    assert 'apart from where it is part of "www.example.com"' in row.reason


def test_an_ipv4_address_mapped_into_an_ipv6_one_is_the_address_wherever_it_stands() -> None:
    mapped = bytes(10) + b"\xff\xff" + ip_address(SITE).packed
    for octets, found in ((mapped, True), (mapped[:-1] + b"\1", False), (ip_address(SITE).packed * 2, False)):
        frames = frames_of(packet(VPN, b"connect to " + octets + b", please"))
        seen = Capture(tap("isp", frames=frames)).find(SERVER)
        assert (seen is not None) == found
        if seen is not None:
            assert seen.evidence[0].filter == f"frame contains {mapped.hex(':')}"

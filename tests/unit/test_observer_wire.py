"""Small parsers of the observer's: what they make of edges, and that no octets make them raise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.observer import dns
from testbed.observer.ip import Packet
from testbed.observer.link import KNOWN_LINK_TYPES, arp_offset
from testbed.observer.wire import ech, hosts
from testbed.observer.wire.encapsulation import ENCAPSULATIONS, inner_offset
from testbed.observer.wire.icmp import quoted_packet
from testbed.observer.wire.syn import read_syn

QUOTE = b"\x45" + bytes(range(1, 30))


@pytest.mark.parametrize(
    ("head", "six", "expected"),
    [
        (b"\3\1\0\0\0\0\0\0", False, QUOTE),
        (b"\3\1\0\0\0\5\0\0", False, QUOTE[:20]),  # five words, then extensions: RFC 4884
        (b"\x0b\0\0\0\0\xff\0\0", False, QUOTE),  # longer than there is
        (b"\4\0\0\0\0\5\0\0", False, QUOTE),  # a source quench has no such length
        (b"\3\0\0\0\2\0\0\0", True, QUOTE[:16]),
        (b"\2\0\0\0\0\0\5\0", True, QUOTE),  # packet too big: what stands there is the MTU
        (b"\x08\0\0\0\0\0\0\0", False, b""),
        (b"\x80\0\0\0\0\0\0\0", True, b""),
    ],
)
def test_an_icmp_error_quotes_as_much_as_it_says(head: bytes, six: bool, expected: bytes) -> None:
    assert quoted_packet(head + QUOTE, six) == expected


@pytest.mark.parametrize(
    ("name", "address"),
    [
        (b"34.216.184.93.in-addr.arpa", "93.184.216.34"),
        (b"34.216.184.93.IN-ADDR.ARPA", "93.184.216.34"),
        (
            b".".join([b"4"] + [b"0"] * 23 + [b"8", b"b", b"d", b"0", b"1", b"0", b"0", b"2"]) + b".ip6.arpa",
            "2001:db8::4",
        ),
        (b"216.184.93.in-addr.arpa", ""),
        (b"x.216.184.93.in-addr.arpa", ""),
        (b"300.216.184.93.in-addr.arpa", ""),
        (b"www.example.com", ""),
    ],
)
def test_names_of_the_reverse_tree_stand_for_addresses(name: bytes, address: str) -> None:
    assert dns.reversed_address(dns.DnsName(tuple(name.split(b".")))) == address


@pytest.mark.parametrize(("cut", "named"), [(0, 1), (1, 0), (4, 0), (9, 0)])
def test_a_question_that_is_cut_off_is_not_taken_for_a_whole_one(cut: int, named: int) -> None:
    message = b"\0\1\1\0\0\1\0\0\0\0\0\1\3www\7example\0\0\1\0\1"
    questions = dns.parse_questions(message[: len(message) - cut]).questions
    assert [question.text for question in questions] == ["www.example"] * named


def configurations(*names: bytes) -> bytes:
    """An ECHConfigList, the configurations numbered from 7."""
    listed = b""
    for config_id, name in enumerate(names, 7):
        contents = bytes((config_id,)) + b"\0\x20" + b"\0\x20" + bytes(32) + b"\0\4\0\1\0\1\0"
        contents += bytes((len(name),)) + name + b"\0\0"
        listed += b"\xfe\x0d" + len(contents).to_bytes(2, "big") + contents
    return len(listed).to_bytes(2, "big") + listed


def test_the_public_names_of_ech_configurations_are_read_and_every_prefix_is_borne() -> None:
    listed = configurations(b"cover.example", b"other.example")
    assert ech.parse_configurations(listed) == [(7, b"cover.example"), (8, b"other.example")]
    for cut in range(len(listed)):
        assert len(ech.parse_configurations(listed[:cut])) < 2
    unknown = listed[:2] + b"\xfe\x0c" + listed[4:]
    assert ech.parse_configurations(unknown) == [(8, b"other.example")]


@given(st.binary(max_size=400), st.booleans(), st.integers(0, 255))
def test_no_octets_make_a_parser_raise(octets: bytes, flag: bool, number: int) -> None:
    magic = octets[:236].ljust(236, b"\1") + hosts.DHCP_MAGIC + octets
    for data in (octets, magic):
        hosts.parse_dhcp(data)
        hosts.parse_dhcpv6_name(data)
        hosts.parse_nbns(data)
        hosts.parse_ntp(data)
        hosts.parse_stun(data)
        hosts.looks_like_stun(data)
        quoted_packet(data, flag)
        ech.parse_configurations(data)
        ech.outer_config_id(data)
        dns.parse_questions(data)
        for protocol in ENCAPSULATIONS:
            inner_offset(Packet(b"", b"", protocol, min(number, len(data)), len(data)), data)
        for link_type in KNOWN_LINK_TYPES:
            arp_offset(link_type, data)
    read_syn(octets, number)
    relayed = b"\x0c" + bytes(33) + b"\0\x09\0\xff" + octets
    assert isinstance(hosts.parse_dhcpv6_name(relayed * 3), bytes)

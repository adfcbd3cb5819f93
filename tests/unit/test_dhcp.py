"""DHCP messages: built and parsed alike, read by scapy as meant, and refused where they break off."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP

from testbed.dhcp import (
    ACKNOWLEDGE,
    DISCOVER,
    RESOLVERS,
    ROUTES,
    DhcpMalformed,
    DhcpMessage,
    build_routes,
    parse_addresses,
    parse_routes,
)

MAC = bytes.fromhex("020000000101")
ROUTER = IPv4Address("192.168.0.1")
# RFC 3442 gives these prefixes with their encoding as examples.
FROM_THE_RFC = {
    "0.0.0.0/0": "00",
    "10.0.0.0/8": "080a",
    "10.0.0.0/24": "180a0000",
    "10.17.0.0/16": "100a11",
    "10.27.129.0/24": "180a1b81",
    "10.229.0.128/25": "190ae50080",
    "10.198.122.47/32": "200ac67a2f",
}
networks = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)).map(lambda x: IPv4Network(x, strict=False))
routes = st.lists(st.tuples(networks, st.ip_addresses(v=4)), max_size=20)


@pytest.mark.parametrize(("prefix", "octets"), FROM_THE_RFC.items())
def test_a_prefix_takes_the_octets_that_the_rfc_gives_it(prefix: str, octets: str) -> None:
    assert build_routes([(IPv4Network(prefix), ROUTER)]).hex() == octets + "c0a80001"


@given(routes)
def test_routes_come_back_as_they_were(some: list[tuple[IPv4Network, IPv4Address]]) -> None:
    assert parse_routes(build_routes(some)) == some


@given(
    st.sampled_from([DISCOVER, ACKNOWLEDGE]),
    st.integers(0, 2**32 - 1),
    st.dictionaries(st.integers(1, 254).filter(lambda code: code != 53), st.binary(max_size=255), max_size=6),
)
def test_a_message_comes_back_as_it_was(kind: int, number: int, options: dict[int, bytes]) -> None:
    message = DhcpMessage(kind, number, MAC, IPv4Address("192.168.0.13"), options)
    assert DhcpMessage.parse(message.build()) == message


def test_scapy_reads_an_acknowledgement_as_it_was_meant() -> None:
    options = {RESOLVERS: ROUTER.packed, ROUTES: build_routes([(IPv4Network("93.184.216.0/24"), ROUTER)])}
    read = BOOTP(DhcpMessage(ACKNOWLEDGE, 7, MAC, IPv4Address("192.168.0.13"), options).build())
    assert (read.op, read.xid, read.yiaddr, read.chaddr[:6]) == (2, 7, "192.168.0.13", MAC)
    told: dict[str, object] = dict(option for option in read[DHCP].options if isinstance(option, tuple))
    assert told["message-type"] == 5
    assert told["name_server"] == "192.168.0.1"
    assert told["classless_static_routes"] == ["93.184.216.0/24:192.168.0.1"]


@given(st.binary(max_size=600))
def test_no_octets_at_all_raise_anything_else(untrusted: bytes) -> None:
    for parse in (DhcpMessage.parse, parse_routes, parse_addresses):
        try:
            parse(untrusted)
        except DhcpMalformed:
            continue


def test_what_breaks_off_is_refused_at_every_length() -> None:
    whole = DhcpMessage(ACKNOWLEDGE, 7, MAC, options={ROUTES: bytes(20)}).build()
    between_options = len(whole) - 23
    for length in set(range(len(whole) - 1)) - {between_options}:  # the end mark may be missing
        with pytest.raises(DhcpMalformed):
            DhcpMessage.parse(whole[:length])
    for wrong in ("18", "180a0000c0a800", "210a0000000000000000"):
        with pytest.raises(DhcpMalformed):
            parse_routes(bytes.fromhex(wrong))


def test_routes_that_no_option_has_room_for_are_refused() -> None:
    many = build_routes([(IPv4Network((number << 8, 32)), ROUTER) for number in range(29)])
    with pytest.raises(ValueError, match="room for 255 octets"):
        DhcpMessage(ACKNOWLEDGE, 7, MAC, options={ROUTES: many}).build()

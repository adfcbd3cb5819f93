"""From a frame to the IP packet in it: Ethernet with VLAN tags and PPPoE, raw IP, Linux cooked, loopback, PPP.

`network_offset` returns where the IP header starts, or -1 where the frame carries none (ARP, LLDP, nonsense).

Source: https://www.tcpdump.org/linktypes.html
"""

from __future__ import annotations

from testbed.capture import pcapng

ETHERTYPE_IPV4 = b"\x08\x00"
ETHERTYPE_IPV6 = b"\x86\xdd"
ETHERTYPE_ARP = b"\x08\x06"
IP_ETHERTYPES = frozenset((ETHERTYPE_IPV4, ETHERTYPE_IPV6))
VLAN_ETHERTYPES = frozenset((b"\x81\x00", b"\x88\xa8", b"\x91\x00"))
PPPOE_SESSION, PPPOE_HEADER_OCTETS = b"\x88\x64", 6
MOST_TAGS = 4
# Values of the address family in a BSD loopback header: IPv4 is 2 everywhere, IPv6 differs from system to system.
LOOPBACK_FAMILIES = frozenset((2, 10, 24, 28, 30))
PPP_IP = frozenset((b"\x00\x21", b"\x00\x57"))
PPP_HDLC, PPP_WITH_DIRECTION = 50, 204

KNOWN_LINK_TYPES = frozenset(
    (
        pcapng.LINKTYPE_ETHERNET,
        pcapng.LINKTYPE_RAW,
        12,  # raw IP as some BSDs number it in files
        14,
        pcapng.LINKTYPE_IPV4,
        pcapng.LINKTYPE_IPV6,
        pcapng.LINKTYPE_NULL,
        pcapng.LINKTYPE_LOOP,
        pcapng.LINKTYPE_PPP,
        PPP_HDLC,
        PPP_WITH_DIRECTION,
        pcapng.LINKTYPE_LINUX_SLL,
        pcapng.LINKTYPE_LINUX_SLL2,
    )
)
RAW_LINK_TYPES = frozenset((pcapng.LINKTYPE_RAW, 12, 14, pcapng.LINKTYPE_IPV4, pcapng.LINKTYPE_IPV6))


def network_offset(link_type: int, data: bytes) -> int:
    if link_type == pcapng.LINKTYPE_ETHERNET:
        return after_ethertype(data, 12)
    if link_type in RAW_LINK_TYPES:
        return 0
    if link_type == pcapng.LINKTYPE_LINUX_SLL:
        return after_ethertype(data, 14)
    if link_type == pcapng.LINKTYPE_LINUX_SLL2:
        if data[:2] in VLAN_ETHERTYPES:  # the rest of the tag is where the packet would be
            return after_ethertype(data, 22)
        return 20 if data[:2] in IP_ETHERTYPES else -1
    if link_type in (pcapng.LINKTYPE_NULL, pcapng.LINKTYPE_LOOP):
        family = data[:4]
        either = (int.from_bytes(family, "little"), int.from_bytes(family, "big"))
        return 4 if len(data) > 4 and LOOPBACK_FAMILIES.intersection(either) else -1
    if link_type in (pcapng.LINKTYPE_PPP, PPP_HDLC):
        return _behind_ppp(data, 0)
    return _behind_ppp(data, 1) if link_type == PPP_WITH_DIRECTION else -1


def _behind_ppp(data: bytes, at: int) -> int:
    at += 2 if data[at : at + 2] == b"\xff\x03" else 0  # address and control octets, unless they were compressed away
    return at + 2 if data[at : at + 2] in PPP_IP else -1


def after_ethertype(data: bytes, at: int) -> int:
    """Where the IP header begins behind the Ethertype at `at` and its VLAN tags, or -1."""
    for _ in range(MOST_TAGS + 1):
        ethertype = data[at : at + 2]
        if ethertype in IP_ETHERTYPES:
            return at + 2
        if ethertype == PPPOE_SESSION:
            return _behind_ppp(data, at + 2 + PPPOE_HEADER_OCTETS)
        if ethertype not in VLAN_ETHERTYPES:
            return -1
        at += 4
    return -1


def arp_offset(link_type: int, data: bytes) -> int:
    """Where an ARP message starts, or -1: over Ethernet with its VLAN tags, and in Linux cooked captures."""
    at = {pcapng.LINKTYPE_ETHERNET: 12, pcapng.LINKTYPE_LINUX_SLL: 14, pcapng.LINKTYPE_LINUX_SLL2: 0}.get(link_type, -1)
    if at < 0:
        return -1
    for _ in range(MOST_TAGS):
        if data[at : at + 2] not in VLAN_ETHERTYPES:
            break
        at += 4
    if data[at : at + 2] != ETHERTYPE_ARP:
        return -1
    return 20 if link_type == pcapng.LINKTYPE_LINUX_SLL2 else at + 2

"""From a frame to the IP packet in it: Ethernet with VLAN tags, 802.2 SNAP, PPPoE and MPLS, raw IP, Linux cooked,
loopback, PPP, PPPoE.

`network_offset` returns where the IP header starts, or -1 where the frame carries none (ARP, LLDP, nonsense);
`unread_ethertype` says then what it carries instead, where that may be somebody's traffic.

Source: https://www.tcpdump.org/linktypes.html, RFC 1042, RFC 3032, RFC 1661 section 6.5
"""

from __future__ import annotations

from testbed.capture import pcapng

ETHERTYPE_IPV4 = b"\x08\x00"
ETHERTYPE_IPV6 = b"\x86\xdd"
ETHERTYPE_ARP = b"\x08\x06"
IP_ETHERTYPES = frozenset((ETHERTYPE_IPV4, ETHERTYPE_IPV6))
VLAN_ETHERTYPES = frozenset((b"\x81\x00", b"\x88\xa8", b"\x91\x00"))
PPPOE_SESSION, PPPOE_HEADER_OCTETS = b"\x88\x64", 6
MPLS_ETHERTYPES, MPLS_BOTTOM = frozenset((b"\x88\x47", b"\x88\x48")), 1
SNAP = b"\xaa\xaa\x03\x00\x00\x00"
LARGEST_LENGTH = 1500  # a smaller number than an Ethertype is the length of an 802.2 frame
# What a link says to itself, nobody's traffic: ARP, RARP, slow protocols, PPPoE discovery, 802.1X, LLDP, loop tests.
OF_THE_LINK = frozenset((ETHERTYPE_ARP, b"\x80\x35", b"\x88\x09", b"\x88\x63", b"\x88\x8e", b"\x88\xcc", b"\x90\x00"))
MOST_TAGS, MOST_LABELS = 4, 16
# Values of the address family in a BSD loopback header: IPv4 is 2 everywhere, IPv6 differs from system to system.
LOOPBACK_FAMILIES = frozenset((2, 10, 24, 28, 30))
PPP_IP = frozenset((b"\x00\x21", b"\x00\x57"))
PPP_IP_SHORT = frozenset((b"\x21", b"\x57"))  # the protocol field without its first octet, which is 0
PPP_HDLC, PPPOE, PPP_WITH_DIRECTION = 50, 51, 204
ETHERTYPE_AT = {pcapng.LINKTYPE_ETHERNET: 12, pcapng.LINKTYPE_LINUX_SLL: 14, pcapng.LINKTYPE_LINUX_SLL2: 0}

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
        PPPOE,
        PPP_WITH_DIRECTION,
        pcapng.LINKTYPE_LINUX_SLL,
        pcapng.LINKTYPE_LINUX_SLL2,
    )
)
RAW_LINK_TYPES = frozenset((pcapng.LINKTYPE_RAW, 12, 14, pcapng.LINKTYPE_IPV4, pcapng.LINKTYPE_IPV6))


def network_offset(link_type: int, data: bytes) -> int:
    if link_type == pcapng.LINKTYPE_ETHERNET:
        return 14 if data[12:14] in IP_ETHERTYPES else after_ethertype(data, 12)
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
        return behind_ppp(data, 0)
    if link_type == PPPOE:
        return behind_ppp(data, PPPOE_HEADER_OCTETS)
    return behind_ppp(data, 1) if link_type == PPP_WITH_DIRECTION else -1


def behind_ppp(data: bytes, at: int) -> int:
    """Where the IP header begins behind the PPP header at `at`, or -1."""
    at += 2 if data[at : at + 2] == b"\xff\x03" else 0  # address and control octets, unless they were compressed away
    if data[at : at + 2] in PPP_IP:
        return at + 2
    return at + 1 if data[at : at + 1] in PPP_IP_SHORT else -1


def after_ethertype(data: bytes, at: int) -> int:
    """Where the IP header begins behind the Ethertype at `at` and its VLAN tags, or -1."""
    for _ in range(MOST_TAGS + 1):
        ethertype = data[at : at + 2]
        if ethertype in IP_ETHERTYPES:
            return at + 2
        if ethertype == PPPOE_SESSION:
            return behind_ppp(data, at + 2 + PPPOE_HEADER_OCTETS)
        if ethertype in MPLS_ETHERTYPES:
            return behind_labels(data, at + 2)
        if data[at + 2 : at + 8] == SNAP and int.from_bytes(ethertype, "big") <= LARGEST_LENGTH:
            at += 8
        elif ethertype in VLAN_ETHERTYPES:
            at += 4
        else:
            return -1
    return -1


def behind_labels(data: bytes, at: int) -> int:
    """Where the IP header begins behind MPLS's labels; nothing says what does, but that an IP header looks like one."""
    for _ in range(MOST_LABELS):
        if at + 4 >= len(data):
            return -1
        at += 4
        if data[at - 2] & MPLS_BOTTOM:
            return at if data[at] >> 4 in (4, 6) else -1
    return -1


def unread_ethertype(link_type: int, data: bytes) -> str:
    """The kind of a frame that carries no IP packet; empty if it has none, or one that is the link's own."""
    at = ETHERTYPE_AT.get(link_type, -1)
    for _ in range(MOST_TAGS if at >= 0 else 0):
        ethertype = data[at : at + 2]
        if data[at + 2 : at + 8] == SNAP and int.from_bytes(ethertype, "big") <= LARGEST_LENGTH:
            at += 8
        elif ethertype in VLAN_ETHERTYPES:
            at += 20 if link_type == pcapng.LINKTYPE_LINUX_SLL2 and at == 0 else 4
        else:
            break
    ethertype = data[at : at + 2] if at >= 0 else b""
    known = ethertype in OF_THE_LINK or ethertype in IP_ETHERTYPES or ethertype == PPPOE_SESSION
    if len(ethertype) < 2 or known or int.from_bytes(ethertype, "big") <= LARGEST_LENGTH:
        return ""
    return f"0x{ethertype.hex()}"


def arp_offset(link_type: int, data: bytes) -> int:
    """Where an ARP message starts, or -1: over Ethernet with its VLAN tags, and in Linux cooked captures."""
    at = ETHERTYPE_AT.get(link_type, -1)
    if at < 0:
        return -1
    for _ in range(MOST_TAGS):
        if data[at : at + 2] not in VLAN_ETHERTYPES:
            break
        at += 4
    if data[at : at + 2] != ETHERTYPE_ARP:
        return -1
    return 20 if link_type == pcapng.LINKTYPE_LINUX_SLL2 else at + 2

"""Messages in which hosts name themselves or learn who they are: DHCP and DHCPv6.

Source: RFC 2131, RFC 2132, RFC 8415
"""

from __future__ import annotations

from ipaddress import IPv4Address

from testbed.dissection.opening import Opening, Reader, Short, text_of
from testbed.observer.wire.hosts import DHCP_MAGIC, DHCP_OPTIONS_AT, parse_dhcp, parse_dhcpv6_name

DHCP_PORTS, DHCPV6_PORTS = frozenset((67, 68)), frozenset((546, 547))
_MESSAGES = {
    1: "Discover",
    2: "Offer",
    3: "Request",
    4: "Decline",
    5: "ACK",
    6: "NAK",
    7: "Release",
    8: "Inform",
}
_MESSAGES_V6 = {
    1: "Solicit",
    2: "Advertise",
    3: "Request",
    4: "Confirm",
    5: "Renew",
    6: "Rebind",
    7: "Reply",
    8: "Release",
    9: "Decline",
    10: "Reconfigure",
    11: "Information-request",
    12: "Relay-forw",
    13: "Relay-reply",
}
_MESSAGE_TYPE, _PAD, _END = 53, 0, 255


def open_dhcp(opening: Opening, start: int, end: int) -> bool:
    """Whether it is a DHCP message; if so it is a layer of the frame."""
    octets = opening.data[start:end]
    lease = parse_dhcp(octets)
    if lease is None or octets[DHCP_OPTIONS_AT - 4 : DHCP_OPTIONS_AT] != DHCP_MAGIC:
        return False
    name = _MESSAGES.get(_message_type(octets), "message")
    transaction = f"0x{octets[4:8].hex()}"
    fields: list[tuple[str, object]] = [("message", name), ("transaction", transaction), ("hardware", lease.hardware)]
    for label, at in (("client's address", 12), ("address given", 16)):
        if any(octets[at : at + 4]):
            fields.append((label, IPv4Address(octets[at : at + 4])))
    told = (("host name", lease.host_name), ("full name", lease.full_name), ("vendor", lease.vendor))
    fields += [(label, text_of(value)) for label, value in told if value]
    fields += [("address asked for", lease.requested)] if lease.requested else []
    opening.say("DHCP", f"DHCP {name} - Transaction ID {transaction}")
    opening.add("Dynamic Host Configuration Protocol", start, end, *fields)
    return True


def _message_type(octets: bytes) -> int:
    reader = Reader(octets, DHCP_OPTIONS_AT, len(octets))
    try:
        while (kind := reader.number(1)) != _END:
            if kind == _PAD:
                continue
            value = reader.take(reader.number(1))
            if kind == _MESSAGE_TYPE and value:
                return value[0]
    except Short:
        pass
    return 0


def open_dhcpv6(opening: Opening, start: int, end: int) -> bool:
    """Whether it is a DHCPv6 message; if so it is a layer of the frame."""
    octets = opening.data[start:end]
    if len(octets) < 4 or octets[0] not in _MESSAGES_V6:
        return False
    name = _MESSAGES_V6[octets[0]]
    fields: list[tuple[str, object]] = [("message", name), ("transaction", f"0x{octets[1:4].hex()}")]
    full_name = parse_dhcpv6_name(octets)
    fields += [("full name", text_of(full_name))] if full_name else []
    opening.say("DHCPv6", f"{name} XID: 0x{octets[1:4].hex()}")
    opening.add("DHCPv6", start, end, *fields)
    return True

"""Messages in which hosts name themselves, or learn who they are and what time it is: DHCP, DHCPv6, NTP, STUN.

Source: RFC 2131, RFC 2132, RFC 8415, RFC 5905, RFC 8489
"""

from __future__ import annotations

from ipaddress import IPv4Address

from testbed.dissection.opening import Opening, Reader, Short, text_of
from testbed.observer.wire.hosts import (
    DHCP_MAGIC,
    DHCP_OPTIONS_AT,
    NTP_MODES,
    NTP_OCTETS,
    looks_like_stun,
    parse_dhcp,
    parse_dhcpv6_name,
    parse_stun,
)

DHCP_PORTS, DHCPV6_PORTS, NTP_PORT = frozenset((67, 68)), frozenset((546, 547)), 123
_STUN_METHODS = {1: "Binding", 3: "Allocate", 4: "Refresh", 6: "Send", 7: "Data", 8: "CreatePermission"}
_STUN_CLASSES = {0x000: "Request", 0x010: "Indication", 0x100: "Success Response", 0x110: "Error Response"}
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


def open_ntp(opening: Opening, start: int, end: int) -> bool:
    """Whether it is a message of NTP; if so it is a layer of the frame."""
    octets = opening.data[start:end]
    mode = NTP_MODES.get(octets[0] & 7) if octets else None
    version = octets[0] >> 3 & 7 if octets else 0
    if mode is None or len(octets) < NTP_OCTETS or not 1 <= version <= 4:
        return False
    opening.say("NTP", f"NTP Version {version}, {mode}")
    opening.add("Network Time Protocol", start, end, ("version", version), ("mode", mode), ("stratum", octets[1]))
    return True


def open_stun(opening: Opening, start: int, end: int) -> bool:
    """Whether it is a message of STUN; if so it is a layer of the frame, with the address that it tells of."""
    octets = opening.data[start:end]
    if not looks_like_stun(octets):
        return False
    kind = int.from_bytes(octets[:2], "big")
    method = (kind & 0xF) | (kind & 0xE0) >> 1 | (kind & 0x3E00) >> 2
    name = f"{_STUN_METHODS.get(method, f'method {method}')} {_STUN_CLASSES[kind & 0x110]}"
    message = parse_stun(octets)
    fields: list[tuple[str, object]] = [("message", name)]
    if message.address:
        fields.append(("your address as I see it", f"{message.address} port {message.port}"))
    fields += [("software", text_of(message.software))] if message.software else []
    opening.say("STUN", name)
    opening.add("Session Traversal Utilities for NAT", start, end, *fields)
    return True

"""Small messages in which hosts name themselves or say where they are: DHCP, DHCPv6, NetBIOS, NTP, STUN. Parsers only.

    DHCP     236 octets, magic 63825363, options: kind | length | value; 12 host name, 60 vendor class, 81 FQDN,
             50 the address asked for, 61 client id, 52 the fields before the magic hold options as well
    DHCPv6   type | transaction (3) | options: kind (2) | length (2) | value; 39 client FQDN; relays nest
    NBNS     a DNS header, names of 32 letters that code 16 octets
    NTP      flags | stratum | poll | precision | … | reference id at 12
    STUN     type | length | magic 2112a442 | transaction (12) | attributes: kind (2) | length (2) | value

Source: RFC 2131, RFC 2132, RFC 4702, RFC 8415, RFC 4704, RFC 1002, RFC 5905, RFC 8489
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from itertools import chain

from testbed.observer.dns import DnsName, Malformed, parse_name

DHCP_MAGIC, DHCP_OPTIONS_AT = b"\x63\x82\x53\x63", 240
DHCP_PAD, DHCP_END, DHCP_HOST_NAME, DHCP_REQUESTED, DHCP_VENDOR, DHCP_CLIENT_ID, DHCP_FQDN = 0, 255, 12, 50, 60, 61, 81
DHCP_OVERLOAD, DHCP_FIELDS = 52, ((1, 108, 236), (2, 44, 108))  # where options may go on: `file`, then `sname`
FQDN_ENCODED = 4
DHCPV6_RELAYS, DHCPV6_RELAY_OCTETS, DHCPV6_CLIENT_FQDN, DHCPV6_RELAYED = (12, 13), 34, 39, 9
MOST_OPTIONS, MOST_RELAYS = 256, 8
NBNS_NAME_OCTETS = 32
STUN_MAGIC = b"\x21\x12\xa4\x42"
STUN_MAPPED, STUN_SOFTWARE, STUN_XOR_MAPPED = 1, 0x8022, 0x0020
STUN_HEADER_OCTETS = 20
NTP_OCTETS = 48
NTP_MODES = {1: "symmetric active", 2: "symmetric passive", 3: "client", 4: "server", 5: "broadcast"}


@dataclass(frozen=True, slots=True)
class Lease:
    """What a DHCP message tells of a client. Shape: empty where it does not say."""

    hardware: str
    host_name: bytes = b""
    full_name: bytes = b""
    vendor: bytes = b""
    client_id: bytes = b""
    requested: str = ""


def parse_dhcp(data: bytes) -> Lease | None:
    if len(data) < DHCP_OPTIONS_AT or data[236:240] != DHCP_MAGIC or data[0] not in (1, 2):
        return None
    options: dict[int, bytes] = {}
    block = data[DHCP_OPTIONS_AT:]
    overloaded = dict(_dhcp_options(block)).get(DHCP_OVERLOAD, b"\0")[:1]
    further = [data[start:end] for bit, start, end in DHCP_FIELDS if overloaded[0] & bit] if overloaded else []
    for kind, value in chain.from_iterable(map(_dhcp_options, (block, *further))):
        options[kind] = options.get(kind, b"") + value  # one that is too long comes in parts
    requested = options.get(DHCP_REQUESTED, b"")
    return Lease(
        data[28 : 28 + min(data[2], 16)].hex(":"),
        options.get(DHCP_HOST_NAME, b"").rstrip(b"\0"),
        _full_name(options.get(DHCP_FQDN, b"")),
        options.get(DHCP_VENDOR, b""),
        options.get(DHCP_CLIENT_ID, b""),
        str(IPv4Address(requested)) if len(requested) == 4 else "",
    )


def _dhcp_options(block: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    for _ in range(MOST_OPTIONS):
        while block[at : at + 1] == b"\0":
            at += 1
        if at + 2 > len(block) or block[at] == DHCP_END or at + 2 + block[at + 1] > len(block):
            return
        yield block[at], block[at + 2 : at + 2 + block[at + 1]]
        at += 2 + block[at + 1]


def _full_name(option: bytes) -> bytes:
    """Flags and two outdated octets precede the name, which is ASCII or in DNS's form."""
    if len(option) < 4:
        return b""
    return _dns_form(option[3:]) if option[0] & FQDN_ENCODED else option[3:].rstrip(b"\0")


def _dns_form(octets: bytes) -> bytes:
    """A name of labels; a part of one lacks the end."""
    try:
        name, _ = parse_name(octets if octets.endswith(b"\0") else octets + b"\0", 0)
    except Malformed:
        return b""
    return b".".join(name.labels)


def parse_dhcpv6_name(data: bytes, relays: int = MOST_RELAYS) -> bytes:
    """The client's name in a DHCPv6 message, inside its relays' envelopes; empty if it has none."""
    relayed = data[:1] in (b"\x0c", b"\x0d")
    at = DHCPV6_RELAY_OCTETS if relayed else 4
    for _ in range(MOST_OPTIONS):
        if at + 4 > len(data):
            break
        kind, end = int.from_bytes(data[at : at + 2], "big"), at + 4 + int.from_bytes(data[at + 2 : at + 4], "big")
        if kind == DHCPV6_CLIENT_FQDN:
            return _dns_form(data[at + 5 : end])
        if kind == DHCPV6_RELAYED and relayed and relays:
            return parse_dhcpv6_name(data[at + 4 : end], relays - 1)
        at = end
    return b""


@dataclass(frozen=True, slots=True)
class NetbiosName:
    """Shape: `name` without its filling, `service` the last octet (0 workstation, 0x20 file server, 0x1b domain, …)."""

    name: bytes
    service: int


def parse_nbns(data: bytes) -> list[NetbiosName]:
    """The names asked for, registered or answered in a message of the NetBIOS name service."""
    if len(data) < 12:
        return []
    found: list[NetbiosName] = []
    at, questions = 12, int.from_bytes(data[4:6], "big")
    records = sum(int.from_bytes(data[i : i + 2], "big") for i in (6, 8, 10))
    try:
        for number in range(min(questions + records, 32)):
            name, at = parse_name(data, at)
            decoded = _netbios(name)
            if decoded is not None and decoded not in found:
                found.append(decoded)
            at += 4 if number < questions else 10 + int.from_bytes(data[at + 8 : at + 10], "big")
    except Malformed:
        pass
    return found


def _netbios(name: DnsName) -> NetbiosName | None:
    letters = name.labels[0] if name.labels else b""
    if len(letters) != NBNS_NAME_OCTETS or any(not 0x41 <= letter <= 0x50 for letter in letters):
        return None
    octets = bytes((letters[i] - 0x41) << 4 | letters[i + 1] - 0x41 for i in range(0, NBNS_NAME_OCTETS, 2))
    return NetbiosName(octets[:15].rstrip(b" \0"), octets[15])


def parse_ntp(data: bytes) -> str:
    """Who speaks and whose clock it follows, in words; empty if it is no NTP."""
    version, mode = data[0] >> 3 & 7 if data else 0, NTP_MODES.get(data[0] & 7 if data else 0, "")
    if len(data) < NTP_OCTETS or not 1 <= version <= 4 or not mode:
        return ""
    words, stratum, reference = f"{mode}, version {version}", data[1], data[12:16]
    if mode != NTP_MODES[4]:
        return words
    source = reference.rstrip(b"\0").decode("ascii", "backslashreplace") if stratum < 2 else str(IPv4Address(reference))
    return f"{words}, stratum {stratum}, reference {source}"


@dataclass(frozen=True, slots=True)
class StunMessage:
    """Shape: `mapped` is the address and port that the server saw, with the octets of its attribute; or empty."""

    type: int
    address: str = ""
    port: int = 0
    software: bytes = b""


def looks_like_stun(data: bytes) -> bool:
    return (
        data[4:8] == STUN_MAGIC and data[0] < 4 and int.from_bytes(data[2:4], "big") == len(data) - STUN_HEADER_OCTETS
    )


def parse_stun(data: bytes) -> StunMessage:
    address, port, software = "", 0, b""
    at = STUN_HEADER_OCTETS
    for _ in range(MOST_OPTIONS):
        if at + 4 > len(data):
            break
        kind, length = int.from_bytes(data[at : at + 2], "big"), int.from_bytes(data[at + 2 : at + 4], "big")
        value = data[at + 4 : at + 4 + length]
        if kind in (STUN_MAPPED, STUN_XOR_MAPPED):
            address, port = _mapped(value, data[4:20] if kind == STUN_XOR_MAPPED else bytes(16)) or (address, port)
        elif kind == STUN_SOFTWARE:
            software = value
        at += 4 + (length + 3 & ~3)
    return StunMessage(int.from_bytes(data[:2], "big"), address, port, software)


def _mapped(value: bytes, key: bytes) -> tuple[str, int] | None:
    """Family, port and address, the latter two by exclusive or with the magic and the transaction."""
    octets = bytes(a ^ b for a, b in zip(value[4:], key, strict=False))
    port = int.from_bytes(value[2:4], "big") ^ int.from_bytes(key[:2], "big")
    if value[1:2] == b"\1" and len(octets) == 4:
        return str(IPv4Address(octets)), port
    if value[1:2] == b"\2" and len(octets) == 16:
        return str(IPv6Address(octets)), port
    return None

"""What hosts tell in passing: DHCP and NetBIOS names, clocks (NTP), addresses seen outside (STUN)."""

from __future__ import annotations

from collections.abc import Callable

from testbed.observer import filters
from testbed.observer.findings import Findings, Place, as_text
from testbed.observer.flows import FlowState
from testbed.observer.wire.hosts import (
    looks_like_stun,
    parse_dhcp,
    parse_dhcpv6_name,
    parse_nbns,
    parse_ntp,
    parse_stun,
)

__all__ = ["DATAGRAM_PORTS", "dissect_stun", "looks_like_stun"]

DatagramDissector = Callable[[FlowState, bytes, Place, Findings], bool]


def dissect_dhcp(flow: FlowState, data: bytes, place: Place, findings: Findings) -> bool:
    lease = parse_dhcp(data)
    if lease is None:
        return False
    flow.application = "dhcp"
    hardware = f"dhcp.hw.mac_addr == {lease.hardware}"
    if lease.host_name:
        _name(lease.host_name, "dhcp", filters.equals("dhcp.option.hostname", lease.host_name), place, findings)
    if lease.full_name:
        display_filter = f"dhcp.option.type == 81 && dhcp contains {filters.octets(lease.full_name.split(b'.')[0])}"
        _name(lease.full_name, "dhcp", display_filter, place, findings)
    if lease.vendor:
        display_filter = f"{hardware} && {filters.equals('dhcp.option.vendor_class_id', lease.vendor)}"
        findings.hint("dhcp-vendor", as_text(lease.vendor), lease.hardware, place, display_filter)
    if lease.client_id:
        display_filter = f"{hardware} && dhcp.option.type == 61"
        findings.hint("dhcp-client-id", lease.client_id.hex(), lease.hardware, place, display_filter)
    if lease.requested:
        display_filter = f"{hardware} && dhcp.option.requested_ip_address == {lease.requested}"
        findings.hint("dhcp-requested-address", lease.requested, lease.hardware, place, display_filter)
    return True


def dissect_dhcpv6(flow: FlowState, data: bytes, place: Place, findings: Findings) -> bool:
    if not 1 <= data[0] <= 13:
        return False
    flow.application = "dhcpv6"
    name = parse_dhcpv6_name(data)
    if name:
        _name(name, "dhcpv6", f"dhcpv6 contains {filters.octets(name.split(b'.')[0])}", place, findings)
    return True


def dissect_nbns(flow: FlowState, data: bytes, place: Place, findings: Findings) -> bool:
    found = parse_nbns(data)
    for name in found:
        if name.name and name.name != b"*":
            letters = "".join(
                chr(0x41 + half) for octet in _padded(name.name, name.service) for half in divmod(octet, 16)
            )
            _name(name.name, "nbns", f"nbns contains {filters.quote(letters)}", place, findings)
    if found:
        flow.application = "nbns"
    return bool(found)


def _padded(name: bytes, service: int) -> bytes:
    return name.ljust(15)[:15] + bytes((service,))


def dissect_ntp(flow: FlowState, data: bytes, place: Place, findings: Findings) -> bool:
    words = parse_ntp(data)
    if not words:
        return False
    flow.application = "ntp"
    ends = filters.between("udp", flow.client.endpoint, flow.server.endpoint)
    display_filter = f"ntp.flags.mode == {data[0] & 7} && ntp.stratum == {data[1]} && {ends}"
    display_filter += f" && ntp.refid == {data[12:16].hex(':')}"
    findings.hint("ntp", words, str(flow.server.endpoint), place, display_filter)
    return True


def dissect_stun(flow: FlowState, data: bytes, place: Place, findings: Findings) -> bool:
    """The address and port under which a server sees the client: behind NAT, the one the client has outside."""
    message = parse_stun(data)
    flow.application = "stun"
    if message.address:
        field = "stun.att.ipv6" if ":" in message.address else "stun.att.ipv4"
        display_filter = f"{field} == {message.address} && stun.att.port == {message.port}"
        seen = f"[{message.address}]:{message.port}" if ":" in message.address else f"{message.address}:{message.port}"
        findings.hint("stun-mapped-address", seen, str(flow.client.endpoint), place, display_filter)
    if message.software:
        display_filter = filters.equals("stun.att.software", message.software)
        findings.hint("stun-software", as_text(message.software), str(flow.client.endpoint), place, display_filter)
    return True


def _name(name: bytes, via: str, display_filter: str, place: Place, findings: Findings) -> None:
    findings.name(as_text(name).lower(), via, place.frame, display_filter)


DATAGRAM_PORTS: dict[int, DatagramDissector] = {
    67: dissect_dhcp,
    68: dissect_dhcp,
    123: dissect_ntp,
    137: dissect_nbns,
    546: dissect_dhcpv6,
    547: dissect_dhcpv6,
}

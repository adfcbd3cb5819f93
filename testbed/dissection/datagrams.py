"""Datagrams: which protocol a conversation over UDP carries, told by its ports or by the form of its first messages.

A conversation that a hard reset of OpenVPN, an Initial packet of QUIC, a handshake of WireGuard or of DTLS opened stays
theirs, since later packets have too little form to be told by themselves.
"""

from __future__ import annotations

from testbed.dissection import dtls, openvpn, quic, tunnels
from testbed.dissection.conversations import Conversation, Endpoint
from testbed.dissection.dns import open_dns
from testbed.dissection.hosts import (
    DHCP_PORTS,
    DHCPV6_PORTS,
    NTP_PORT,
    open_dhcp,
    open_dhcpv6,
    open_ntp,
    open_stun,
)
from testbed.dissection.opening import Opening, add_data
from testbed.observer.sights.names import DNS_PORTS

_IPSEC_PORTS = frozenset((tunnels.IKE_PORT, tunnels.NAT_TRAVERSAL_PORT))


def open_datagram(
    opening: Opening, conversation: Conversation, ends: tuple[Endpoint, Endpoint], start: int, end: int
) -> None:
    """What a UDP header carries. Shape: `ends` are source and destination. Errors: Short"""
    datagram = opening.data[start:end]
    ports = {ends[0][1], ends[1][1]}
    if _by_port(opening, ports, start, end):
        return
    fresh = openvpn.recognise(datagram)
    if fresh is not None:
        conversation.application, conversation.openvpn, conversation.first_speaker = "openvpn", fresh, ends[0]
    elif quic.begins(datagram) and conversation.application != "quic":
        conversation.application, conversation.quic, conversation.first_speaker = "quic", quic.QuicState(), ends[0]
    elif not conversation.application and tunnels.opens_wireguard(datagram):
        conversation.application = "wireguard"
    elif not conversation.application and dtls.begins(datagram):
        conversation.application = "dtls"
    direction = ends[0] == conversation.first_speaker
    if conversation.openvpn is not None and conversation.application == "openvpn":
        openvpn.open_packet(opening, start, end, conversation.openvpn, direction)
    elif conversation.application == "quic":
        quic.open_datagram(opening, start, end, conversation.quic, direction)
    elif conversation.application == "wireguard" and tunnels.is_wireguard(datagram):
        tunnels.open_wireguard(opening, start, end)
    elif conversation.application != "dtls" or not dtls.open_datagram(opening, start, end):
        add_data(opening, start, end)


def _by_port(opening: Opening, ports: set[int], start: int, end: int) -> bool:
    """Whether a protocol that is bound to a port understood the datagram, and opened it."""
    name = next((DNS_PORTS[port] for port in ports if port in DNS_PORTS), "")
    if name and open_dns(opening, opening.data[start:end], start, end, name.upper()):
        return True
    if ports <= DHCP_PORTS and open_dhcp(opening, start, end):
        return True
    if ports <= DHCPV6_PORTS and open_dhcpv6(opening, start, end):
        return True
    if (NTP_PORT in ports and open_ntp(opening, start, end)) or open_stun(opening, start, end):
        return True
    port = next(iter(ports & _IPSEC_PORTS), 0)
    return bool(port) and tunnels.open_ipsec_datagram(opening, start, end, port)

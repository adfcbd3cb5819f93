"""`multihome`: a server with several addresses answers from the one it was asked at.

The kernel tells with each datagram at which address it came in (a control message beside it); that address becomes the
last part of the core's `Address`, which the core keeps as it is and gives back with each answer. The interface is left
to the routing table, so that answers may take another way than the question did; only the source is fixed.

    in_pktinfo    interface i32 | local address 4 | destination 4        IPv4 sockets
    in6_pktinfo   local address 16 | interface u32                       IPv6 sockets, mapped IPv4 addresses included

Source: ip(7) on IP_PKTINFO, ipv6(7) and RFC 3542 section 6 on IPV6_PKTINFO
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv6Address

from vpn.settings import Address

_IP_PKTINFO = 8
_IPV6_RECVPKTINFO, _IPV6_PKTINFO = 49, 50
_INFO4 = struct.Struct("=i4s4s")
_INFO6 = struct.Struct("=16sI")
_CONTROL_OCTETS = 128  # room for one of them, with its header and padding, and for what nobody asked for


class MultihomeSocket:
    """`recvfrom` and `sendto` of a socket, with addresses that end in this host's own one."""

    def __init__(self, sock: socket.socket) -> None:
        """Errors: OSError."""
        self._socket = sock
        self._is_ipv6 = sock.family == socket.AF_INET6
        if self._is_ipv6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)

    def recvfrom(self, octets: int) -> tuple[bytes, Address]:
        datagram, control, _, sender = self._socket.recvmsg(octets, _CONTROL_OCTETS)
        for level, kind, data in control:
            if level == socket.IPPROTO_IP and kind == _IP_PKTINFO and len(data) >= _INFO4.size:
                return datagram, (*sender, socket.inet_ntop(socket.AF_INET, _INFO4.unpack_from(data)[1]))
            if level == socket.IPPROTO_IPV6 and kind == _IPV6_PKTINFO and len(data) >= _INFO6.size:
                packed, interface = _INFO6.unpack_from(data)
                # A link-local address means nothing without its interface.
                scope = f"%{interface}" if IPv6Address(packed).is_link_local else ""
                return datagram, (*sender, socket.inet_ntop(socket.AF_INET6, packed) + scope)
        return datagram, (*sender, "")

    def sendto(self, datagram: bytes, address: Address) -> int:
        *peer, own = address
        return self._socket.sendmsg([datagram], self._control(str(own)), 0, tuple(peer))

    def _control(self, own: str) -> list[tuple[int, int, bytes]]:
        if not own:
            return []
        if not self._is_ipv6:
            data = _INFO4.pack(0, socket.inet_pton(socket.AF_INET, own), bytes(4))
            return [(socket.IPPROTO_IP, _IP_PKTINFO, data)]
        host, _, interface = own.partition("%")
        data = _INFO6.pack(socket.inet_pton(socket.AF_INET6, host), int(interface or 0))
        return [(socket.IPPROTO_IPV6, _IPV6_PKTINFO, data)]

"""The tun device: IP packets in and out of the kernel, with offload where the kernel has it.

With offload the kernel hands over a whole TCP window's worth as one superpacket, uncut and without checksums, and takes
such packets back (`vpn.dataplane.offload` says how they look). Without it, or with an MTU near a superpacket's size,
packets are as they are on a wire. A device that was there before gets no offload, as from openvpn: whether packets have
headers, and which superpackets it gives, stays with the device, and a killed process would leave it so to its next
owner.

`dev tun` takes the next free number, `dev tun3` that very device, which may exist already (a persistent one, made by
`ip tuntap add` for this user). The device node is opened at the start, so that a missing permission shows before any
packet is sent; the device itself appears with `attach`.

Sources: linux/Documentation/networking/tuntap.rst; linux/include/uapi/linux/if_tun.h
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vpn.dataplane.backlog import BATCH_PACKETS, HELD_OCTETS, HELD_PACKETS, Backlog, Turns
from vpn.dataplane.offload import PLAIN, Superpacket, read
from vpn.driver.errors import HostError
from vpn.driver.lanes import Lanes

if TYPE_CHECKING:
    from vpn.dataplane.workbench import Rows, Workbench

_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
_CHECKSUMS, _TSO4, _TSO6, _TSO_ECN, _USO4, _USO6 = 0x01, 0x02, 0x04, 0x08, 0x20, 0x40
_WITH_TCP = _CHECKSUMS | _TSO4 | _TSO6 | _TSO_ECN
_WITH_UDP = _WITH_TCP | _USO4 | _USO6  # Linux 6.2; one of the two alone is refused
_REQUEST = struct.Struct("16sH22x")
_NUMBER_REQUEST = struct.Struct("16si20x")
_SIOCGIFFLAGS, _SIOCGIFMTU, _SIOCGIFTXQLEN = 0x8913, 0x8921, 0x8942
_IFF_UP = 0x1
READ_PACKETS = 64
_READ_OCTETS = 65536 + len(PLAIN)
# With what the tunnel adds to each of its packets, a superpacket of an ordinary MTU still fits into one call to send
_SUPERPACKET_OCTETS = 61_500
# Superpackets hold 64 KiB at most: above this size they save little, and checksums cost more here than in the kernel
_LARGEST_MTU_WITH_OFFLOAD = 9216


class TunDevice:
    """An open tun device, or its opened node before `attach`."""

    def __init__(self, node: Path) -> None:
        try:
            self._descriptor = os.open(node, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise HostError(f"open {node}", error.errno or 0, _hint(error.errno)) from error
        self.name = ""
        self._read_octets = 0
        self.octets_read = 0
        self.octets_written = 0
        self.refused_by_kernel = 0  # packets the kernel did not take: the interface is down, or the packet malformed
        self._has_offload = False
        self._takes_udp = False  # superpackets of UDP
        self._held = Backlog()
        self._turns = Turns()
        self._lanes: Lanes | None = None
        self.overflowed = 0  # packets that found no room

    def attach(self, name: str, mtu: int) -> None:
        """Makes or takes the device. Shape: `name` "tun" stands for the next free number."""
        wanted = "tun%d" if name == "tun" else name
        try:
            answer = self._make(wanted, mtu)
        except OSError as error:
            cause = (
                "a device of this name exists and is not a tun device of this user"
                if error.errno == errno.EINVAL
                else ""
            )
            raise HostError(f"make the tun device {name}", error.errno or 0, cause) from error
        self.name = _REQUEST.unpack(answer)[0].rstrip(b"\0").decode()
        self._read_octets = _READ_OCTETS if self._has_offload else mtu

    def _make(self, name: str, mtu: int) -> bytes:
        """The kernel's answer. Errors: OSError."""
        flags = _IFF_TUN | _IFF_NO_PI
        if mtu <= _LARGEST_MTU_WITH_OFFLOAD and interface_state(name) is None:
            try:
                answer = fcntl.ioctl(self._descriptor, _TUNSETIFF, _REQUEST.pack(name.encode(), flags | _IFF_VNET_HDR))
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
            else:
                self._has_offload = True
                self._takes_udp = self._offload(_WITH_UDP)
                if not self._takes_udp:
                    self._offload(_WITH_TCP)
                return answer
        answer = fcntl.ioctl(self._descriptor, _TUNSETIFF, _REQUEST.pack(name.encode(), flags))
        self._offload(0)  # a device that was there before may still have its last owner's
        return answer

    def _offload(self, features: int) -> bool:
        try:
            fcntl.ioctl(self._descriptor, _TUNSETOFFLOAD, features)
        except OSError:
            return False
        return True

    @property
    def superpacket_octets(self) -> int | None:
        """The largest packet to ask the kernel for; None: packets are ordinary ones."""
        return _SUPERPACKET_OCTETS if self._has_offload else None

    def fileno(self) -> int:
        return self._descriptor

    def read_packets(self, most: int = READ_PACKETS) -> list[list[bytes] | Superpacket]:
        """What the kernel has to send, a batch of what came first; empty if there is nothing.

        Up to `most` packets are read. The kernel counts its queue in packets and superpackets alike, which is seconds
        of traffic in the latter; therefore it is emptied into one that is bounded by octets, too.
        """
        self._fill(most)
        batch: list[list[bytes] | Superpacket] = []
        packets: list[bytes] = []
        room, superpackets = BATCH_PACKETS, self._turns.begin()
        while self.is_holding and room and superpackets:
            packet = self._next()
            self._turns.note(packet)
            room -= 1
            if isinstance(packet, bytes):
                if not packets:
                    batch.append(packets)
                packets.append(packet)
            else:
                batch.append(packet)
                packets = []
                superpackets -= 1
        return batch

    def share(self) -> None:
        """From now on what is for one destination does not make others wait: a server's device."""
        self._lanes = Lanes()

    def _next(self) -> bytes | Superpacket:
        if self._lanes is not None:
            return self._lanes.pop()
        return self._held.pop()

    def read_one(self) -> bytes | Superpacket | None:
        """A packet that has come alone. None: nothing, or something that `read_packets` has.

        Shape: to be called only when nothing is held.
        """
        try:
            packet = os.read(self._descriptor, self._read_octets)
        except OSError:
            return None  # `read_packets` meets it again, and judges
        if not self._has_offload:
            self.octets_read += len(packet)
            return packet
        self.octets_read += len(packet) - len(PLAIN)
        if packet.startswith(PLAIN):
            return packet[len(PLAIN) :]
        found = read(packet)
        if found is None:
            self.refused_by_kernel += 1
        return found

    def hold(self, packet: bytes | Superpacket) -> None:
        """Lets `read_packets` have this one first. Shape: the one that was read last, and nothing else is held."""
        (self._held if self._lanes is None else self._lanes).push(packet)

    @property
    def is_holding(self) -> bool:
        """Whether `read_packets` has more, whatever the kernel has."""
        return bool(self._held if self._lanes is None else self._lanes)

    def _fill(self, most: int) -> None:
        try:
            for _ in range(most):
                if self._held.has_enough:
                    break
                packet = os.read(self._descriptor, self._read_octets)
                self.octets_read += len(packet) - len(PLAIN) * self._has_offload
                found = read(packet) if self._has_offload else packet
                if found is None:
                    self.refused_by_kernel += 1
                elif self._lanes is not None:
                    self._lanes.push(found)
                    self.overflowed += self._lanes.shrink(HELD_PACKETS, HELD_OCTETS)
                else:
                    self.overflowed += self._held.add(found)
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.EIO:  # EIO: the interface is down at the moment
                raise HostError(f"read from {self.name}", error.errno or 0) from error

    def write_one(self, packet: bytes) -> None:
        """The same as `write_packets` for one."""
        try:
            os.write(self._descriptor, PLAIN + packet if self._has_offload else packet)
            self.octets_written += len(packet)
        except OSError:
            self.refused_by_kernel += 1

    def write_packets(self, packets: Sequence[bytes | Rows], bench: Workbench | None = None) -> None:
        """Hands packets to the kernel; those it refuses are counted. `bench` is needed for rows."""
        for packet in packets:
            if isinstance(packet, bytes):
                self._write((PLAIN, packet) if self._has_offload else (packet,))
            elif bench is not None and self._has_offload:
                for joined in bench.join(packet, udp=self._takes_udp):
                    self._write(joined)
            else:
                for single in packet.packets():
                    self._write((PLAIN, single) if self._has_offload else (single,))

    def _write(self, parts: Sequence[bytes | memoryview]) -> None:
        try:
            self.octets_written += os.writev(self._descriptor, parts) - len(PLAIN) * self._has_offload
        except OSError:
            self.refused_by_kernel += 1

    def close(self) -> None:
        if self._descriptor >= 0:
            if self._has_offload:
                self._offload(0)  # a device that stays is to give its next owner ordinary packets
            os.close(self._descriptor)
            self._descriptor = -1


@dataclass(frozen=True, slots=True)
class InterfaceState:
    """What a tunnel changes of an interface that was there before."""

    is_up: bool
    mtu: int
    queue_length: int


def interface_state(name: str) -> InterfaceState | None:
    """The state of the interface; None if there is none of that name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:

        def ask(question: int) -> int:
            answer = fcntl.ioctl(probe.fileno(), question, _NUMBER_REQUEST.pack(name.encode(), 0))
            return int(_NUMBER_REQUEST.unpack(answer)[1])

        try:
            return InterfaceState(bool(ask(_SIOCGIFFLAGS) & _IFF_UP), ask(_SIOCGIFMTU), ask(_SIOCGIFTXQLEN))
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise HostError(f"look at the interface {name}", error.errno or 0) from error


def _hint(number: int | None) -> str:
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return "the kernel's tun module is missing: modprobe tun"
    if number in (errno.EACCES, errno.EPERM):
        return "this needs root, or a device node this user may open"
    return ""

"""One end of an impaired link: a packet ring that the kernel fills with what arrives, and a socket that sends.

    open_port(socket)          before the link is up: the kernel records from its first frame on
    Port.receive(), .send()    in the engine's process, which inherits the socket

The ring is of version 2: it wakes its reader with the first frame, where version 3 hands over blocks that are full or a
millisecond old, which would be a delay of its own. Its time stamps say when a frame arrived, however late it is read.
What this process sends is not received again (PACKET_IGNORE_OUTGOING), and goes to the device without a queue.

Frames are sent one by one: most of a send is the far node's receiving, done before the call returns (measured: 3.1 µs a
frame, 2.9 µs with sendmmsg, whose arguments cost Python nearly what the saved calls cost the kernel).

Source: Linux Documentation/networking/packet_mmap.rst, include/uapi/linux/if_packet.h.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
from contextlib import suppress

SOL_PACKET = 263
PACKET_RX_RING = 5
PACKET_STATISTICS = 6
PACKET_VERSION = 10
PACKET_QDISC_BYPASS = 20
PACKET_IGNORE_OUTGOING = 23
TPACKET_V2 = 1
ETH_P_ALL = 3
SO_SNDBUFFORCE = 32

RING_OCTETS = 8 << 20
SEND_BUFFER_OCTETS = 8 << 20
BATCH_FRAMES = 256  # read at most this many before sending what is due

TP_STATUS_USER = 1
TP_STATUS_VLAN_VALID = 16
TP_STATUS_VLAN_TPID_VALID = 64
ETHERTYPE_VLAN = 0x8100

_HEAD = struct.Struct("=IIIHHIIHH")  # status, length, kept, offset of the frame, of the network, s, ns, VLAN tag, type
_FRAME_OVERHEAD = 128  # ring header, socket address, alignment, Ethernet header with a tag; more than all of them
_COUNTERS = struct.Struct("=II")


def ring_shape(mtu_octets: int) -> tuple[int, int, int]:
    """Return (octets of a frame's slot, octets of a block, number of blocks): slots divide blocks, both ends agree."""
    slot = 1 << (mtu_octets + _FRAME_OVERHEAD - 1).bit_length()
    block = max(slot, 1 << 16, mmap.PAGESIZE)
    return slot, block, max(2, RING_OCTETS // block)


def open_port(packet_socket: socket.socket, interface: str, mtu_octets: int) -> None:
    """Have the kernel record what arrives at `interface`, which may still be down.

    Shape:   the socket is `socket(AF_PACKET, SOCK_RAW, 0)`, made in the interface's network namespace
    Errors:  OSError
    """
    slot, block, blocks = ring_shape(mtu_octets)
    packet_socket.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V2)
    packet_socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    packet_socket.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
    packet_socket.setsockopt(
        SOL_PACKET, PACKET_RX_RING, struct.pack("=IIII", block, blocks, slot, block // slot * blocks)
    )
    packet_socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_OCTETS)
    with suppress(PermissionError):  # without root the host's usual limit holds
        packet_socket.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, SEND_BUFFER_OCTETS)
    packet_socket.bind((interface, ETH_P_ALL))
    packet_socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # ENETDOWN, as the interface is down


class Port:
    """An opened end in the engine's process."""

    def __init__(self, packet_socket: socket.socket, mtu_octets: int) -> None:
        self.socket = packet_socket
        self.missed = 0  # frames that found the ring full
        self.refused = 0  # frames that the device or its send buffer did not take
        slot, block, blocks = ring_shape(mtu_octets)
        self._slot = slot
        self._octets = block * blocks
        self._ring = mmap.mmap(packet_socket.fileno(), self._octets, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._status = memoryview(self._ring).cast("I")
        self._at = 0

    def receive(self) -> list[tuple[bytes, int]]:
        """Return up to BATCH_FRAMES of the frames that have arrived, each with its arrival in ns of real time."""
        ring, status, slot, unpack, octets = self._ring, self._status, self._slot, _HEAD.unpack_from, self._octets
        at = self._at
        found: list[tuple[bytes, int]] = []
        for _ in range(BATCH_FRAMES):
            if not status[at >> 2] & TP_STATUS_USER:
                break
            flags, _length, kept, start, _network, seconds, nanoseconds, tag, tag_type = unpack(ring, at)
            start += at
            frame = ring[start : start + kept]
            if flags & TP_STATUS_VLAN_VALID:
                frame = _with_tag(frame, tag, tag_type if flags & TP_STATUS_VLAN_TPID_VALID else ETHERTYPE_VLAN)
            found.append((frame, seconds * 1_000_000_000 + nanoseconds))
            status[at >> 2] = 0  # the slot is the kernel's again
            at += slot
            if at == octets:
                at = 0
        self._at = at
        return found

    def waiting(self) -> bool:
        """Whether a frame is there to be received."""
        return bool(self._status[self._at >> 2] & TP_STATUS_USER)

    def send(self, frames: list[bytes]) -> None:
        """Put `frames` on the link; what it does not take is counted."""
        send = self.socket.send
        for frame in frames:
            try:
                send(frame, socket.MSG_DONTWAIT)
            except OSError:  # no room, or the link is down: on a wire the frame would be gone as well
                self.refused += 1

    def take_error(self) -> None:
        """Take the socket's pending error, which says that the link went down and would end every wait at once."""
        self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def count_missed(self) -> int:
        """Return how many frames found the ring full so far."""
        raw = self.socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, _COUNTERS.size)
        self.missed += _COUNTERS.unpack(raw)[1]
        return self.missed

    def fileno(self) -> int:
        return self.socket.fileno()


def _with_tag(frame: bytes, tag: int, tag_type: int) -> bytes:
    """Return the frame with the VLAN tag that the kernel took out of it."""
    return frame[:12] + struct.pack("!HH", tag_type, tag) + frame[12:]


def adopt_port(descriptor: int, mtu_octets: int) -> Port:
    """Return the port behind an inherited descriptor. Errors: OSError."""
    os.set_inheritable(descriptor, False)
    return Port(socket.socket(fileno=descriptor), mtu_octets)

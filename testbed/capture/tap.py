"""The tap: a packet ring that the kernel fills and one process that drains it into a pcapng file.

    conductor: open_ring(socket)  ── the kernel records from here on, also before anybody reads ──┐
    tap process: drain()          blocks of the mapped ring -> pcapng, until SIGTERM ─────────────┘

The socket is bound to one interface, so every packet is there once per direction of the wire, outgoing ones included.
It may be bound while the interface is down: the kernel reports ENETDOWN once and records from the first packet after
the link comes up. The ring is split in blocks that change hands: the kernel retires a block to us when it is full or
`RETIRE_MS` old, we write it out and give it back. What finds no room is dropped and counted by the kernel.

To end without losing anything, the socket is first detached from the interface and then drained until the block the
kernel was filling has been retired too.

Few packets are turned into pcapng one by one; when they become many, a whole block at once (`in_place`).

Only octets as the kernel gives them are written; nothing is interpreted. Imports are few on purpose: they are start-up
time of every tap's process.

Source: Linux Documentation/networking/packet_mmap.rst, include/uapi/linux/if_packet.h
"""

from __future__ import annotations

import _thread
import gc
import mmap
import os
import select
import socket
import struct
import sys
import time
from array import array

from testbed.capture import pcapng

TYPE_CHECKING = False  # typing.TYPE_CHECKING without the import's milliseconds
if TYPE_CHECKING:
    from testbed.capture.in_place import InPlace

DEFAULT_RING_OCTETS = 32 << 20
RETIRE_MS = 10
BUSY_RETIRE_MS = 100  # fuller blocks, fewer of them: what a block costs is shared by more packets
BURST_OCTETS_MS = 1_600_000  # more than 10 Gbit/s put into the ring
LARGEST_BLOCK_OCTETS = 2 << 20
BUSY_PACKETS = 5_000  # recorded so far: then there are likely to be the 50,000 more for which numpy's import pays

SOL_PACKET = 263
PACKET_RX_RING = 5
PACKET_STATISTICS = 6
PACKET_VERSION = 10
PACKET_RESERVE = 12
PACKET_IGNORE_OUTGOING = 23
TPACKET_V3 = 2
ETH_P_ALL = 3
SO_ATTACH_FILTER = 26
BPF_RETURN_CONSTANT = 0x06

TP_STATUS_USER = 1
TP_STATUS_CSUMNOTREADY = 8
TP_STATUS_VLAN_VALID = 16
TP_STATUS_VLAN_TPID_VALID = 64
PACKET_OUTGOING = 4
ETHERTYPE_VLAN = 0x8100

ARPHRD_ETHERNET = 1
ARPHRD_LOOPBACK = 772
ARPHRD_NONE = 0xFFFE
LINK_TYPES = {
    ARPHRD_ETHERNET: pcapng.LINKTYPE_ETHERNET,
    ARPHRD_LOOPBACK: pcapng.LINKTYPE_ETHERNET,
    ARPHRD_NONE: pcapng.LINKTYPE_RAW,
}
# Behind its header a packet begins at 96 less its link layer's 14: then two more make it a multiple of four.
RESERVED_OCTETS = {ARPHRD_ETHERNET: 2, ARPHRD_LOOPBACK: 2}

_BLOCK = struct.Struct("=IIIIII")  # version, offset to private area; status, packets, offset of the first, length
_STATUS_OFFSET = 8
_PACKET = struct.Struct("=IIIIIIH32xB")  # next, sec, nsec, kept, length, status, mac; packet type of its address
_VLAN = struct.Struct("=IH")  # tag, ethertype
_VLAN_OFFSET = 32
_COUNTERS = struct.Struct("=III")  # packets (drops included), drops, times the queue froze


class TapError(Exception):
    """The host refused a part of the tap. Says which operation, on what, and the likely cause."""


def ring_shape(ring_octets: int) -> tuple[int, int]:
    """Block size and number of blocks for a ring of about `ring_octets`; both ends of the ring derive the same."""
    page = mmap.PAGESIZE
    block_octets = max(page, min(LARGEST_BLOCK_OCTETS, ring_octets // 16) // page * page)
    return block_octets, max(2, ring_octets // block_octets)


def longest_pause_ms(ring_octets: int) -> int:
    """How long the ring may be left alone, whatever comes. Units: milliseconds, 0 for a small ring."""
    return ring_octets // BURST_OCTETS_MS


def is_for_load(ring_octets: int, snap_octets: int) -> bool:
    """Whether somebody who asks for such a ring expects many packets."""
    return snap_octets > 0 or ring_octets > DEFAULT_RING_OCTETS


def open_ring(
    packet_socket: socket.socket,
    interface: str,
    *,
    ring_octets: int = DEFAULT_RING_OCTETS,
    snap_octets: int = 0,
    retire_ms: int = 0,
) -> None:
    """Make the socket record everything on `interface`, up or still down, from the moment this returns.

    Shape:   the socket is `socket(AF_PACKET, SOCK_RAW, 0)`, made in the node's network namespace: with protocol 0 it
             hears nothing before it is bound; `snap_octets` 0 keeps whole packets; `retire_ms` is how long a block
             may wait to be full, 0 for `RETIRE_MS`, or `BUSY_RETIRE_MS` for a ring that is for load
    Errors:  TapError, naming the operation
    """
    block_octets, block_count = ring_shape(ring_octets)
    frame_octets = 2048  # only has to divide a block: version 3 packs frames of any length
    frame_count = block_octets // frame_octets * block_count
    retire_ms = retire_ms or (BUSY_RETIRE_MS if is_for_load(ring_octets, snap_octets) else RETIRE_MS)
    request = struct.pack("=IIIIIII", block_octets, block_count, frame_octets, frame_count, retire_ms, 0, 0)
    try:
        packet_socket.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V3)
        packet_socket.bind((interface, 0))  # records nothing yet, but tells what kind of interface it is
        hardware_type = packet_socket.getsockname()[3]
        packet_socket.setsockopt(SOL_PACKET, PACKET_RESERVE, RESERVED_OCTETS.get(hardware_type, 0))
        packet_socket.setsockopt(SOL_PACKET, PACKET_RX_RING, request)
        if snap_octets:
            _limit_octets(packet_socket, snap_octets)
        packet_socket.bind((interface, ETH_P_ALL))
        # Bound while down, the socket carries ENETDOWN as its pending error: take it, or the first poll returns it.
        packet_socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if hardware_type == ARPHRD_LOOPBACK:  # where every packet goes out and comes in again
            packet_socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    except OSError as error:
        raise TapError(f"cannot open a ring of {ring_octets} octets on {interface}: {error.strerror}") from error
    if hardware_type not in LINK_TYPES:
        raise TapError(f"cannot tap {interface}: its link type (ARPHRD {hardware_type}) is neither Ethernet nor raw IP")


def _limit_octets(packet_socket: socket.socket, snap_octets: int) -> None:
    """Cut packets at `snap_octets` in the kernel, with a one-line filter program that returns the length to keep."""
    program = array("B", struct.pack("=HBBI", BPF_RETURN_CONSTANT, 0, 0, snap_octets))
    address, _ = program.buffer_info()
    packet_socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", 1, address))


class Ring:
    """The drained side of a socket that `open_ring` has prepared."""

    def __init__(self, packet_socket: socket.socket, ring_octets: int) -> None:
        self.block_octets, self.block_count = ring_shape(ring_octets)
        self._socket = packet_socket
        self._map = mmap.mmap(
            packet_socket.fileno(),
            self.block_octets * self.block_count,
            mmap.MAP_SHARED,
            mmap.PROT_READ | mmap.PROT_WRITE,
        )
        self._octets = memoryview(self._map)
        self._in_place: InPlace | None = None
        self._prepared = False
        self._next = 0
        self.pause_ms = 0
        self._most_pause_ms = longest_pause_ms(ring_octets)
        self.packets = 0
        self.octets = 0
        self.dropped = 0
        self.frozen = 0
        self.unfinished_checksums = 0

    def drain(self, output: int) -> None:
        """Write every block the kernel has retired to the file, as pcapng; each goes back to the kernel at once."""
        blocks = 0
        for _ in range(self.block_count):
            start = self._next * self.block_octets
            _, _, status, count, first, _ = _BLOCK.unpack_from(self._map, start)
            if not status & TP_STATUS_USER:
                break
            if count:
                self._write_block(output, start + first, count)
            # Status and packet count in one write: a count of 0 lets `filling` tell an empty block from a used one.
            self._map[start + _STATUS_OFFSET : start + _STATUS_OFFSET + 8] = b"\0\0\0\0\0\0\0\0"
            self._next = (self._next + 1) % self.block_count
            blocks += 1
        self._choose_pause(blocks)
        if self.packets > BUSY_PACKETS and not self._prepared:
            self._prepared = True
            _thread.start_new_thread(self.prepare, ())  # the ring could overflow while this thread waited for an import

    def _choose_pause(self, blocks: int) -> None:
        """Sleep for so long that a quarter of the ring is full: each waking finds the processor's caches empty."""
        if blocks > self.block_count // 4:
            self.pause_ms //= 2
        elif self._in_place is not None:
            self.pause_ms = min(self.pause_ms + 1, self._most_pause_ms)

    def prepare(self) -> None:
        """Have so much to record that it pays to let numpy do it."""
        self._prepared = True
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # nothing is multiplied here: threads only cost their start
        usual = sys.getswitchinterval()
        sys.setswitchinterval(usual / 20)  # while it is imported, the ring must not wait its turn for long
        gc.disable()  # what is imported stays: a search for garbage among it only costs, now and later
        try:
            from testbed.capture.in_place import InPlace

            self._in_place = InPlace(self._map)
        finally:
            gc.freeze()
            gc.enable()
            sys.setswitchinterval(usual)

    def _write_block(self, output: int, at: int, count: int) -> None:
        while count:
            done = self._in_place.rewrite(at, count) if self._in_place is not None else None
            if done is None:
                _write(output, self._read_block(at, count))
                return
            at = done.following
            count -= done.packets
            self.packets += done.packets
            self.octets += done.octets
            self.unfinished_checksums += done.unfinished_checksums
            _write(output, self._octets[done.start : done.stop], done.tail)

    def filling(self) -> bool:
        """Whether the kernel holds packets in a block that it has not retired yet."""
        _, _, status, count, _, _ = _BLOCK.unpack_from(self._map, self._next * self.block_octets)
        return bool(status & TP_STATUS_USER or count)

    def _read_block(self, at: int, count: int) -> bytes:
        """A ring block as pcapng blocks. Every packet goes through this loop: it calls nothing of ours."""
        ring, unpack, pack = self._map, _PACKET.unpack_from, pcapng.PACKET_HEAD.pack
        overheads, tails = pcapng.PACKET_OVERHEADS, [tail.pack for tail in pcapng.PACKET_TAILS]
        octets = 0
        pieces: list[bytes] = []
        for _ in range(count):
            following, sec, nsec, kept, length, status, mac, packet_type = unpack(ring, at)
            start = at + mac
            data = ring[start : start + kept]
            if status & (TP_STATUS_VLAN_VALID | TP_STATUS_CSUMNOTREADY):
                data = self._as_on_the_wire(data, status, at)
                length += len(data) - kept
                kept = len(data)
            time_ns = sec * 1_000_000_000 + nsec
            phase = kept & 3
            total = overheads[phase] + kept
            direction = pcapng.OUTBOUND if packet_type == PACKET_OUTGOING else pcapng.INBOUND
            pieces += (
                pack(pcapng.ENHANCED_PACKET, total, 0, time_ns >> 32, time_ns & 0xFFFFFFFF, kept, length),
                data,
                tails[phase](2, 4, direction, 0, 0, total),
            )
            octets += length
            at += following
        self.packets += count
        self.octets += octets
        return b"".join(pieces)

    def _as_on_the_wire(self, data: bytes, status: int, at: int) -> bytes:
        """The frame with the VLAN tag that the kernel took out of it; unfinished checksums are only counted."""
        if status & TP_STATUS_CSUMNOTREADY:
            self.unfinished_checksums += 1
        if not status & TP_STATUS_VLAN_VALID:
            return data
        tag, ethertype = _VLAN.unpack_from(self._map, at + _VLAN_OFFSET)
        if not status & TP_STATUS_VLAN_TPID_VALID:
            ethertype = ETHERTYPE_VLAN
        return data[:12] + struct.pack("!HH", ethertype, tag & 0xFFFF) + data[12:]

    def detach(self) -> None:
        """Stop recording; what is in the ring stays there. Returns once no packet is on its way into the ring."""
        self._socket.bind((self._socket.getsockname()[0], 0))

    def count_drops(self) -> None:
        """Add what the kernel counted since the last call: it forgets when asked."""
        raw = self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, _COUNTERS.size)
        _, dropped, frozen = _COUNTERS.unpack(raw)
        self.dropped += dropped
        self.frozen += frozen


def record(
    packet_socket: socket.socket,
    output: int,
    *,
    interface_name: str,
    ring_octets: int,
    snap_octets: int,
    stops: list[int],
    busy: bool = False,
) -> Ring:
    """Drain the ring into the file `output` until one of `stops` becomes readable; returns the final counters.

    Shape: `busy` says that many packets are to come, so that the tap is ready for them before the first
    """
    ring = Ring(packet_socket, ring_octets)
    if busy:
        ring.prepare()
    # A tunnel's device may be gone before a slow machine comes here; its packets are in the ring all the same.
    link_type = LINK_TYPES.get(packet_socket.getsockname()[3], pcapng.LINKTYPE_RAW)
    started_ns = time.time_ns()
    _write(output, pcapng.build_section_header("vpn-testbed tap"))
    _write(output, pcapng.build_interface(interface_name, link_type, snap_octets))
    anything, stop = select.poll(), select.poll()
    anything.register(packet_socket.fileno(), select.POLLIN | select.POLLERR)
    for descriptor in stops:
        anything.register(descriptor, select.POLLIN)
        stop.register(descriptor, select.POLLIN)
    stopped = False
    while not stopped:
        events = dict(anything.poll())
        if events.get(packet_socket.fileno(), 0) & select.POLLERR:
            # The link went down (or away). Asking takes the error; recording goes on when the link is back.
            packet_socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        stopped = bool(stop.poll(ring.pause_ms))
        ring.drain(output)
    _finish(ring, output)
    _write(output, pcapng.build_statistics(0, started_ns, time.time_ns(), ring.packets + ring.dropped, ring.dropped))
    return ring


def _finish(ring: Ring, output: int) -> None:
    """Write out the rest, the block the kernel is still filling included: it retires it soon."""
    try:  # noqa: SIM105 - contextlib would be start-up time
        ring.detach()
    except OSError:
        pass  # the interface is gone: nothing can arrive any more
    give_up_at = time.monotonic() + 100 * RETIRE_MS / 1000  # ten times what a busy ring takes
    while True:
        ring.drain(output)
        if not ring.filling() or time.monotonic() > give_up_at:
            break
        time.sleep(RETIRE_MS / 4000)
    ring.count_drops()


def _write(output: int, *pieces: bytes | memoryview) -> None:
    """All of the pieces, with one call where the file takes them at once."""
    views = [memoryview(piece) for piece in pieces]
    written = os.writev(output, views)
    for view in views:
        rest, written = view[written:], max(written - len(view), 0)
        while rest:
            rest = rest[os.write(output, rest) :]

"""The headers of a batch of frames as columns: whose packets they are, where their octets stand, which are ordinary.

Ordinary is TCP without SYN, FIN or RST, or UDP, in a whole IPv4 packet without options or a whole IPv6 packet without
extensions, on Ethernet, in a Linux cooked capture or without a link layer. Unusual is what may belong to the same
conversations in another way (tags, options, fragments, lengths that make no sense); all the rest is neither.

A conversation is told by a number made of both ends, the same in both directions. Two conversations may share it, so
whoever relies on it compares the ends themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from testbed.capture import pcapng
from testbed.capture.columns import Columns, Integers, numbers_at
from testbed.observer.ip import AUTHENTICATION, EXTENSION_HEADERS, FRAGMENT
from testbed.observer.link import RAW_LINK_TYPES
from testbed.observer.wire.quic import VERSIONS

TCP, UDP = 6, 17
FIN, SYN, RST, ACK = 1, 2, 4, 16
FIN_SYN_RST = FIN | SYN | RST
FRAGMENTED = 0x3FFF
ETHERTYPES = {4: 0x0800, 6: 0x86DD}
ARP = 0x0806
# link type -> where the Ethertype stands, if anywhere, and where the packet begins
LINKS = {
    pcapng.LINKTYPE_ETHERNET: (12, 14),
    pcapng.LINKTYPE_LINUX_SLL: (14, 16),
    pcapng.LINKTYPE_LINUX_SLL2: (0, 20),
    **dict.fromkeys(RAW_LINK_TYPES, (-1, 0)),
}
EXTENSIONS = (*EXTENSION_HEADERS, FRAGMENT, AUTHENTICATION)
QUIC_LONG_HEADER, QUIC_VERSIONS = 0xC0, tuple(VERSIONS)
READ_OCTETS = 60  # an IPv6 and a TCP header
MULTIPLIERS = tuple(np.uint64(odd) for odd in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9))

Words = NDArray[np.uint64]
Marks = NDArray[np.bool_]
Chosen = Integers | slice
ALL = slice(None)
_FIELDS = {
    4: {
        "length": (">u2", 2),
        "fragment": (">u2", 6),
        "protocol": ("u1", 9),
        "source": ("<u4", 12),
        "destination": ("<u4", 16),
        "source_port": ("<u2", 20),
        "destination_port": ("<u2", 22),
        "udp_length": (">u2", 24),
        "sequence": (">u4", 24),
        "offset": ("u1", 32),
        "flags": ("u1", 33),
    },
    6: {
        "length": (">u2", 4),
        "protocol": ("u1", 6),
        "source": ("<u8", 8),
        "source_end": ("<u8", 16),
        "destination": ("<u8", 24),
        "destination_end": ("<u8", 32),
        "source_port": ("<u2", 40),
        "destination_port": ("<u2", 42),
        "udp_length": (">u2", 44),
        "sequence": (">u4", 44),
        "offset": ("u1", 52),
        "flags": ("u1", 53),
    },
}
_ROWS = {
    version: np.dtype(
        {
            "names": list(fields),
            "formats": [kind for kind, _ in fields.values()],
            "offsets": [at for _, at in fields.values()],
            "itemsize": {4: 40, 6: READ_OCTETS}[version],
        }
    )
    for version, fields in _FIELDS.items()
}
_HEADER_OCTETS = {4: 20, 6: 40}
_ADDRESSES_AT = {4: 12, 6: 8}


@dataclass(frozen=True, slots=True)
class Headers:
    """Shape: one entry per frame; offsets are into the batch's buffer. What is neither TCP nor UDP has protocol 0."""

    buffer: bytes
    version: NDArray[np.uint8]
    protocol: NDArray[np.uint8]
    network_at: Integers
    payload_at: Integers
    payload: Integers  # octets
    sequence: Integers
    flags: NDArray[np.uint8]  # of TCP
    senders: Words  # a number of the sending end alone
    conversations: Words
    regular: Marks  # TCP with a header that makes sense, whatever its flags
    ordinary: Marks
    unusual: Marks

    def key(self, index: int) -> bytes:
        """The packet's key in the table of flows."""
        at, octets = self._ends_at(index)
        return self.buffer[at : at + octets] + bytes((int(self.protocol[index]),))

    def differing(self, packets: Integers) -> Marks:
        """Which of the packets are not from the end, to the end and of the protocol that the first one is."""
        version, protocol = self.version[packets], self.protocol[packets]
        at, octets = self._ends_at(int(packets[0]))
        from_network = at - int(self.network_at[packets[0]])
        ends = numbers_at(self.buffer, f"V{octets}")[self.network_at[packets] + from_network]
        words = ends.view(np.uint32).reshape(len(packets), -1)
        differing: Marks = (words != words[0]).any(axis=1) | (version != version[0]) | (protocol != protocol[0])
        return differing

    def strangers(self, packets: Integers, models: Integers, same_way: Marks) -> Marks:
        """Which packets are not of the conversation that the model beside them is of, one way or the other."""
        strange: Marks = self.version[packets] != self.version[models]
        for version in (4, 6):
            here = np.flatnonzero(self.version[packets] == version)
            if len(here):
                ends, wanted = (self._ends(version, which[here]) for which in (packets, models))
                half = ends.shape[1] - 1 >> 1
                strange[here] |= (ends != _other_way(wanted, half, same_way[here])).any(axis=1)
        return strange

    def _ends(self, version: int, packets: Integers) -> NDArray[np.uint32]:
        """Of each packet source, destination and, in one word, both ports."""
        octets = _HEADER_OCTETS[version] - _ADDRESSES_AT[version] + 4
        found = numbers_at(self.buffer, f"V{octets}")[self.network_at[packets] + _ADDRESSES_AT[version]]
        return found.view(np.uint32).reshape(len(packets), -1)

    def ends_at(self, packets: Integers) -> tuple[Integers, Integers]:
        """Where addresses and ports begin and end, of TCP and UDP packets."""
        network_at = self.network_at[packets]
        version_4 = self.version[packets] == 4
        begin = np.where(version_4, _ADDRESSES_AT[4], _ADDRESSES_AT[6])
        end = np.where(version_4, _HEADER_OCTETS[4], _HEADER_OCTETS[6]) + 4
        return network_at + begin, network_at + end

    def _ends_at(self, index: int) -> tuple[int, int]:
        """Where addresses and ports begin, and how many octets they have."""
        version, at = int(self.version[index]), int(self.network_at[index])
        return at + _ADDRESSES_AT[version], _HEADER_OCTETS[version] - _ADDRESSES_AT[version] + 4


def read_headers(batch: Columns) -> Headers:
    count = len(batch.data_at)
    headers = Headers(
        batch.buffer,
        version=np.zeros(count, np.uint8),
        protocol=np.zeros(count, np.uint8),
        network_at=np.zeros(count, np.int64),
        payload_at=np.zeros(count, np.int64),
        payload=np.zeros(count, np.int64),
        sequence=np.zeros(count, np.int64),
        flags=np.zeros(count, np.uint8),
        senders=np.zeros(count, np.uint64),
        conversations=np.zeros(count, np.uint64),
        regular=np.zeros(count, np.bool_),
        ordinary=np.zeros(count, np.bool_),
        unusual=np.zeros(count, np.bool_),
    )
    _find_network(batch, headers)
    octets = np.frombuffer(batch.buffer, np.uint8)
    for version in (4, 6):
        chosen = _chosen(headers.version == version)
        first = octets[headers.network_at[chosen]]
        plain = first == 0x45 if version == 4 else first >> 4 == 6
        if not plain.all():
            headers.unusual[chosen] |= ~plain
            chosen = _further(chosen, plain)
        if len(first):
            _read_version(batch, headers, version, chosen)
    return headers


def _chosen(marks: Marks) -> Chosen:
    """An index for the entries that are marked: for all of them one that copies nothing, for most batches are alike."""
    return ALL if marks.all() else np.flatnonzero(marks)


def _further(chosen: Chosen, marks: Marks) -> Chosen:
    """Those of the chosen that are marked."""
    if marks.all():
        return chosen
    return np.flatnonzero(marks) if isinstance(chosen, slice) else chosen[marks]


def _find_network(batch: Columns, headers: Headers) -> None:
    """Where the IP header begins and which version it should have; unusual is what cannot be told at one glance."""
    readable = batch.data_at + READ_OCTETS + 20 <= len(batch.buffer)
    first = batch.link_types[0]
    kinds = [int(first)] if (batch.link_types == first).all() else np.unique(batch.link_types).tolist()
    for link_type in kinds:
        here = batch.link_types == link_type
        if link_type not in LINKS:
            headers.unusual[here] = True
            continue
        type_at, network_at = LINKS[link_type]
        np.add(batch.data_at, network_at, out=headers.network_at, where=here)
        headers.unusual[:] |= here & ~readable
        _tell_version(batch, headers, _chosen(here & readable & (batch.captured >= network_at + 20)), type_at)


def _tell_version(batch: Columns, headers: Headers, chosen: Chosen, type_at: int) -> None:
    if type_at < 0:
        found = np.frombuffer(batch.buffer, np.uint8)[headers.network_at[chosen]] >> 4
        headers.version[chosen] = np.where((found == 4) | (found == 6), found, 0)
        return
    ethertype = numbers_at(batch.buffer, ">u2")[batch.data_at[chosen] + type_at]
    is_4, is_6 = (ethertype == number for number in ETHERTYPES.values())
    headers.version[chosen] = is_4 * np.uint8(4) + is_6 * np.uint8(6)
    headers.unusual[chosen] |= ~(is_4 | is_6 | (ethertype == ARP))


def _read_version(batch: Columns, headers: Headers, version: int, chosen: Chosen) -> None:
    """Enter the TCP and UDP packets of one version of IP."""
    rows = numbers_at(batch.buffer, _ROWS[version])[headers.network_at[chosen]]
    protocol = rows["protocol"]
    if version == 4:
        strange: Marks = (rows["fragment"] & FRAGMENTED > 0) | (protocol == AUTHENTICATION)
    else:
        strange = np.isin(protocol, EXTENSIONS)
    headers.unusual[chosen] |= strange
    taken = ~strange & ((protocol == TCP) | (protocol == UDP))
    if not taken.all():
        chosen, rows = _further(chosen, taken), rows[taken]
    headers.protocol[chosen] = protocol = rows["protocol"]
    _number_conversations(headers, version, chosen, rows)
    header_octets, at = _HEADER_OCTETS[version], headers.network_at[chosen]
    claimed = rows["length"].astype(np.int64) + (header_octets if version == 6 else 0)
    end = np.minimum(at + claimed, batch.data_at[chosen] + batch.captured[chosen])
    start = at + header_octets
    headers.ordinary[chosen] = rows["length"] > 0
    is_tcp = protocol == TCP
    if is_tcp.all():
        _read_tcp(headers, chosen, rows, start, end)
        return
    _read_tcp(headers, _further(chosen, is_tcp), rows[is_tcp], start[is_tcp], end[is_tcp])
    is_udp = ~is_tcp
    _read_udp(headers, _further(chosen, is_udp), rows[is_udp], start[is_udp], end[is_udp])


def _read_tcp(headers: Headers, chosen: Chosen, rows: NDArray[Any], start: Integers, end: Integers) -> None:
    payload_at = start + (rows["offset"] >> 4).astype(np.int64) * 4
    headers.sequence[chosen] = rows["sequence"]
    headers.payload_at[chosen] = payload_at
    headers.payload[chosen] = end - payload_at
    headers.flags[chosen] = flags = rows["flags"]
    regular = headers.ordinary[chosen] & (start + 20 <= payload_at) & (payload_at <= end)
    headers.regular[chosen] = regular
    headers.ordinary[chosen] = regular & (flags & FIN_SYN_RST == 0)


def _read_udp(headers: Headers, chosen: Chosen, rows: NDArray[Any], start: Integers, end: Integers) -> None:
    length = rows["udp_length"].astype(np.int64)
    end = np.where(length >= 8, np.minimum(start + length, end), end)
    headers.payload_at[chosen] = start + 8
    headers.payload[chosen] = end - start - 8
    # QUIC's first packets are looked at one by one, wherever they come: another connection may begin there.
    first = np.frombuffer(headers.buffer, np.uint8)[start + 8]
    begins = (first >= QUIC_LONG_HEADER) & np.isin(numbers_at(headers.buffer, ">u4")[start + 9], QUIC_VERSIONS)
    headers.ordinary[chosen] &= (start + 8 <= end) & ~begins


def _other_way(ends: NDArray[np.uint32], half: int, same_way: Marks) -> NDArray[np.uint32]:
    """Source and destination exchanged, with their ports, but where it is the same way already."""
    turned = np.concatenate((ends[:, half : 2 * half], ends[:, :half], ends[:, -1:] << 16 | ends[:, -1:] >> 16), axis=1)
    return np.where(same_way[:, np.newaxis], ends, turned)


def _number_conversations(headers: Headers, version: int, chosen: Chosen, rows: NDArray[Any]) -> None:
    numbers = []
    for end in ("source", "destination"):
        number = rows[end].astype(np.uint64) * MULTIPLIERS[0]
        if version == 6:
            number ^= (rows[f"{end}_end"] + MULTIPLIERS[2]) * MULTIPLIERS[1]
        number += rows[f"{end}_port"] * MULTIPLIERS[1]
        number ^= number >> np.uint64(29)
        numbers.append(number * MULTIPLIERS[2])
    headers.senders[chosen] = numbers[0]
    headers.conversations[chosen] = numbers[0] + numbers[1] + rows["protocol"]

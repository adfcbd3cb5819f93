"""Short TCP conversations by the hundred: what most of a capture of somebody who browses consists of, with numpy.

    a stretch of a batch -> the packets of each conversation -> those conversations that go as nearly all do

As nearly all do: it may open with SYN and SYN-ACK, octets follow octets on either side, each side may end with FIN, and
time does not run backwards. Of such a conversation everything is summed up here, in columns, for hundreds at once;
what is left to be done for each is to enter the sums into its flow. All others are left to be taken packet by packet.

A conversation is summed up as far as the stretch goes. It may have begun before, and may go on behind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from testbed.capture.columns import Columns, Integers
from testbed.capture.reader import Frame
from testbed.observer.flows import BURST_PAUSE_NS, FlowState, Side
from testbed.observer.headers import ACK, FIN, RST, SYN, TCP, Headers, Marks
from testbed.observer.model import Limits
from testbed.observer.streams import SEQUENCE_MASK
from testbed.observer.table import FlowTable

TCP_TAIL = bytes((TCP,))

FEWEST_PACKETS, MOST_PACKETS = 3, 256  # of a conversation: of more, runs are as good
FEWEST_CONVERSATIONS = 8  # below it, it is quicker to take the packets one at a time


class Half(NamedTuple):
    """What one side says in all conversations.

    Shape: lists have an entry for each conversation; octets have eight for each piece
    """

    packets: list[int]
    octets: list[int]
    payload: list[int]
    begins: list[int]  # the sequence number that has to come next, or of the SYN
    fin_frames: list[int]  # 0 if it does not end
    fin_times_ns: list[int]
    pieces: list[int]  # the first of the pieces of each, and one more
    offsets: bytes
    frames: bytes
    times_ns: bytes
    positions: bytes


class Brief(NamedTuple):
    """Conversations in the order in which they begin. Shape: lists have an entry for each.

    `packets` has those of one after those of another; of conversation i from `edges[i]` to `edges[i + 1]`. `halves` are
    of the side that is heard first, and of the other.
    """

    packets: Integers
    edges: list[int]
    firsts: list[int]  # the first packet of each, in the batch
    opens: list[bool]  # with SYN
    answered: list[bool]  # with SYN-ACK
    halves: tuple[Half, Half]
    first_times_ns: list[int]
    last_times_ns: list[int]
    last_frames: list[int]
    bursts: list[int]  # more than the first
    frames: bytes  # their numbers, eight octets for each of `packets`


class _Sides(NamedTuple):
    """The packets of all conversations one after the other. Shape: an entry for each packet, `starts` for each
    conversation; `advance` is by how much a packet moves its side's sequence number on."""

    packets: Integers
    starts: Integers
    owner: Integers  # which conversation
    of_first: Marks
    flags: Integers
    payload: Integers
    advance: Integers


def brief_conversations(batch: Columns, headers: Headers, start: int, end: int) -> Brief | None:
    """Those in a stretch without unusual frames; None where there are not enough of them."""
    inside = np.flatnonzero(headers.protocol[start:end] == TCP) + start
    if len(inside) < FEWEST_CONVERSATIONS * FEWEST_PACKETS:
        return None
    inside = inside[np.argsort(headers.conversations[inside], kind="stable")]
    numbers = headers.conversations[inside]
    starts = np.flatnonzero(np.concatenate(([True], numbers[1:] != numbers[:-1])))
    counts = np.diff(np.append(starts, len(inside)))
    fitting = (counts >= FEWEST_PACKETS) & (counts <= MOST_PACKETS)
    for judge in (None, _follow_each_other):
        if judge is not None:
            fitting = judge(batch, headers, _sides(headers, inside, starts, counts))
        if int(fitting.sum()) < FEWEST_CONVERSATIONS:
            return None
        inside, starts, counts = _only(inside, counts, fitting)
    order = np.argsort(inside[starts])
    inside, starts, counts = _reordered(inside, starts, counts, order)
    return _sum_up(batch, headers, _sides(headers, inside, starts, counts))


def _only(packets: Integers, counts: Integers, fitting: Marks) -> tuple[Integers, Integers, Integers]:
    counts, packets = counts[fitting], packets[np.repeat(fitting, counts)]
    return packets, np.cumsum(counts) - counts, counts


def _reordered(
    packets: Integers, starts: Integers, counts: Integers, order: Integers
) -> tuple[Integers, Integers, Integers]:
    counts, moved = counts[order], starts[order]
    begins = np.cumsum(counts) - counts
    return packets[np.arange(len(packets)) + np.repeat(moved - begins, counts)], begins, counts


def _sides(headers: Headers, packets: Integers, starts: Integers, counts: Integers) -> _Sides:
    owner = np.repeat(np.arange(len(starts)), counts)
    senders = headers.senders[packets]
    flags, payload = headers.flags[packets].astype(np.int64), headers.payload[packets]
    advance = payload + (flags & FIN) + (flags >> 1 & 1)  # FIN and SYN count as an octet each
    return _Sides(packets, starts, owner, senders == senders[starts][owner], flags, payload, advance)


def _before(sides: _Sides, values: Integers) -> Integers:
    """For each packet, the sum over the former packets of its side in its conversation."""
    first = np.where(sides.of_first, values, 0)
    sums = []
    for own in (first, values - first):
        total = np.cumsum(own) - own
        sums.append(total - total[sides.starts][sides.owner])
    found: Integers = np.where(sides.of_first, sums[0], sums[1])
    return found


def _first_of_other(sides: _Sides) -> Integers:
    """For each conversation, its first packet of the other side, as an index into `sides`; -1 if there is none."""
    many = len(sides.packets)
    found = np.minimum.reduceat(np.where(sides.of_first, many, np.arange(many)), sides.starts)
    first: Integers = np.where(found == many, -1, found)
    return first


def _follow_each_other(batch: Columns, headers: Headers, sides: _Sides) -> Marks:
    """Which conversations are as nearly all are."""
    at = np.arange(len(sides.packets))
    begin, other = sides.starts[sides.owner], _first_of_other(sides)[sides.owner]
    sequence = headers.sequence[sides.packets]
    expected = np.where(sides.of_first, sequence[begin], sequence[other]) + _before(sides, sides.advance)
    strange = (sides.advance > 0) & (sequence != expected & SEQUENCE_MASK)
    strange |= ~headers.regular[sides.packets] | (sides.flags & RST > 0)
    fin = sides.flags & FIN
    strange |= (sides.advance > 0) & (_before(sides, fin) > 0)
    asks = sides.flags & (SYN | ACK) == SYN
    opens = (asks & (at == begin)) | ((sides.flags & (SYN | ACK) == SYN | ACK) & (at == other) & asks[begin])
    strange |= (sides.flags & SYN > 0) & (~opens | (sides.advance != 1))
    times_ns = batch.times_ns[sides.packets]
    strange[1:] |= (times_ns[1:] < times_ns[:-1]) & (sides.owner[1:] == sides.owner[:-1])
    strange |= headers.strangers(sides.packets, sides.packets[begin], sides.of_first)
    fitting: Marks = ~np.logical_or.reduceat(strange, sides.starts)
    return fitting


def _sum_up(batch: Columns, headers: Headers, sides: _Sides) -> Brief:
    frames, times_ns = batch.first + sides.packets, batch.times_ns[sides.packets]
    ends = np.append(sides.starts[1:], len(sides.packets)) - 1
    opens = sides.flags[sides.starts] & SYN > 0
    other = _first_of_other(sides)
    pauses = np.diff(times_ns, prepend=times_ns[:1]) > BURST_PAUSE_NS
    pauses[sides.starts] = False
    offsets = _before(sides, sides.payload)
    columns = (offsets, frames, times_ns, batch.position + headers.payload_at[sides.packets])
    sequence = headers.sequence[sides.packets]
    octets = batch.octets[sides.packets]
    halves = tuple(
        _half(sides, own, octets, sequence[begin], columns)
        for own, begin in ((sides.of_first, sides.starts), (~sides.of_first, other))
    )
    return Brief(
        sides.packets,
        [*sides.starts.tolist(), len(sides.packets)],
        sides.packets[sides.starts].tolist(),
        opens.tolist(),
        ((other >= 0) & (sides.flags[other] & SYN > 0)).tolist(),
        (halves[0], halves[1]),
        times_ns[sides.starts].tolist(),
        times_ns[ends].tolist(),
        frames[ends].tolist(),
        np.add.reduceat(pauses.astype(np.int64), sides.starts).tolist(),
        frames.tobytes(),
    )


def _half(sides: _Sides, own: Marks, octets: Integers, begins: Integers, columns: tuple[Integers, ...]) -> Half:
    carrying = own & (sides.payload > 0)
    where = np.flatnonzero(carrying)
    fin = np.where(own & (sides.flags & FIN > 0), np.arange(len(own)), -1)
    fins = np.maximum.reduceat(fin, sides.starts)
    _, frames, times_ns, _ = columns

    def sums(values: Integers) -> list[int]:
        found: list[int] = np.add.reduceat(values, sides.starts).tolist()
        return found

    return Half(
        sums(own.astype(np.int64)),
        sums(np.where(own, octets, 0)),
        sums(np.where(own, sides.payload, 0)),
        begins.tolist(),
        np.where(fins >= 0, frames[fins], 0).tolist(),
        times_ns[fins].tolist(),
        [0, *np.cumsum(np.add.reduceat(carrying.astype(np.int64), sides.starts)).tolist()],
        *(column[where].tobytes() for column in columns),
    )


class BriefPath:
    """Enters the conversations of one stretch into their flows, each when `take` is told to.

    `open` gives the side that sends a SYN if it begins a new conversation; `one_by_one` takes packets in the other way.
    """

    __slots__ = ("_batch", "_brief", "_headers", "_key_ends", "_keys", "_limits", "_one_by_one", "_open", "_table")

    def __init__(
        self,
        batch: Columns,
        headers: Headers,
        brief: Brief,
        table: FlowTable,
        limits: Limits,
        open_flow: Callable[[Frame, int], Side | None],
        one_by_one: Callable[[Columns, Headers, Integers], None],
    ) -> None:
        self._batch, self._headers, self._brief = batch, headers, brief
        self._table, self._limits = table, limits
        self._open, self._one_by_one = open_flow, one_by_one
        begins, ends = headers.ends_at(np.array(brief.firsts, np.int64))
        self._keys, self._key_ends = begins.tolist(), ends.tolist()

    def take(self, which: int) -> None:
        side = self._side(which)
        if side is None:
            brief = self._brief
            packets = brief.packets[brief.edges[which] : brief.edges[which + 1]]
            self._one_by_one(self._batch, self._headers, packets)
            return
        flow = side.flow
        one, other = self._brief.halves
        _enter(which, one, side, self._brief.opens[which])
        if other.packets[which]:
            _enter(which, other, side.peer, self._brief.answered[which])
        self._enter_times(which, flow)
        for own in (side, side.peer):
            if own.recorder.size > own.recorder.asked_at:
                self._table.skim(own)

    def _side(self, which: int) -> Side | None:
        """Of who is heard first; None if it is for the other way."""
        brief = self._brief
        one, other = brief.halves
        if brief.opens[which]:
            unanswered = not brief.answered[which] and (other.payload[which] or other.fin_frames[which])
            return self._opened(which) if not unanswered and self._has_room(which) else None
        side = self._table.find(self._batch.buffer[self._keys[which] : self._key_ends[which]] + TCP_TAIL)
        if side is None or brief.first_times_ns[which] < side.flow.ended_ns or not self._has_room(which):
            return None
        goes_on = _goes_on(which, one, side, False) and _goes_on(which, other, side.peer, brief.answered[which])
        return side if goes_on else None

    def _opened(self, which: int) -> Side | None:
        batch, first = self._batch, self._brief.firsts[which]
        at, time_ns = int(batch.data_at[first]), self._brief.first_times_ns[which]
        data = batch.buffer[at : at + int(batch.captured[first])]
        frame = Frame(batch.first + first, time_ns, int(batch.link_types[first]), data, len(data), 0)
        return self._open(frame, batch.position + at)

    def _has_room(self, which: int) -> bool:
        """Whether a stream that begins keeps all of it. What all streams together may keep is `BulkPath`'s to ask."""
        one, other = self._brief.halves
        return max(one.payload[which], other.payload[which]) <= self._limits.stream_octets

    def _enter_times(self, which: int, flow: FlowState) -> None:
        brief = self._brief
        flow.bursts += brief.bursts[which] + (brief.first_times_ns[which] - flow.ended_ns > BURST_PAUSE_NS)
        flow.ended_ns, flow.last_frame = brief.last_times_ns[which], brief.last_frames[which]
        room = self._limits.frames_per_sighting - len(flow.frames)
        begin, end = brief.edges[which], brief.edges[which + 1]
        if room > 0:
            flow.frames.frombytes(brief.frames[8 * begin : 8 * min(end, begin + room)])


def _goes_on(which: int, half: Half, side: Side, is_syn: bool) -> bool:
    """Whether the side's stream is where the half begins, and keeps whatever comes."""
    reassembly, recorder = side.reassembly, side.recorder
    if reassembly is None or recorder.truncated or recorder.skips:
        return False
    if recorder.size + recorder.passed + half.payload[which] > recorder.limit_octets:
        return False
    if is_syn:
        return reassembly.position is None
    if not half.payload[which] and not half.fin_frames[which]:
        return True
    return reassembly.is_in_order and reassembly.expected & SEQUENCE_MASK == half.begins[which]


def _enter(which: int, half: Half, side: Side, is_syn: bool) -> None:
    """Count and record what one side sends."""
    payload, reassembly = half.payload[which], side.reassembly
    side.packets += half.packets[which]
    side.octets += half.octets[which]
    side.payload_octets += payload
    if reassembly is None:
        return
    if is_syn:
        reassembly.syn(half.begins[which])
    if payload:
        reassembly.advance(payload)
        begin, end = 8 * half.pieces[which], 8 * half.pieces[which + 1]
        recorder, offsets = side.recorder, half.offsets[begin:end]
        if recorder.size:
            offsets = (np.frombuffer(offsets, np.int64) + recorder.size).tobytes()
        columns = (half.frames[begin:end], half.times_ns[begin:end], half.positions[begin:end])
        recorder.append_all(offsets, *columns, recorder.size + payload)
    if half.fin_frames[which]:
        reassembly.end(half.fin_frames[which], half.fin_times_ns[which])
        peer = side.peer.reassembly
        if peer is not None and peer.fin_position is not None:
            side.flow.closed = True

"""Ordinary packets by the thousand: what most of a large capture consists of, a conversation at a time, with numpy.

    batch of frames -> headers as columns -> short conversations; runs of ordinary packets of one conversation
        a short conversation, where it begins           at once: `brief` has summed it up
        a run, where its first packet stands            at once, as long as octets follow octets
        every other packet, in the order of the file    one at a time, by `QuickPath` or `observe`

Ordinary is TCP without SYN, FIN or RST, and UDP in a flow of which no datagram can tell anything new. Packets of one
conversation never overtake each other: a run ends where another of its packets stands, and a frame that could belong
to any conversation in an unusual way (a fragment, a VLAN tag, an option of IP) ends all runs. So the answers are those
of one packet after the other; tests compare them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, Protocol

import numpy as np

from testbed.capture.columns import Columns, Integers
from testbed.capture.reader import CaptureReader, Frame
from testbed.observer.brief import BriefPath, brief_conversations
from testbed.observer.flows import BURST_PAUSE_NS, FlowState, Side
from testbed.observer.headers import TCP, UDP, Headers, read_headers
from testbed.observer.model import Limits
from testbed.observer.quick import QuickPath
from testbed.observer.streams import PIECE_COST_OCTETS, SEQUENCE_MASK, Recorder
from testbed.observer.table import FlowTable

FEWEST_AT_ONCE = 16  # packets of a conversation in a batch: below it is quicker to take them one at a time
MOST_AT_ONCE = 4096  # so that a run that breaks again and again is not looked at to its end each time
MOST_CUTS = 32  # unusual frames in a batch: with more of them everything is taken one at a time
TCP_TAIL, UDP_TAIL = bytes((TCP,)), bytes((UDP,))
LAST = 1 << 64  # frame
LATEST_NS = 1 << 62  # beyond it times are no longer computed with in columns

_Several = tuple[int, Callable[[Any], None], Any]  # first frame, what takes it and all that belong to it, and which


class Thorough(Protocol):
    """What takes the packets that one has to look at, as `observe` does."""

    def add(self, frame: Frame, position: int) -> None: ...
    def open_tcp(self, frame: Frame, position: int) -> Side | None: ...
    def add_datagram(
        self, key: bytes, payload: bytes, number: int, time_ns: int, octets: int, position: int
    ) -> int: ...
    def add_carried(self, key: bytes, frame: Frame, inner_at: int, position: int) -> None: ...


class BulkPath:
    """Takes batches into the flows of `table`, what is unusual through `quick` or `thorough`."""

    def __init__(self, thorough: Thorough, table: FlowTable, limits: Limits, quick: QuickPath) -> None:
        self._table = table
        self._limits = limits
        self._quick = quick
        self._thorough = thorough
        self.octets = 0
        self.captured_octets = 0
        self.cut_packets = 0
        self.last_time_ns = 0

    def take_all(self, reader: CaptureReader) -> None:
        """Every frame, in the order of the file."""
        for batch in reader.batches():
            if isinstance(batch, Frame):
                self.octets += batch.octets
                self.captured_octets += len(batch.data)
                self.cut_packets += batch.octets > len(batch.data)
                self.last_time_ns = batch.time_ns
                self._one(batch, reader.position)
            else:
                self.octets += int(batch.octets.sum())
                self.captured_octets += int(batch.captured.sum())
                self.cut_packets += int((batch.octets > batch.captured).sum())
                self.last_time_ns = int(batch.times_ns[-1])
                self._batch(batch)

    def _one(self, frame: Frame, position: int) -> None:
        if not self._quick.take(frame, position):
            self._thorough.add(frame, position)

    def _batch(self, batch: Columns) -> None:
        headers = read_headers(batch)
        count = len(batch.data_at)
        cuts = np.flatnonzero(headers.unusual)
        if len(cuts) > MOST_CUTS:
            self._one_by_one(batch, headers, np.arange(count))
            return
        start = 0
        for cut in (*cuts.tolist(), count):
            self._stretch(batch, headers, start, cut)
            self._one_by_one(batch, headers, np.arange(cut, min(cut + 1, count)))
            start = cut + 1

    def _one_by_one(self, batch: Columns, headers: Headers, chosen: Integers) -> None:
        """The chosen frames in their order; of an ordinary segment no more is read than was read already."""
        self._in_turn(batch, headers, chosen, ())

    def _in_turn(self, batch: Columns, headers: Headers, chosen: Integers, several: Sequence[_Several]) -> None:
        """The chosen frames in their order, and what is taken at once where its first packet stands between them."""
        columns = (batch.data_at, batch.captured, batch.octets, batch.times_ns, batch.link_types, batch.interfaces)
        header_columns = (headers.sequence, headers.payload_at, headers.payload)
        ordinary = np.where(headers.ordinary[chosen], headers.protocol[chosen], 0).tolist()
        rows = zip(
            (chosen + batch.first).tolist(),
            ordinary,
            *(column[chosen].tolist() for column in (*columns, *header_columns)),
            *(column.tolist() for column in headers.ends_at(chosen)),
            strict=True,
        )
        buffer, base, enter, new = batch.buffer, batch.position, self._quick.enter, tuple.__new__
        take, add, add_datagram = self._quick.take, self._thorough.add, self._thorough.add_datagram
        waiting = iter(several)
        at_once = next(waiting, None)
        begin = at_once[0] if at_once is not None else LAST
        for (
            number,
            protocol,
            at,
            captured,
            octets,
            time_ns,
            link,
            interface,
            sequence,
            start,
            length,
            key,
            key_end,
        ) in rows:
            while begin < number and at_once is not None:
                at_once[1](at_once[2])
                at_once = next(waiting, None)
                begin = at_once[0] if at_once is not None else LAST
            if protocol == TCP and enter(
                buffer[key:key_end] + TCP_TAIL, sequence, buffer, start, start + length, number, time_ns, octets, base
            ):
                continue
            inner_at = -1
            if protocol == UDP:
                ends = buffer[key:key_end] + UDP_TAIL
                inner_at = add_datagram(ends, buffer[start : start + length], number, time_ns, octets, base + start)
                if inner_at < 0:
                    continue
            data = buffer[at : at + captured]
            frame = new(Frame, (number, time_ns, link, data, octets, interface))
            if inner_at >= 0:
                self._thorough.add_carried(ends, frame, start - at + inner_at, base + at)
            elif not take(frame, base + at):
                add(frame, base + at)
        while at_once is not None:
            at_once[1](at_once[2])
            at_once = next(waiting, None)

    def _stretch(self, batch: Columns, headers: Headers, start: int, end: int) -> None:
        """Frames of which none is unusual: what can be taken at once where its first one stands, the rest between."""
        left = np.ones(end - start, np.bool_)
        several: list[_Several] = []
        budget = self._table.budget
        scarce = budget.octets < PIECE_COST_OCTETS * (end - start)  # then it matters who comes first
        held = budget.holds(batch.position)
        brief = brief_conversations(batch, headers, start, end) if not held and not scarce else None
        if brief is not None:
            left[brief.packets - start] = False
            taken = BriefPath(
                batch, headers, brief, self._table, self._limits, self._thorough.open_tcp, self._one_by_one
            )
            several += [(batch.first + first, taken.take, which) for which, first in enumerate(brief.firsts)]
        for run in _runs(headers, start + np.flatnonzero(left)):
            if self._worth_a_try(headers, run):
                left[run - start] = False
                several.append((batch.first + int(run[0]), partial(self._run, batch, headers), run))
        several.sort(key=itemgetter(0))
        self._in_turn(batch, headers, np.flatnonzero(left) + start, several)

    def _worth_a_try(self, headers: Headers, run: Integers) -> bool:
        """Datagrams are dissected in the order of the file unless their flow is known to have nothing more to tell."""
        if headers.protocol[run[0]] == TCP:
            return True
        side = self._table.find(headers.key(int(run[0])))
        return side is not None and side.flow.settled

    def _run(self, batch: Columns, headers: Headers, run: Integers) -> None:
        """Ordinary packets of one conversation: as many at once as follow each other, then some one by one."""
        alone = FEWEST_AT_ONCE
        while len(run):
            taken = self._take_first(batch, headers, run[:MOST_AT_ONCE])
            if taken:
                alone = FEWEST_AT_ONCE
            else:
                taken = min(alone, len(run))
                self._one_by_one(batch, headers, run[:taken])
                alone *= 2
            run = run[taken:]

    def _take_first(self, batch: Columns, headers: Headers, run: Integers) -> int:
        """Take as many of the first packets of a conversation as can be taken at once; returns how many."""
        of_first = headers.senders[run] == headers.senders[run[0]]
        sides = [packets for packets in (run[of_first], run[~of_first]) if len(packets)]
        fitting = min(self._fitting(headers, packets) for packets in sides)
        run = run[run < fitting]
        if len(run) < FEWEST_AT_ONCE:
            return 0
        flow = None
        for packets in (side[side < fitting] for side in sides):
            if len(packets):
                flow = self._enter(batch, headers, packets)
        if flow is not None:
            self._enter_times(flow, batch.first + run, batch.times_ns[run])
        return len(run)

    def _fitting(self, headers: Headers, packets: Integers) -> int:
        """The first frame that is not of one flow with the others, or whose octets do not follow; else one beyond."""
        strange = headers.differing(packets)
        side = self._table.find(headers.key(int(packets[0])))
        if side is None or side.flow.ended_ns >= LATEST_NS:
            return 0
        if side.reassembly is None:
            return int(packets[strange.argmax()]) if strange.any() else len(headers.sequence)
        lengths = headers.payload[packets]
        carrying = lengths > 0
        if side.reassembly.is_in_order:
            expected = side.reassembly.expected + np.cumsum(lengths) - lengths
            strange |= carrying & (headers.sequence[packets] != expected & SEQUENCE_MASK)
        else:
            strange |= carrying
        return int(packets[strange.argmax()]) if strange.any() else len(headers.sequence)

    def _enter(self, batch: Columns, headers: Headers, packets: Integers) -> FlowState | None:
        """Count and record what one side sends; returns its flow."""
        side = self._table.find(headers.key(int(packets[0])))
        if side is None:
            return None
        lengths = headers.payload[packets]
        carrying = packets[lengths > 0]
        octets = int(lengths.sum())
        side.packets += len(packets)
        side.octets += int(batch.octets[packets].sum())
        side.payload_octets += octets
        if not len(carrying):
            return side.flow
        if side.reassembly is not None:
            side.reassembly.advance(octets)
        self._record(side, batch, headers, carrying)
        return side.flow

    def _record(self, side: Side, batch: Columns, headers: Headers, carrying: Integers) -> None:
        if side.reassembly is None and not (self._table.keeps_streams or side.may_be_dtls):
            return
        recorder = side.own_recorder()
        if recorder.skips:
            _pass_over(recorder, headers, carrying)
        elif recorder.budget.holds(batch.position):
            _record_each(recorder, batch, headers, carrying)
        else:
            _record(recorder, batch, headers, carrying)
        if recorder.size > recorder.asked_at:
            self._table.skim(side)

    def _enter_times(self, flow: FlowState, frames: Integers, times_ns: Integers) -> None:
        """Count the bursts as `flows.count` does, against the latest time before each packet."""
        latest = np.maximum.accumulate(np.concatenate(([flow.ended_ns], times_ns)))
        flow.bursts += int((times_ns - latest[:-1] > BURST_PAUSE_NS).sum())
        flow.ended_ns = int(latest[-1])
        flow.last_frame = int(frames[-1])
        room = self._limits.frames_per_sighting - len(flow.frames)
        if room > 0:
            flow.frames.frombytes(frames[:room].tobytes())


def _runs(headers: Headers, inside: Integers) -> Iterator[Integers]:
    """The ordinary packets of each conversation, in order, broken where another of its packets is between them."""
    inside = inside[headers.protocol[inside] > 0]
    if not len(inside):
        return
    inside = inside[np.argsort(headers.conversations[inside], kind="stable")]
    numbers, ordinary = headers.conversations[inside], headers.ordinary[inside]
    breaks = (numbers[1:] != numbers[:-1]) | (ordinary[1:] != ordinary[:-1])
    edges = np.concatenate(([0], np.flatnonzero(breaks) + 1, [len(inside)]))
    enough = (np.diff(edges) >= FEWEST_AT_ONCE) & ordinary[edges[:-1]]
    for which in np.flatnonzero(enough).tolist():
        yield inside[edges[which] : edges[which + 1]]


def _pass_over(recorder: Recorder, headers: Headers, carrying: Integers) -> None:
    """Count what nobody could read, as far as the limit goes."""
    if not recorder.truncated:
        passed = np.cumsum(headers.payload[carrying])
        room = recorder.limit_octets - recorder.size - recorder.passed
        fitting = int(np.searchsorted(passed, room, "right"))
        recorder.passed += int(passed[fitting - 1]) if fitting else 0
        recorder.truncated = fitting < len(carrying)


def _record(recorder: Recorder, batch: Columns, headers: Headers, carrying: Integers) -> None:
    """Where the octets stand in the file, as far as the recorder has room."""
    lengths = headers.payload[carrying]
    ends = recorder.size + np.cumsum(lengths)
    fitting = min(int(np.searchsorted(ends, recorder.limit_octets - recorder.passed, "right")), recorder.room())
    carried, ended = carrying[:fitting], ends[:fitting]
    if fitting:
        recorder.append_all(
            (ended - lengths[:fitting]).tobytes(),
            (batch.first + carried).tobytes(),
            batch.times_ns[carried].tobytes(),
            (batch.position + headers.payload_at[carried]).tobytes(),
            int(ended[-1]),
        )
    if fitting < len(carrying):
        recorder.truncated = True


def _record_each(recorder: Recorder, batch: Columns, headers: Headers, carrying: Integers) -> None:
    """The octets themselves, for they stand in no file."""
    columns = (headers.payload_at[carrying], headers.payload[carrying], batch.times_ns[carrying])
    rows = zip((batch.first + carrying).tolist(), *(column.tolist() for column in columns), strict=True)
    for frame, at, length, time_ns in rows:
        recorder.append(batch.buffer[at : at + length], frame, frame, time_ns)

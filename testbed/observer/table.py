"""Which conversation a packet belongs to, in memory that hardly grows with their number.

A conversation is found by the octets of its addresses, protocol and ports; both directions are entered in one table,
each as the `Side` that sends. So many as `Limits.awake_flows` are held ready for packets; when there are more, the half
that has been silent longest goes to rest, as a row of octets. A packet to one that rests wakes it, and it goes on
as if nothing had been: what is told never depends on who rested when.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from testbed.observer import rows
from testbed.observer.flows import PROTOCOL_NAMES, TCP, FlowState, Side
from testbed.observer.glance import SKIMMED_OCTETS, skim
from testbed.observer.model import Endpoint, Limits
from testbed.observer.rows import Odd, Summary, Words
from testbed.observer.streams import NEVER_ASKED, Budget, Reassembly, Recorder

EMPTY, FEWEST_SLOTS = 0, 1024
COMPARED = frozenset(("tinc", "dtls"))  # with other conversations, in the end


@dataclass(slots=True)
class RestingIndex:
    """Rows by key: numbers in a table with open addresses, of which at most half is used.

    Shape: 0 is empty, else one more than the row's number; rows are looked at in `flows`, which has awake ones too
    """

    flows: list[FlowState | bytes]
    slots: array[int] = field(default_factory=lambda: array("I", bytes(4 * FEWEST_SLOTS)))
    used: int = 0

    def add(self, index: int, keys: tuple[bytes, bytes]) -> None:
        if 2 * self.used >= len(self.slots):
            self._grow()
        self._enter(index, min(keys))
        self.used += 1

    def find(self, keys: tuple[bytes, bytes]) -> int:
        """The number of the conversation that rests there, or -1."""
        slots, mask = self.slots, len(self.slots) - 1
        at = hash(min(keys)) & mask
        while slots[at]:
            row = self.flows[slots[at] - 1]
            if isinstance(row, bytes) and rows.key_of(row) in keys and not rows.is_forgotten(row):
                return slots[at] - 1
            at = (at + 1) & mask
        return -1

    def _enter(self, index: int, key: bytes) -> None:
        slots, mask = self.slots, len(self.slots) - 1
        at = hash(key) & mask
        while slots[at]:
            at = (at + 1) & mask
        slots[at] = index + 1

    def _grow(self) -> None:
        known = [slot - 1 for slot in self.slots if slot]
        self.slots = array("I", bytes(8 * len(self.slots)))
        for index in known:
            flow = self.flows[index]
            self._enter(index, min(flow.keys) if isinstance(flow, FlowState) else min(rows.keys_of(flow)))


class FlowTable:
    """Shape: `flows` has every conversation by its number, awake or as a row; `keeps_streams` is whether they are asked
    for in the end: else what can tell a dissector nothing is not even noted."""

    __slots__ = (
        "_awake",
        "_index",
        "_shared",
        "_sides",
        "budget",
        "flows",
        "has_layers",
        "keeps_streams",
        "limits",
        "odd",
        "words",
    )

    def __init__(self, limits: Limits, budget: Budget, keeps_streams: bool = True) -> None:
        self.limits = limits
        self.budget = budget
        self.keeps_streams = keeps_streams
        self.has_layers = False  # whether any conversation was found inside another
        self.flows: list[FlowState | bytes] = []
        self.words, self.odd = Words(), dict[int, Odd]()
        self._sides: dict[bytes, Side] = {}
        self._awake: list[FlowState] = []
        self._index = RestingIndex(self.flows)
        self._shared = Recorder(limits.stream_octets, budget)

    def find(self, key: bytes) -> Side | None:
        """The side that sends such packets, if its conversation is awake."""
        return self._sides.get(key)

    def wake(self, keys: tuple[bytes, bytes]) -> Side | None:
        """The side that sends packets of the first of the keys, if its conversation rests: now it is awake."""
        index = self._index.find(keys) if self._index.used else -1
        if index < 0:
            return None
        self._make_room()
        flow = self.flows[index] = self.state(index)
        self._awake.append(flow)
        one = flow.client if flow.client.sent_first else flow.server
        self._enter(flow.keys, one)
        return self._sides[keys[0]]

    def forget(self, keys: tuple[bytes, bytes]) -> None:
        """The ports are used again for another conversation."""
        for key in keys:
            side = self._sides.pop(key, None)
            if side is not None:
                side.flow.forgotten = True

    def forget_closed(self, keys: tuple[bytes, bytes]) -> bool:
        """Whether one that is over rested there: it need not wake to learn that its ports are used again."""
        index = self._index.find(keys) if self._index.used else -1
        row = self.flows[index] if index >= 0 else None
        if not isinstance(row, bytes) or not rows.is_closed(row):
            return False
        self.flows[index] = rows.forgotten(row)
        return True

    @property
    def full(self) -> bool:
        return len(self.flows) >= self.limits.flows

    def open(
        self,
        keys: tuple[bytes, bytes],
        protocol: int,
        sender: Endpoint,
        receiver: Endpoint,
        sender_is_client: bool,
        frame: int,
        time_ns: int,
    ) -> Side:
        if len(self._awake) >= self.limits.awake_flows:
            self._make_room()
        one, other = self._side(sender, protocol), self._side(receiver, protocol)
        client, server = (one, other) if sender_is_client else (other, one)
        name = PROTOCOL_NAMES.get(protocol) or str(protocol)
        flow = FlowState(len(self.flows), keys, name, client, server, frame, time_ns, frame, time_ns)
        flow.join(sender_is_client)
        self.flows.append(flow)
        self._awake.append(flow)
        self._enter(keys, one)
        return one

    def _enter(self, keys: tuple[bytes, bytes], one: Side) -> None:
        self._sides[keys[0]] = one
        self._sides.setdefault(keys[1], one.peer)  # the same key where a host talks to itself

    def _side(self, endpoint: Endpoint, protocol: int) -> Side:
        if protocol != TCP:
            return Side(endpoint, self._shared, None, True)
        limits = self.limits
        asked_at = NEVER_ASKED if self.keeps_streams else SKIMMED_OCTETS
        recorder = Recorder(limits.stream_octets, self.budget, asked_at)
        return Side(endpoint, recorder, Reassembly(recorder, limits.out_of_order_octets), False)

    def skim(self, side: Side) -> None:
        """A stream has become so long that one has to ask whether to keep more of it."""
        skim(side.flow, side)

    def state(self, index: int) -> FlowState:
        """A conversation as it is, or was when it went to rest; it does not wake."""
        flow = self.flows[index]
        return flow if isinstance(flow, FlowState) else rows.unpack_flow(index, flow, self.words, self.odd, self._side)

    def states(self) -> Iterator[FlowState]:
        for index in range(len(self.flows)):
            yield self.state(index)

    def summary(self, index: int) -> Summary:
        flow = self.flows[index]
        return rows.summary_of(flow) if isinstance(flow, FlowState) else rows.summarise(flow, self.words)

    def fragments(self, index: int) -> Sequence[int]:
        """Of a conversation, the frames with pieces of datagrams but the last ones."""
        flow = self.flows[index]
        if isinstance(flow, bytes):
            rare = self.odd.get(index) if self.odd else None
            return (rare.fragments if rare else None) or ()
        return flow.fragments or ()

    def _make_room(self) -> None:
        """Let the half that has been silent longest rest, if too many are awake."""
        if len(self._awake) < self.limits.awake_flows:
            return
        self._awake.sort(key=_last_frame)
        half = max(len(self._awake) // 2, 1)
        resting, self._awake = self._awake[:half], self._awake[half:]
        for flow in resting:
            self._rest(flow)

    def _rest(self, flow: FlowState) -> None:
        was_indexed, flow.indexed = flow.indexed, flow.indexed or not flow.forgotten
        try:
            row = rows.pack_flow(flow, self.words, self.odd, with_streams=True)
        except rows.CannotPack:  # numbers beyond all measure, which a capture may hold: it stays awake
            flow.indexed = was_indexed
            return
        if not flow.forgotten:
            for key in flow.keys:
                self._sides.pop(key, None)
        if flow.indexed and not was_indexed:
            self._index.add(flow.index, flow.keys)
        self.flows[flow.index] = row
        flow.dissolve()

    def fold(self, flow: FlowState) -> None:
        """Nothing more will come or be asked of it but what a summary says."""
        flow.detectors = flow.suspicion = flow.carries = flow.dissector = None
        try:
            row: FlowState | bytes = rows.pack_flow(flow, self.words, self.odd, with_streams=False)
        except rows.CannotPack:
            row = flow
        self.flows[flow.index] = row
        flow.dissolve()

    def fold_datagrams(self, index: int) -> bool:
        """Fold without waking it what rests and of which nothing is left to ask; nothing done if it may not be so."""
        row = self.flows[index]
        if self.keeps_streams or not isinstance(row, bytes):
            return False
        octets = rows.most_datagram_octets(row)
        if not 0 <= octets <= self.limits.stream_octets or rows.application_of(row, self.words) in COMPARED:
            return False
        self.flows[index] = rows.without_streams(row)
        return True

    def close(self) -> None:
        """No packet comes any more: nothing needs to be found, and the capture file not be held open."""
        self._sides.clear()
        self._awake.clear()


def _last_frame(flow: FlowState) -> int:
    return flow.last_frame

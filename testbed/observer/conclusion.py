"""When the capture is over: every TCP conversation is dissected, then what several of them tell together.

One conversation after the other is looked at and put to rest for good, so that not all of them need room at once; only
those of which more is asked stay awake until the end, and all of them where their streams are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

from testbed.observer.dissect import dissect_tcp
from testbed.observer.findings import Findings
from testbed.observer.flows import PROTOCOL_NAMES, FlowState, Side
from testbed.observer.glance import limit_dissection
from testbed.observer.model import Direction, Limits, Stream
from testbed.observer.streams import Recorded, Recorder
from testbed.observer.table import FlowTable
from testbed.observer.tunnels.detect import conclude
from testbed.observer.tunnels.related import Related

RECORDED = frozenset(PROTOCOL_NAMES.values())


@dataclass(slots=True)
class Conclusion:
    """Shape: `draw` once, then `streams`."""

    table: FlowTable
    findings: Findings
    limits: Limits
    keep_streams: bool
    is_cut: bool = False  # whether a stream was longer than the limit

    def draw(self) -> None:
        """Dissect every TCP conversation in turn, and let all rest of which no more than a summary will be asked."""
        table, related = self.table, Related(self.findings.saw_dtls)
        held: list[FlowState] = []
        for index in range(len(table.flows)):
            if not related.tinc and table.fold_datagrams(index):
                continue
            flow = table.state(index)
            if flow.protocol == "tcp":
                self._finish_tcp(flow)
            elif flow.dissector is not None:
                from testbed.observer.sights.quic import sight_unfinished_quic

                sight_unfinished_quic(flow, self.findings)
            related.note(flow)
            self.is_cut = self.is_cut or any(self._is_cut(side) for side, _ in flow.sides)
            if self.keep_streams or flow.suspicion is not None or related.is_in_question(flow):
                held.append(flow)
                table.flows[flow.index] = flow
            else:
                table.fold(flow)
        if related.tinc and not self.keep_streams:
            again = [table.state(index) for index, row in enumerate(table.flows) if isinstance(row, bytes)]
            held = sorted((*held, *filter(related.is_in_question, again)), key=lambda flow: flow.index)
        conclude(held, related, self.findings)
        for flow in held if not self.keep_streams else ():
            table.fold(flow)

    def _is_cut(self, side: Side) -> bool:
        """Whether the limit for streams was reached, be they kept or not."""
        if side.reassembly is None and not self.keep_streams:
            return side.flow.protocol in RECORDED and side.payload_octets > self.limits.stream_octets
        return side.recorder.truncated

    def _finish_tcp(self, flow: FlowState) -> None:
        for side, _ in flow.sides:
            if side.reassembly is not None:
                side.reassembly.finish()
        limit_dissection(flow)
        dissect_tcp(flow, self.findings)
        for side, _ in flow.sides:
            side.recorder.release()

    def streams(self) -> tuple[Stream, ...]:
        """Those that were kept; then nothing but them holds the capture file open."""
        streams = []
        for flow in self.table.states() if self.keep_streams else ():
            for side, direction in flow.sides:
                if side.recorder.size or side.recorder.truncated:
                    streams.append(_stream(flow, side.recorder, direction))
            for side, body, frame in flow.decoded or ():
                direction = Direction.CLIENT_TO_SERVER if side.is_client else Direction.SERVER_TO_CLIENT
                streams.append(Stream(flow.index, direction, "http-body", body, (0,), (frame,)))
            self.table.fold(flow)
        return tuple(streams)


def _stream(flow: FlowState, recorder: Recorder, direction: Direction) -> Stream:
    return Stream(
        flow.index,
        direction,
        flow.protocol,
        Recorded(recorder),
        recorder.offsets,
        recorder.frames,
        tuple(recorder.gaps),
        recorder.truncated,
        recorder.times_ns,
    )

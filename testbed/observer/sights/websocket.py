"""What is said over WebSocket in clear: each message as text if it is some, and kept beside the streams for the search.

Wireshark shows the octets of one frame at a time; so a message is found by the octets that the wire carried first.
"""

from __future__ import annotations

from testbed.facts import Kind
from testbed.observer import filters, http
from testbed.observer.findings import Findings, as_text
from testbed.observer.flows import FlowState, Side
from testbed.observer.sights.text import is_text
from testbed.observer.streams import Run
from testbed.observer.wire import websocket

PROTOCOL = b"websocket"


def is_upgrade(message: http.HttpMessage) -> bool:
    return (message.header(b"upgrade") or b"").strip().lower() == PROTOCOL and message.status in (0, 101)


def dissect_websocket(flow: FlowState, side: Side, run: Run, findings: Findings) -> bool:
    """What one end says behind the upgrade. Returns whether it is WebSocket; a client's frames are masked."""
    first = next(websocket.read_frames(run.data), None)
    if first is None or first.masked != side.is_client:
        return False
    read = 0
    for message in websocket.read_messages(run.data, findings.decoding):
        _sight(flow, side, run, message, findings)
        read = message.frames[-1].end
    findings.note_decoding(flow.first_frame)
    if read < len(run.data):
        findings.limit("WebSocket frames cannot be read to their end", side.recorder.carrier(run.start + read))
    return True


def _sight(flow: FlowState, side: Side, run: Run, message: websocket.Message, findings: Findings) -> None:
    frame, time_ns = side.recorder.completed(run.start + message.frames[-1].end)
    if message.altered and message.data:
        flow.add_decoded(side, message.data, frame)
    if not is_text(message.data):
        return
    last = message.frames[-1]
    start = max(last.payload_at, last.end - filters.LONGEST_NEEDLE_OCTETS)
    (octets, _), *_ = reversed(side.recorder.pieces_between(run.start + start, run.start + last.end))
    ends = filters.between(flow.protocol, side.endpoint, side.peer.endpoint)
    display_filter = f"{ends} && tcp.srcport == {side.endpoint.port} && tcp.payload contains {filters.octets(octets)}"
    findings.sight(Kind.PAYLOAD, as_text(message.data), frame, time_ns, display_filter, "websocket")

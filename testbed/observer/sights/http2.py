"""HTTP/2 in clear: from its first octet (prior knowledge) or after an upgrade from HTTP/1.1 (h2c).

A body is sighted in the frame that brings its last octets, and found by those octets as the wire carries them:
Wireshark has no field that holds a decompressed body. Headers are compressed, so their text stands nowhere in the
octets: it is kept beside the streams, as decoded bodies are, to be searched.
"""

from __future__ import annotations

from testbed.facts import Kind
from testbed.observer import filters
from testbed.observer.findings import Findings, Place, as_text
from testbed.observer.flows import FlowState, Side
from testbed.observer.streams import Run
from testbed.observer.wire import http2

VIA = "http2"
TAIL_OCTETS = 200


def dissect_http2(flow: FlowState, client_runs: list[Run], server_runs: list[Run], findings: Findings) -> None:
    flow.application = VIA
    for side, runs in ((flow.client, client_runs), (flow.server, server_runs)):
        if len(runs) > 1:
            findings.warn("HTTP/2 behind a hole in its stream cannot be read", side.recorder.carrier(runs[1].start))
        for run in runs[:1]:
            preface = len(http2.PREFACE) if http2.has_preface(run.data) else 0
            direction = http2.parse_direction(run.data, preface, findings.decoding)
            findings.note_decoding(flow.first_frame)
            if direction.failed:
                frame, _ = side.recorder.completed(run.start + direction.end)
                findings.limit(f"HTTP/2 that makes no sense: {direction.failed}", frame)
            sighter = _Sighter(flow, side, run, findings)
            for message in direction.messages:
                sighter.message(message)
            for block in direction.pushed:
                sighter.block(block)


class _Sighter:
    """Enters the messages of one direction."""

    __slots__ = ("findings", "flow", "run", "side")

    def __init__(self, flow: FlowState, side: Side, run: Run, findings: Findings) -> None:
        self.flow, self.side, self.run, self.findings = flow, side, run, findings

    def message(self, message: http2.Message) -> None:
        for block in message.blocks:
            self.block(block)
        if message.body:
            self._body(message)

    def block(self, block: http2.HeaderBlock) -> None:
        """The headers of one message or trailer, of a request or a response."""
        place = Place(*self.side.recorder.completed(self.run.start + block.end))
        if block.value(b":method"):
            self._request(block, place)
        lines = []
        for name, value in block.fields:
            if name.startswith(b":"):
                continue
            lines.append(name + b": " + value)
            self._sight(Kind.HTTP_HEADER, as_text(lines[-1]), place, self._header_filter(block, name, value))
        text = b"\r\n".join([*(value for name, value in block.fields if name.startswith(b":")), *lines])
        self.flow.add_decoded(self.side, text, place.frame)

    def _request(self, block: http2.HeaderBlock, place: Place) -> None:
        host = block.value(b":authority") or block.value(b"host")
        if not host:
            return
        name = without_port(as_text(host)).lower()
        display_filter = self._header_filter(block, b":authority" if block.value(b":authority") else b"host", host)
        self._sight(Kind.HTTP_HOST, name, place, display_filter)
        self.findings.name(name, VIA, place.frame, display_filter)
        path = block.value(b":path")
        if path:
            url = as_text((block.value(b":scheme") or b"http") + b"://" + host + path)
            at_path = self._header_filter(block, b":path", path)
            self._sight(Kind.HTTP_URL, url, place, f"{at_path} && {display_filter}")

    def _body(self, message: http2.Message) -> None:
        end, last = message.pieces[-1]
        place = Place(*self.side.recorder.completed(self.run.start + end))
        display_filter = f"http2.data.data contains {filters.octets(last[-filters.LONGEST_NEEDLE_OCTETS :])}"
        if message.coded:  # of some codings Wireshark shows the octets as carried, of others as decoded, of others none
            behind = self.run.start + end
            (tail, _), *_ = reversed(self.side.recorder.pieces_between(behind - min(len(last), TAIL_OCTETS), behind))
            display_filter = f"tcp.payload contains {filters.octets(tail)}"
        self.findings.note_coding(message.body, place.frame)
        self._sight(Kind.HTTP_BODY, as_text(message.body), place, display_filter)
        if message.altered:
            self.flow.add_decoded(self.side, message.body, place.frame)

    def _header_filter(self, block: http2.HeaderBlock, name: bytes, value: bytes) -> str:
        if block.continued:  # Wireshark shows a header in whichever frame its last octet came
            ends = filters.between("tcp", self.side.endpoint, self.side.peer.endpoint)
            port = self.side.endpoint.port
            return f"{ends} && tcp.srcport == {port} && http2.streamid == {block.stream} && http2.type == 9"
        if value.isascii():
            term = filters.equals("http2.header.value", value)
        else:  # Wireshark shows other octets as something else
            term = f"http2.header.value contains {filters.quote(filters.longest_text(value))}"
        return f"{filters.equals('http2.header.name', name)} && {term}"

    def _sight(self, kind: Kind, value: str, place: Place, display_filter: str) -> None:
        self.findings.sight(kind, value, place.frame, place.time_ns, display_filter, VIA)


def without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].split("]", 1)[0]
    return host.rsplit(":", 1)[0] if host.count(":") == 1 else host

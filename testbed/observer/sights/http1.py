"""HTTP/1.1 in the streams of a conversation: hosts, addresses of pages, headers, bodies, with the packets they came in.

A frame number is where Wireshark shows the field: for a message that came in several segments, the frame that
completed it. A message the capture does not hold to its end has no such frame; it is sighted by its octets instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from testbed.facts import Kind
from testbed.observer import filters, http, tls
from testbed.observer.findings import Findings, Place, as_text
from testbed.observer.flows import FlowState, Side
from testbed.observer.sights.http2 import dissect_http2, without_port
from testbed.observer.sights.text import SHORTEST_TEXT_OCTETS, sight_stream_text
from testbed.observer.sights.tls import dissect_tls_run
from testbed.observer.sights.websocket import dissect_websocket, is_upgrade
from testbed.observer.streams import Run
from testbed.observer.wire import http2

TAIL_OCTETS = 200
SHORT_OCTETS = 256
_new = tuple.__new__  # of a named tuple, a third of the time that its class takes
ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?([^/?#@]+)")


def dissect_http(flow: FlowState, client_runs: list[Run], server_runs: list[Run], findings: Findings) -> None:
    """All messages of both directions; what follows them in another protocol is dissected as such."""
    limit, upgraded = findings.decoding, False
    requests: list[tuple[http.HttpMessage, int]] = []
    rests: dict[bool, list[Run]] = {True: [], False: []}
    for run in client_runs:
        run = _from_first(flow.client, run, http.find_request, findings)
        found = http.parse_requests(run.data, limit)
        upgraded = upgraded or any(map(is_upgrade, found))
        for message in found:
            place = _sight_message(flow, flow.client, run, message, findings)
            requests.append((message, place.frame))
        rests[True] += _rest(run, found)
    for number, run in enumerate(server_runs):
        run = _from_first(flow.server, run, http.find_response, findings)
        waiting = requests if not number else _asked_before(requests, flow.server.recorder.carrier(run.start))
        responses = http.parse_responses(run.data, [request for request, _ in waiting], limit)
        for message in responses:
            _sight_message(flow, flow.server, run, message, findings)
        rests[False] += _rest(run, responses)
        upgraded = upgraded or any(map(is_upgrade, responses))
    findings.note_decoding(flow.first_frame)
    _dissect_rests(flow, rests[True], rests[False], upgraded, findings)


def is_http_behind_hole(client_runs: list[Run], server_runs: list[Run], flow: FlowState) -> bool:
    """Whether messages begin behind octets that are missing, in the middle of what is left of others."""
    return any(
        find(run.data, side.recorder.segments_of(run)) >= 0
        for side, runs, find in (
            (flow.client, client_runs, http.find_request),
            (flow.server, server_runs, http.find_response),
        )
        for run in runs
        if run.start in side.recorder.gaps
    )


def _from_first(side: Side, run: Run, find: Callable[[bytes, Sequence[int]], int], findings: Findings) -> Run:
    """The run from its first message on: one that begins behind a hole begins in the middle of another."""
    behind_hole = run.start in side.recorder.gaps
    if behind_hole:
        missing = "octets of an HTTP conversation are not in the capture"
        findings.warn(missing, side.recorder.carrier(run.start))
    at = find(run.data, side.recorder.segments_of(run) if behind_hole else ())
    if at <= 0:
        return run
    sight_stream_text(side, Run(run.start, run.data[:at]), findings)
    return Run(run.start + at, run.data[at:])


def _asked_before(requests: list[tuple[http.HttpMessage, int]], frame: int) -> list[tuple[http.HttpMessage, int]]:
    """The requests from the last one that was complete when the frame came: a hole leaves their number unknown."""
    asked = sum(1 for _, completed in requests if completed <= frame)
    return requests[max(asked - 1, 0) :]


def _rest(run: Run, messages: Sequence[http.HttpMessage]) -> list[Run]:
    at = messages[-1].end if messages else 0
    return [Run(run.start + at, run.data[at:])] if at < len(run.data) else []


def _dissect_rests(
    flow: FlowState, client_rests: list[Run], server_rests: list[Run], upgraded: bool, findings: Findings
) -> None:
    """What follows a CONNECT or an upgrade: TLS, HTTP/2, WebSocket if it is `upgraded`, or text as it stands."""
    if any(http2.has_preface(run.data) for run in client_rests):
        dissect_http2(flow, client_rests, server_rests, findings)
        return
    for side, rests in ((flow.client, client_rests), (flow.server, server_rests)):
        for run in rests:
            if tls.looks_like_tls(run.data):
                dissect_tls_run(flow, side, run, findings)
            elif not (upgraded and dissect_websocket(flow, side, run, findings)):
                sight_stream_text(side, run, findings)


def _sight_message(flow: FlowState, side: Side, run: Run, message: http.HttpMessage, findings: Findings) -> Place:
    place = Place(*side.recorder.completed(run.start + message.end))
    complete = message.complete
    if message.until_close and side.reassembly is not None:
        complete = bool(side.reassembly.fin_frame)
        place = Place(side.reassembly.fin_frame, side.reassembly.fin_time_ns) if complete else place
    elsewhere: Callable[[bytes], str] | None = None
    if not complete:  # Wireshark never shows its fields: find it by its octets, where they begin
        findings.warn("an HTTP message is not in the capture to its end", place.frame)
        place = Place(side.recorder.carrier(run.start + message.start), place.time_ns)
        first = run.data[message.start : message.start + filters.LONGEST_NEEDLE_OCTETS].split(b"\n", 1)[0]

        def elsewhere(_: bytes) -> str:
            return f"tcp.payload contains {filters.octets(first)}"

    def tail() -> bytes:
        body_end = run.start + message.end
        (octets, _), *_ = reversed(side.recorder.pieces_between(max(body_end - TAIL_OCTETS, 0), body_end))
        return octets

    sight = _new(HttpSighter, (place, findings, elsewhere, tail))
    sight.message(message)
    if message.altered and message.body:
        flow.add_decoded(side, message.body, place.frame)
    return place


class HttpSighter(NamedTuple):
    """Enters one message's parts. Shape: `elsewhere` replaces every filter where Wireshark shows no HTTP fields."""

    place: Place
    findings: Findings
    elsewhere: Callable[[bytes], str] | None
    tail: Callable[[], bytes]  # the message's last octets in the segment that completed it

    def message(self, message: http.HttpMessage) -> None:
        if not message.status:
            self._request(message)
        self._headers(message.headers, "http.response.line" if message.status else "http.request.line")
        for header in message.trailers:
            self._sight(Kind.HTTP_HEADER, as_text(header.line), _octet_filter(header.line))
        if message.body:
            self.findings.note_coding(message.body, self.place.frame)
            self._sight(Kind.HTTP_BODY, as_text(message.body), self._body_filter(message))

    def _headers(self, headers: tuple[http.Header, ...], field: str) -> None:
        """Most heads come again as they are, and have been described then."""
        key = field, headers
        if self.elsewhere is None and self.findings.sight_group_again(key, self.place):
            return
        group = []
        for header in headers:
            line = header.line
            value, display_filter = (_short_shown if len(line) <= SHORT_OCTETS else _shown)(line, field)
            group.append((Kind.HTTP_HEADER, value, display_filter))
            self._sight(Kind.HTTP_HEADER, value, display_filter)
        if self.elsewhere is None and sum(len(header.line) for header in headers) <= http.SHORT_HEAD_OCTETS:
            self.findings.know_group(key, group)

    def _sight(self, kind: Kind, value: str, display_filter: str) -> None:
        if self.elsewhere is not None:
            display_filter = self.elsewhere(b"")
        self.findings.sight(kind, value, self.place.frame, self.place.time_ns, display_filter, "http")

    def _request(self, message: http.HttpMessage) -> None:
        host = message.header(b"host") or b""
        if host:
            name, display_filter = (_short_host if len(host) <= SHORT_OCTETS else _host)(host)
            self._sight(Kind.HTTP_HOST, name, display_filter)
            self.findings.name(
                name, "http", self.place.frame, self.elsewhere(b"") if self.elsewhere else display_filter
            )
        self._authority(message.target, host)
        if message.target.startswith(b"/") and host:
            url = b"http://" + host + message.target
            if url.isascii():
                self._sight(Kind.HTTP_URL, *(_short_url if len(url) <= SHORT_OCTETS else _url)(url))
            else:
                self._sight(Kind.HTTP_URL, as_text(url), _octet_filter(message.target))
        elif b"://" in message.target:
            self._sight(Kind.HTTP_URL, as_text(message.target), _text_filter("http.request.uri", message.target))
        else:
            value = f"http://{as_text(host)}{as_text(message.target)}"
            self._sight(Kind.HTTP_URL, value, _text_filter("http.request.uri", message.target))

    def _authority(self, target: bytes, host: bytes) -> None:
        """The host that a target in absolute form names, as to a proxy: it counts more than the header."""
        found = ABSOLUTE.match(target) if target[:1] != b"/" else None
        if found is None or found.group(1).lower() == host.lower():
            return
        name = without_port(as_text(found.group(1))).lower()
        display_filter = _text_filter("http.request.uri", target)
        self._sight(Kind.HTTP_HOST, name, display_filter)
        self.findings.name(name, "http", self.place.frame, self.elsewhere(b"") if self.elsewhere else display_filter)

    def _body_filter(self, message: http.HttpMessage) -> str:
        if len(message.codings) > 1 or (message.codings and not message.decoded):
            return f"tcp.payload contains {filters.octets(self.tail())}"  # which Wireshark does not decode
        needle = filters.longest_text(message.body)
        if len(needle) < SHORTEST_TEXT_OCTETS and not message.altered:
            return _octet_filter(message.body)
        return f"http.file_data contains {filters.quote(needle)}"


def _shown(line: bytes, field: str) -> tuple[str, str]:
    """A header as people read it, and its filter."""
    return as_text(line), filters.equals(field, line + b"\r\n") if line.isascii() else _octet_filter(line)


def _host(host: bytes) -> tuple[str, str]:
    return without_port(as_text(host)).lower(), _text_filter("http.host", host)


def _url(url: bytes) -> tuple[str, str]:
    return as_text(url), _text_filter("http.request.full_uri", url)


_short_shown = lru_cache(maxsize=2048)(_shown)  # most header lines come again, and hosts, and pages
_short_host = lru_cache(maxsize=256)(_host)
_short_url = lru_cache(maxsize=2048)(_url)


def _text_filter(field: str, value: bytes) -> str:
    return filters.equals(field, value) if value.isascii() else _octet_filter(value)


def _octet_filter(value: bytes) -> str:
    """Wireshark shows octets that are not ASCII as something else: search the message's octets instead."""
    return f"http contains {filters.octets(value)}"

"""A conversation at rest: all that is known of it in a few hundred octets, until somebody speaks again or at the end.

    head | key | frames | one stream, the other

The head has fixed fields, the key is that of the table of flows, with addresses, ports, protocol and the headers around
it; frames are numbers of four octets. Streams are there as long as the conversation may go on or is to be dissected:
the state of the reassembly, and where each piece stands. `unpack_flow(pack_flow(x))` is `x`.

Packets are told from the numbers of the file, which may be any: what does not fit into the fields is refused, and such
a conversation stays as it is. Rare parts go into `Odd`, by the conversation's number.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from struct import Struct, error
from sys import byteorder
from typing import NamedTuple

from testbed.observer.findings import Place
from testbed.observer.flows import PROTOCOL_NAMES, TCP, UDP, FlowState, Side, address_text
from testbed.observer.model import Endpoint, Tunnel
from testbed.observer.streams import Segment
from testbed.observer.tunnels.recognised import Detector, Recognised

CannotPack = (error, OverflowError, ValueError)
CLIENT_FIRST, CLOSED, ROLES, SETTLED, DECIDED, FORGOTTEN, SIX, PORTS = (1 << bit for bit in range(8))
ODD, INDEXED, REUSES = (1 << bit for bit in range(8, 11))
# marks, octets of the key, application, also, bursts, packets, octets, payload octets (each of the client and of the
# server), first and last frame, begin and end, number of frames
_HEAD = Struct("<HHHIIIIQQQQIIqqI")
# marks, position, SYN, FIN from the position, its frame and time, octets, pieces
_STREAM = Struct("<BQIqIqII")
_POSITION, _BEGAN, _FIN, _EMPTY = (1 << bit for bit in range(4))
_NOTHING_SAID = bytes((_EMPTY,))  # instead of a stream: of datagrams that nobody recorded
_BEGINNING = Struct("<HH58xq8xI")  # of the head: marks, octets of the key, begin, number of frames
_PAYLOADS = Struct("<38xQQ")  # of the head: payload octets of the client and of the server
_SIDES = _HEAD.size
NO_FRAMES = bytes(4)  # as the head ends
_new = tuple.__new__  # of a named tuple, a third of the time that its class takes


class OddStream(NamedTuple):
    """What few streams have: holes, segments that wait behind them, a limit that was reached."""

    truncated: bool
    asked_at: int
    skips: bool
    passed: int
    gaps: Sequence[int]
    ready: dict[int, int] | None
    waiting: list[Segment] | None
    waiting_octets: int


class Odd(NamedTuple):
    """What few conversations have."""

    fragments: list[int] | None
    tunnel: Tunnel | None
    detectors: list[Detector] | None
    suspicion: tuple[Recognised, Place] | None
    carries: Callable[[bytes], int] | None
    dissector: object | None
    streams: tuple[OddStream | None, OddStream | None]  # of who sent the first packet, and of the other


NOTHING_ODD = Odd(None, None, None, None, None, None, (None, None))


@dataclass(slots=True)
class Words:
    """Strings that come again and again, by number. Shape: 0 is the empty one."""

    known: list[str] = field(default_factory=lambda: [""])
    numbers: dict[str, int] = field(default_factory=lambda: {"": 0})

    def number(self, word: str) -> int:
        number = self.numbers.get(word)
        if number is None:
            number = self.numbers[word] = len(self.known)
            self.known.append(word)
        return number


class Ends(NamedTuple):
    """What a key says. Shape: addresses as octets; ports 0 where there are none."""

    source: bytes
    destination: bytes
    source_port: int
    destination_port: int
    protocol: int
    layers: tuple[str, ...]


class Summary(NamedTuple):
    """What is told of a conversation in the end. Shape: pairs are the client's and the server's."""

    protocol: str
    client: Endpoint
    server: Endpoint
    packets: tuple[int, int]
    octets: tuple[int, int]
    payload_octets: tuple[int, int]
    first_frame: int
    last_frame: int
    started_ns: int
    ended_ns: int
    bursts: int
    application: str
    also: str
    roles: bool
    layers: tuple[str, ...]
    frames: array[int]
    shares_ends: bool  # with another conversation, before it or after


def split_key(key: bytes, six: bool, has_ports: bool) -> Ends:
    octets = 16 if six else 4
    at = 2 * octets
    ports, tail = (key[at : at + 4], key[at + 4 :]) if has_ports else (b"", key[at:])
    if tail[0] not in (TCP, UDP):
        ports = b""
    layers = tuple(tail[1:].decode().split("/")) if len(tail) > 1 else ()
    source_port, destination_port = int.from_bytes(ports[:2], "big"), int.from_bytes(ports[2:], "big")
    return _new(Ends, (key[:octets], key[octets:at], source_port, destination_port, tail[0], layers))


def reversed_key(key: bytes, six: bool, has_ports: bool) -> bytes:
    """The key of the packets in the other direction."""
    octets = 16 if six else 4
    at = 2 * octets
    ends = key[octets:at] + key[:octets]
    return ends + key[at + 2 : at + 4] + key[at : at + 2] + key[at + 4 :] if has_ports else ends + key[at:]


def key_of(row: bytes) -> bytes:
    return row[_SIDES : _SIDES + int.from_bytes(row[2:4], "little")]


def keys_of(row: bytes) -> tuple[bytes, bytes]:
    key = key_of(row)
    return key, reversed_key(key, bool(row[0] & SIX), bool(row[0] & PORTS))


def beginning_of(row: bytes) -> tuple[int, bool]:
    """The first of the frames, 0 if there is none, and whether the ends are shared: of a summary what all are asked."""
    at = _SIDES + int.from_bytes(row[2:4], "little")
    has_frames = row[_SIDES - 4 : _SIDES] != NO_FRAMES
    first = int.from_bytes(row[at : at + 4], byteorder) if has_frames else 0
    return first, bool((row[0] | row[1] << 8) & (FORGOTTEN | REUSES))


def ends_of(row: bytes) -> tuple[str, str, bool, int, int]:
    """The client's address and the server's, whether they are such, the begin, and the first frame, 0 if none."""
    marks, key_octets, started_ns, many = _BEGINNING.unpack_from(row)
    octets, at = 16 if marks & SIX else 4, _SIDES + key_octets
    middle = _SIDES + octets
    one, other = address_text(row[_SIDES:middle]), address_text(row[middle : middle + octets])
    first = int.from_bytes(row[at : at + 4], byteorder) if many else 0
    if marks & CLIENT_FIRST:
        return one, other, bool(marks & ROLES), started_ns, first
    return other, one, bool(marks & ROLES), started_ns, first


def frames_of(row: bytes) -> array[int]:
    _, key_octets, _, many = _BEGINNING.unpack_from(row)
    at = _SIDES + key_octets
    return array("I", row[at : at + 4 * many])


def without_streams(row: bytes) -> bytes:
    _, key_octets, _, many = _BEGINNING.unpack_from(row)
    return row[: _SIDES + key_octets + 4 * many]


def most_datagram_octets(row: bytes) -> int:
    """How much payload the side of more has, of a conversation of datagrams with nothing odd about it; else -1."""
    marks = row[0] | row[1] << 8
    protocol_at = _SIDES + (36 if marks & SIX else 12)
    return -1 if marks & ODD or not marks & PORTS or row[protocol_at] != UDP else max(_PAYLOADS.unpack_from(row))


def application_of(row: bytes, words: Words) -> str:
    return words.known[int.from_bytes(row[4:6], "little")]


def is_closed(row: bytes) -> bool:
    return bool(row[0] & CLOSED)


def forgotten(row: bytes) -> bytes:
    """The same when another conversation has its ports."""
    return bytes((row[0] | FORGOTTEN,)) + row[1:]


def is_forgotten(row: bytes) -> bool:
    return bool(row[0] & FORGOTTEN)


def pack_flow(flow: FlowState, words: Words, odd: dict[int, Odd], *, with_streams: bool) -> bytes:
    """Errors: one of `CannotPack`, and nothing has changed"""
    client, server, key = flow.client, flow.server, flow.keys[0]
    one = client if client.sent_first else server
    streams = (_odd_stream(one), _odd_stream(one.peer)) if with_streams else NOTHING_ODD.streams
    rare = _odd_parts(flow, streams)
    marks = _marks(flow) | (ODD if rare is not None else 0)
    frames = flow.frames
    packed = _HEAD.pack(
        marks,
        len(key),
        words.number(flow.application),
        words.number(flow.also),
        flow.bursts,
        client.packets,
        server.packets,
        client.octets,
        server.octets,
        client.payload_octets,
        server.payload_octets,
        flow.first_frame,
        flow.last_frame,
        flow.started_ns,
        flow.ended_ns,
        len(frames),
    )
    packed += key + array("I", frames).tobytes()
    if with_streams:
        packed += _pack_stream(one, flow.started_ns) + _pack_stream(one.peer, flow.started_ns)
    if rare is not None:
        odd[flow.index] = rare
    return packed


def _odd_parts(flow: FlowState, streams: tuple[OddStream | None, OddStream | None]) -> Odd | None:
    """None where there are none."""
    rare = (flow.fragments, flow.tunnel, flow.detectors or None, flow.suspicion, flow.carries, flow.dissector, streams)
    return Odd(*rare) if rare != NOTHING_ODD else None


def _marks(flow: FlowState) -> int:
    key, tail = flow.keys[0], len("/".join(flow.layers)) + 1
    six = len(key) - tail >= 32
    return (
        (CLIENT_FIRST if flow.client.sent_first else 0)
        | (CLOSED if flow.closed else 0)
        | (ROLES if flow.roles else 0)
        | (SETTLED if flow.settled else 0)
        | (DECIDED if flow.detectors == [] else 0)
        | (FORGOTTEN if flow.forgotten else 0)
        | (SIX if six else 0)
        | (PORTS if len(key) - tail in (12, 36) else 0)
        | (INDEXED if flow.indexed else 0)
        | (REUSES if flow.reuses else 0)
    )


def _odd_stream(side: Side) -> OddStream | None:
    reassembly, recorder = side.reassembly, side.recorder
    waiting = reassembly.waiting if reassembly is not None else None
    cut = recorder.truncated or recorder.skips or recorder.passed
    if not (cut or recorder.gaps or recorder.ready or waiting or recorder.asked_at < recorder.size):
        return None
    waiting_octets = reassembly.waiting_octets if reassembly is not None else 0
    limits = recorder.truncated, recorder.asked_at, recorder.skips, recorder.passed
    return OddStream(*limits, recorder.gaps, recorder.ready, waiting, waiting_octets)


def _pack_stream(side: Side, started_ns: int) -> bytes:
    reassembly, recorder = side.reassembly, side.recorder
    if reassembly is None and not recorder.size:
        return _NOTHING_SAID
    marks = position = began = fin = fin_frame = fin_time_ns = 0
    if reassembly is not None:
        position, began = reassembly.position or 0, reassembly.began_at or 0
        marks = (_POSITION if reassembly.position is not None else 0) | (
            _BEGAN if reassembly.began_at is not None else 0
        )
        if reassembly.fin_position is not None:
            marks, fin = marks | _FIN, reassembly.fin_position - position
        fin_frame, fin_time_ns = reassembly.fin_frame, reassembly.fin_time_ns
    pieces = len(recorder.offsets)
    head = _STREAM.pack(marks, position, began, fin, fin_frame, fin_time_ns, recorder.size, pieces)
    if not pieces:
        return head
    since = array("q", [at - started_ns for at in recorder.times_ns])
    return b"".join((head, *map(_narrow, (recorder.offsets, recorder.frames, since, recorder.handles))))


def _narrow(numbers: array[int]) -> bytes:
    """Of four octets each if all fit, else as they are."""
    try:
        return b"I" + array("I", numbers).tobytes()
    except OverflowError:
        return numbers.typecode.encode() + numbers.tobytes()


def summarise(row: bytes, words: Words) -> Summary:
    """What `pack_flow` was given, as far as it is told in the end."""
    marks, key_octets, application, also, bursts, *counts, first, last, started, ended, many = _HEAD.unpack_from(row)
    ends = split_key(row[_SIDES : _SIDES + key_octets], bool(marks & SIX), bool(marks & PORTS))
    one = Endpoint(address_text(ends.source), ends.source_port)
    other = Endpoint(address_text(ends.destination), ends.destination_port)
    client, server = (one, other) if marks & CLIENT_FIRST else (other, one)
    frames_at = _SIDES + key_octets
    return Summary(
        PROTOCOL_NAMES.get(ends.protocol, str(ends.protocol)),
        client,
        server,
        (counts[0], counts[1]),
        (counts[2], counts[3]),
        (counts[4], counts[5]),
        first,
        last,
        started,
        ended,
        bursts,
        words.known[application],
        words.known[also],
        bool(marks & ROLES),
        ends.layers,
        array("I", row[frames_at : frames_at + 4 * many]),
        bool(marks & (FORGOTTEN | REUSES)),
    )


def summary_of(flow: FlowState) -> Summary:
    """The same of a conversation that does not rest."""
    client, server = flow.client, flow.server
    return Summary(
        flow.protocol,
        client.endpoint,
        server.endpoint,
        (client.packets, server.packets),
        (client.octets, server.octets),
        (client.payload_octets, server.payload_octets),
        flow.first_frame,
        flow.last_frame,
        flow.started_ns,
        flow.ended_ns,
        flow.bursts,
        flow.application,
        flow.also,
        flow.roles,
        flow.layers,
        flow.frames,
        flow.forgotten or flow.reuses,
    )


def unpack_flow(
    index: int, row: bytes, words: Words, odd: dict[int, Odd], new_side: Callable[[Endpoint, int], Side]
) -> FlowState:
    """The conversation as it was packed. Shape: `new_side` makes a side that has not spoken, of a protocol's flow."""
    marks, key_octets, *_ = _HEAD.unpack_from(row)
    key = row[_SIDES : _SIDES + key_octets]
    six, has_ports = bool(marks & SIX), bool(marks & PORTS)
    told, ends = summarise(row, words), split_key(key, six, has_ports)
    client, server = new_side(told.client, ends.protocol), new_side(told.server, ends.protocol)
    client.packets, server.packets = told.packets
    client.octets, server.octets = told.octets
    client.payload_octets, server.payload_octets = told.payload_octets
    rare = odd.pop(index) if marks & ODD else NOTHING_ODD
    flow = FlowState(
        index,
        (key, reversed_key(key, six, has_ports)),
        told.protocol,
        client,
        server,
        told.first_frame,
        told.started_ns,
        told.last_frame,
        told.ended_ns,
        told.bursts,
        told.application,
        bool(marks & CLOSED),
        array("Q", told.frames),
        rare.fragments,
        told.also,
        told.roles,
        rare.tunnel,
        bool(marks & SETTLED),
        [] if marks & DECIDED else rare.detectors,
        rare.suspicion,
        rare.carries,
        told.layers,
        rare.dissector,
        indexed=bool(marks & INDEXED),
        forgotten=bool(marks & FORGOTTEN),
        reuses=bool(marks & REUSES),
    )
    flow.join(bool(marks & CLIENT_FIRST))
    streams_at = _SIDES + key_octets + 4 * len(told.frames)
    if streams_at < len(row):
        one = client if marks & CLIENT_FIRST else server
        streams_at = _unpack_stream(row, streams_at, one, told.started_ns)
        _unpack_stream(row, streams_at, one.peer, told.started_ns)
        for side, odd_stream in zip((one, one.peer), rare.streams, strict=True):
            if odd_stream is not None:
                _restore(side, odd_stream)
    return flow


def _unpack_stream(row: bytes, at: int, side: Side, started_ns: int) -> int:
    """Fill a new side's stream; returns where what follows begins."""
    if row[at] == _EMPTY:
        return at + 1
    marks, position, began, fin, fin_frame, fin_time_ns, size, pieces = _STREAM.unpack_from(row, at)
    at += _STREAM.size
    reassembly = side.reassembly
    if reassembly is not None:
        reassembly.position = position if marks & _POSITION else None
        reassembly.began_at = began if marks & _BEGAN else None
        reassembly.fin_position = position + fin if marks & _FIN else None
        reassembly.fin_frame, reassembly.fin_time_ns = fin_frame, fin_time_ns
    if pieces:
        recorder = side.own_recorder()
        recorder.size = size
        columns = []
        for _ in range(4):
            kind, width = chr(row[at]), 4 if row[at : at + 1] == b"I" else 8
            columns.append(array(kind, row[at + 1 : at + 1 + width * pieces]))
            at += 1 + width * pieces
        recorder.offsets, recorder.frames, recorder.handles = (array("Q", columns[which]) for which in (0, 1, 3))
        recorder.times_ns = array("Q", [ns + started_ns for ns in columns[2]])
    return at


def _restore(side: Side, odd: OddStream) -> None:
    recorder, reassembly = side.own_recorder(), side.reassembly
    recorder.truncated, recorder.asked_at, recorder.skips, recorder.passed = odd[:4]
    recorder.gaps, recorder.ready = odd.gaps, odd.ready
    if reassembly is not None:
        reassembly.waiting, reassembly.waiting_octets = odd.waiting, odd.waiting_octets

"""Who behind a VPN server talked to whom: the packets that went in on one side held against those that came out.

An observer on both sides of a VPN server reads no content. It sees when packets pass and how large they are, which is
enough: a packet of a conversation behind the server has passed the tunnel just before (towards the site) or passes it
just after (from the site), larger by a fixed overhead.

    matched   a packet behind the server that has one of the tunnel to itself: in the same direction, in the right
              order, at most `MOST_DELAY_NS` apart, larger by the conversation's overhead (give or take a cipher block)
    score     the share of packets that are matched, in the direction in which it is smaller, under the overhead that
              explains most of them
    p value   how often the same conversation, moved in time against the tunnel, scores as well with packets as near:
              of `SHIFTS` moves and the true place. What beats every move is no coincidence of busy traffic, and
              traffic that repeats itself (fifty questions a second, all of one size) is never sure

The order in time is what keeps others apart: a stranger's conversation of the same sizes that runs earlier has no
packets of the tunnel before its requests, and one that runs later none after its answers. Conversations are given to
tunnels best first, and each packet of a tunnel is spent once. How often this errs is measured in the tests and told in
docs/tunnel-detection.md.

Does not read clocks apart: both captures have to be taken by one clock, as those of one lab are. A tunnel that pads,
delays or mixes its packets defeats it, which is a use of it.

Source: the method is ours; the attack is old (Back, Moller, Stiglic, 2001: Traffic Analysis Attacks)
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median_low
from typing import NamedTuple

from testbed.observer.model import Direction, Endpoint, Flow, Observation, Stream, Tunnel
from testbed.observer.tunnels.framing import split_frames

MOST_DELAY_NS = 250_000_000  # between the two taps, through the server's program
BLOCK_OCTETS = 16  # a cipher that pads to blocks makes the overhead vary by less than this
MOST_OVERHEAD_OCTETS = 200
MOST_PACKETS = 200  # of a conversation behind the server, looked at
MOST_CANDIDATES = 100  # of the tunnel for one of them, the nearest in time
MOST_TUNNEL_PACKETS = 50_000
SHIFTS = 199
# A conversation that is moved loses its ends, however well the rest fits; and it may borrow the request of one page
# and the answer of the next, but not without a delay.
AS_GOOD, AS_NEAR, NEARLY_NS = 0.95, 2, 1_000_000
MOST_CONVERSATIONS = 100  # whose p value is worked out
STRONG_SCORE, STRONG_P, STRONG_PACKETS, STRONG_LEAD = 0.9, 0.01, 8, 0.2
WEAK_SCORE, WEAK_P, WEAK_PACKETS = 0.7, 0.05, 4
EVIDENCE_FRAMES = 8
GOLDEN = 0.618033988749895


class Confidence(StrEnum):
    STRONG = "strong"
    WEAK = "weak"


@dataclass(frozen=True, slots=True)
class Correlation:
    """One conversation behind the server and the tunnel it came through.

    Shape: `frames` pairs frame numbers of the client's side with those of the far side; `runner_up` is the best score
        of any other tunnel for the same conversation.
    Units: `delay_seconds` is the median from tap to tap, `overhead_octets` what the tunnel adds to a payload.
    """

    client: Endpoint
    tunnel: str  # its protocol
    server: Endpoint  # of the tunnel
    site: Endpoint
    egress: Endpoint  # what the site sees of the client: the VPN server's address, and a port
    protocol: str  # of the conversation behind the server
    score: float
    p_value: float
    runner_up: float
    confidence: Confidence
    packets: int
    matched: int
    overhead_octets: int
    delay_seconds: float
    frames: tuple[tuple[int, int], ...]

    @property
    def sentence(self) -> str:
        """For people."""
        return (
            f"{self.client.address} talked to {self.site} ({self.protocol}) through {self.tunnel} at {self.server}: "
            f"{self.matched} of {self.packets} packets behind the server have one in the tunnel "
            f"{1000 * self.delay_seconds:.1f} ms apart and {self.overhead_octets} octets larger; moved in time, "
            f"the same conversation fits as well in {self.p_value:.1%} of cases ({self.confidence.value})"
        )


class _Packet(NamedTuple):
    time_ns: int
    octets: int
    frame: int


_Sides = dict[Direction, list[_Packet]]


@dataclass(frozen=True, slots=True)
class _Trace:
    """One conversation as an observer without keys has it."""

    packets: _Sides
    count: int

    @property
    def span(self) -> tuple[int, int]:
        times = [packet.time_ns for packets in self.packets.values() for packet in packets]
        return min(times), max(times)


class _Fit(NamedTuple):
    """Shape: `pairs` are (direction, place among the tunnel's packets, packet behind the server)."""

    score: float
    overhead: int
    delay_ns: int  # there and back: the medians of both directions
    pairs: list[tuple[Direction, int, _Packet]]


def correlate(near: Observation, far: Observation) -> tuple[Correlation, ...]:
    """Every conversation of `far` that came through a tunnel of `near`, the surest first.

    Shape: `near` is what a tap between clients and VPN server saw, `far` what one behind the server saw, by one clock;
        of more than `MOST_CONVERSATIONS` that could be, those that fit best
    """
    tunnels = [(tunnel, trace) for tunnel in near.tunnels if (trace := _tunnel_trace(near, tunnel)) is not None]
    spent: list[dict[Direction, set[int]]] = [{direction: set() for direction in Direction} for _ in tunnels]
    found: list[Correlation] = []
    for match in _ranked(tunnels, _conversations(near, far)):
        tunnel, tunnel_trace = tunnels[match.tunnel]
        fit = _fit(match.trace.packets, tunnel_trace.packets, spent[match.tunnel])
        confidence = _confidence(fit.score, match)
        if confidence is not None:
            for direction, place, _ in fit.pairs:
                spent[match.tunnel][direction].add(place)
            found.append(_correlation(tunnel, tunnel_trace, match, fit, confidence))
    return tuple(sorted(found, key=lambda one: (one.confidence != Confidence.STRONG, one.p_value, -one.score)))


class _Match(NamedTuple):
    """A conversation and the tunnel, by its place in the list, that it fits best."""

    flow: Flow
    trace: _Trace
    tunnel: int
    score: float
    runner_up: float
    p_value: float = 1.0


def _ranked(tunnels: Sequence[tuple[Tunnel, _Trace]], conversations: Iterable[tuple[Flow, _Trace]]) -> list[_Match]:
    """Every conversation that fits a tunnel, the best first: it may spend the tunnel's packets first."""
    found = []
    for flow, trace in conversations:
        scores = [_fit(trace.packets, tunnel_trace.packets, None).score for _, tunnel_trace in tunnels]
        best = max(range(len(scores)), key=scores.__getitem__, default=0)
        if scores and scores[best] >= WEAK_SCORE and trace.count >= WEAK_PACKETS:
            runner_up = max((score for index, score in enumerate(scores) if index != best), default=0.0)
            found.append(_Match(flow, trace, best, scores[best], runner_up))
    found = sorted(found, key=lambda match: (-match.score, -match.trace.count))[:MOST_CONVERSATIONS]
    judged = [match._replace(p_value=_p_value(match.trace, tunnels[match.tunnel][1])) for match in found]
    return sorted(judged, key=lambda match: (match.p_value, -match.score, -match.trace.count))


def _confidence(score: float, match: _Match) -> Confidence | None:
    """Shape: `score` is what is left of the match's when others have spent their packets."""
    is_strong = score >= STRONG_SCORE and match.p_value <= STRONG_P and match.trace.count >= STRONG_PACKETS
    if is_strong and score - match.runner_up >= STRONG_LEAD:
        return Confidence.STRONG
    return Confidence.WEAK if score >= WEAK_SCORE and match.p_value <= WEAK_P else None


def _correlation(tunnel: Tunnel, tunnel_trace: _Trace, match: _Match, fit: _Fit, confidence: Confidence) -> Correlation:
    near = [tunnel_trace.packets[direction][index] for direction, index, _ in fit.pairs]
    delays = [abs(packet.time_ns - one.time_ns) for one, (_, _, packet) in zip(near, fit.pairs, strict=True)]
    frames = sorted((one.frame, packet.frame) for one, (_, _, packet) in zip(near, fit.pairs, strict=True))
    return Correlation(
        client=tunnel.client,
        tunnel=tunnel.protocol,
        server=tunnel.server,
        site=match.flow.server,
        egress=match.flow.client,
        protocol=match.flow.protocol,
        score=fit.score,
        p_value=match.p_value,
        runner_up=match.runner_up,
        confidence=confidence,
        packets=match.trace.count,
        matched=len(fit.pairs),
        overhead_octets=fit.overhead,
        delay_seconds=median_low(delays) / 1e9,
        frames=tuple(frames[:EVIDENCE_FRAMES]),
    )


# -- traces -----------------------------------------------------------------------------------------------------------


def _tunnel_trace(near: Observation, tunnel: Tunnel) -> _Trace | None:
    """The packets of a tunnel; over TCP as its own lengths divide the stream, where they do."""
    for index, flow in enumerate(near.flows):
        if (flow.protocol, flow.client, flow.server) == (tunnel.transport, tunnel.client, tunnel.server):
            return _trace(_streams_of(near, index), MOST_TUNNEL_PACKETS, framed=flow.protocol == "tcp")
    return None


def _conversations(near: Observation, far: Observation) -> Iterator[tuple[Flow, _Trace]]:
    """What was seen behind the server and is neither a tunnel itself nor passed the near tap in clear."""
    tunnels = {(tunnel.client, tunnel.server) for tunnel in far.tunnels}
    direct = {(flow.protocol, flow.client, flow.server) for flow in near.flows}
    for index, flow in enumerate(far.flows):
        known = (flow.client, flow.server) in tunnels or (flow.protocol, flow.client, flow.server) in direct
        if flow.protocol in ("tcp", "udp") and not known:
            trace = _trace(_streams_of(far, index), MOST_PACKETS, framed=False)
            if trace is not None:
                yield flow, trace


def _streams_of(observation: Observation, index: int) -> list[Stream]:
    return [stream for stream in observation.streams if stream.flow == index and stream.times_ns]


def _trace(streams: Iterable[Stream], most: int, *, framed: bool) -> _Trace | None:
    """The first packets with payload of both directions; None if there are none."""
    found: _Sides = {direction: [] for direction in Direction}
    for stream in streams:
        packets = (_framed(stream) if framed else []) or _pieces(stream, most)
        found[stream.direction] = packets[:most]
    ordered = sorted(packet for packets in found.values() for packet in packets)[:most]
    if not ordered:
        return None
    last = ordered[-1]
    return _Trace(
        {way: [packet for packet in packets if packet <= last] for way, packets in found.items()}, len(ordered)
    )


def _pieces(stream: Stream, most: int) -> list[_Packet]:
    ends = [*stream.offsets[1 : most + 1], len(stream.data)]
    rows = zip(stream.times_ns, stream.offsets, ends, stream.frames, strict=False)
    return sorted(_Packet(time_ns, end - start, frame) for time_ns, start, end, frame in rows)


def _framed(stream: Stream) -> list[_Packet]:
    found = []
    for end, packet in split_frames(bytes(stream.data), 1, MOST_TUNNEL_PACKETS):
        piece = max(bisect_left(stream.offsets, end) - 1, 0)
        found.append(_Packet(stream.times_ns[piece], len(packet), stream.frames[piece]))
    return found


# -- matching ---------------------------------------------------------------------------------------------------------


def _fit(far: _Sides, near: _Sides, spent: dict[Direction, set[int]] | None) -> _Fit:
    """The overhead that explains most packets, and which packets of the tunnel they then are."""
    candidates = _candidates(far, near)
    best = _Fit(0.0, 0, 0, [])
    for overhead in _likely_overheads(candidates):
        pairs = _pairs(candidates, overhead, spent)
        matched = Counter(direction for direction, _, _ in pairs)
        score = min(matched[direction] / max(len(packets), 1) for direction, packets in far.items())
        if (score, len(pairs)) > (best.score, len(best.pairs)):
            best = _Fit(score, overhead, _delay_ns(pairs, near), pairs)
    return best


def _delay_ns(pairs: Iterable[tuple[Direction, int, _Packet]], near: _Sides) -> int:
    delays: dict[Direction, list[int]] = {direction: [] for direction in Direction}
    for direction, place, packet in pairs:
        delays[direction].append(abs(near[direction][place].time_ns - packet.time_ns))
    return sum(median_low(times) for times in delays.values() if times)


class _Candidate(NamedTuple):
    direction: Direction
    place: int  # in the tunnel's packets
    packet: _Packet
    overhead: int


def _candidates(far: _Sides, near: _Sides) -> list[list[_Candidate]]:
    """For each packet behind the server those of the tunnel that came before it, or come after it, soon enough."""
    found = []
    for direction, packets in far.items():
        through = near[direction]
        times = [packet.time_ns for packet in through]
        for packet in packets:
            if direction is Direction.CLIENT_TO_SERVER:
                first, end = packet.time_ns - MOST_DELAY_NS, packet.time_ns
            else:
                first, end = packet.time_ns, packet.time_ns + MOST_DELAY_NS
            start, stop = bisect_left(times, first), bisect_left(times, end + 1)
            if direction is Direction.CLIENT_TO_SERVER:
                start = max(start, stop - MOST_CANDIDATES)
            found.append(
                [
                    _Candidate(direction, place, packet, overhead)
                    for place in range(start, min(stop, start + MOST_CANDIDATES))
                    if 0 <= (overhead := through[place].octets - packet.octets) <= MOST_OVERHEAD_OCTETS
                ]
            )
    return found


def _likely_overheads(candidates: Iterable[list[_Candidate]]) -> list[int]:
    """The three that most packets could have."""
    votes: Counter[int] = Counter()
    for row in candidates:
        votes.update({candidate.overhead for candidate in row})
    return [overhead for overhead, _ in votes.most_common(3)]


def _pairs(
    candidates: Iterable[list[_Candidate]], overhead: int, spent: dict[Direction, set[int]] | None
) -> list[tuple[Direction, int, _Packet]]:
    """One packet of the tunnel for each behind the server, the nearest in time that is free."""
    taken = {direction: set(spent[direction]) if spent else set() for direction in Direction}
    found = []
    for row in candidates:
        # Towards the site the nearest is the latest before, from the site the earliest after.
        order = reversed(row) if row and row[0].direction is Direction.CLIENT_TO_SERVER else iter(row)
        for candidate in order:
            fits = abs(candidate.overhead - overhead) < BLOCK_OCTETS
            if fits and candidate.place not in taken[candidate.direction]:
                taken[candidate.direction].add(candidate.place)
                found.append((candidate.direction, candidate.place, candidate.packet))
                break
    return found


def _p_value(far: _Trace, near: _Trace) -> float:
    """How often the conversation scores about as well at another time of the tunnel's, its true place counted."""
    true = _fit(far.packets, near.packets, None)
    start, end = near.span
    length = max(end - start, 2 * MOST_DELAY_NS)
    as_good = 1
    for shift in _shifts(length):
        moved = {
            direction: sorted(p._replace(time_ns=start + (p.time_ns - start + shift) % length) for p in packets)
            for direction, packets in far.packets.items()
        }
        fit = _fit(moved, near.packets, None)
        as_good += fit.score >= AS_GOOD * true.score and fit.delay_ns <= AS_NEAR * true.delay_ns + NEARLY_NS
        if as_good > WEAK_P * (SHIFTS + 1):
            return 1.0  # nobody asks how much worse
    return as_good / (SHIFTS + 1)


def _shifts(length: int) -> list[int]:
    """Moves spread over the tunnel's time, none of them so small that it would be no move at all.

    By the golden ratio: evenly spread and in step with no period that the traffic may have.
    """
    edge = min(MOST_DELAY_NS // 10, length // 8)
    return [edge + int((length - 2 * edge) * (number * GOLDEN % 1)) for number in range(1, SHIFTS + 1)]

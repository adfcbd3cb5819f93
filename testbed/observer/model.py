"""What the observer hands out: one `Observation` of one capture file, and the limits it worked within.

Everything here is a value. `sightings` is what the verdict holds against the facts; `streams` is what it searches for
canaries (every transport payload in order, plus what chunked or compressed HTTP bodies decode to), with the way back
from an octet to the frame that carried it. Where a limit cut something off, `truncated` or a warning says so: an
observer that stopped looking must never pass for one that found nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, SupportsBytes

from testbed.facts import Sighting


class Direction(StrEnum):
    CLIENT_TO_SERVER = "client_to_server"
    SERVER_TO_CLIENT = "server_to_client"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the observer keeps, so that no capture file can exhaust memory."""

    stream_octets: int = 16 << 20  # one direction of one flow
    total_stream_octets: int = 256 << 20  # all streams together
    flows: int = 200_000
    awake_flows: int = 4_096  # held ready for packets; all others rest in little room, with the same answers
    out_of_order_octets: int = 4 << 20  # waiting behind a hole, per direction
    fragment_octets: int = 4 << 20  # all unfinished IP datagrams together
    sightings: int = 200_000
    frames_per_sighting: int = 1_000
    value_octets: int = 1 << 20  # of a body or payload, in a sighting's value
    decoded_octets: int = 16 << 20  # one HTTP body after decompression
    warnings: int = 200


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Shape: `port` is 0 where the protocol has none."""

    address: str
    port: int = 0

    def __str__(self) -> str:
        if not self.port:
            return self.address
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Name:
    """A host name somebody on the path could read. Shape: `via` is dns, http, tls, quic, certificate, dhcp, mdns, …"""

    name: str
    via: str
    frame: int
    display_filter: str = ""  # Wireshark's, for the frames that say it


@dataclass(frozen=True, slots=True)
class Hint:
    """What is no fact of its own but tells of somebody: a fingerprint, a guess, an option.

    Shape: `what` is ja3, ja4, ja3s, ech, os, edns-client-subnet, stun-mapped-address, …; `about` is whom it concerns;
        `rule` says in words what made it so, where it is concluded and not read.
    """

    what: str
    value: str
    about: str
    frames: tuple[int, ...]
    display_filter: str
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Volume:
    """Shape: `octets` counts frames as captured on the wire, `payload_octets` what the transport carried."""

    packets: int = 0
    octets: int = 0
    payload_octets: int = 0


@dataclass(frozen=True, slots=True)
class Flow:
    """One conversation. Units: Unix seconds; a burst ends where nobody speaks for a second."""

    protocol: str  # tcp, udp, icmp, icmpv6, or the IP protocol's number
    client: Endpoint  # who started it
    server: Endpoint
    sent: Volume
    received: Volume
    first_frame: int
    last_frame: int
    started_at: float
    ended_at: float
    bursts: int
    application: str = ""  # dns, http, tls, openvpn, wireguard, … as recognised from the bytes


@dataclass(frozen=True, slots=True)
class Stream:
    """One direction of a flow as octets in order, or an HTTP body as it reads once decoded.

    Shape: piece i of `data` starts at `offsets[i]` and came in frame `frames[i]`. `gaps` are the offsets before which
        octets are missing (lost segments, or segments the tap did not see). For udp every piece is one datagram.
        `times_ns[i]` is when piece i was there with all before it; empty for what was decoded.
    """

    flow: int  # index into Observation.flows
    direction: Direction
    layer: str  # tcp, udp, icmp, http-body
    octets: SupportsBytes  # of which `data` is made; they may stay in the capture file until somebody asks
    offsets: Sequence[int]
    frames: Sequence[int]
    gaps: tuple[int, ...] = ()
    truncated: bool = False  # a limit cut it off: there was more
    times_ns: Sequence[int] = ()

    @property
    def data(self) -> bytes:
        """The octets, read afresh where the capture file has them: take them once, and let them go."""
        return bytes(self.octets)

    def frame_at(self, offset: int) -> int:
        """The number of the frame that carried the octet at `offset`."""
        return self.frames[max(bisect_right(self.offsets, offset) - 1, 0)]

    def frames_between(self, start: int, end: int) -> tuple[int, ...]:
        """The frames that carried octets `start` to `end` (not included), each once, in order of the octets."""
        first = max(bisect_right(self.offsets, start) - 1, 0)
        last = max(bisect_right(self.offsets, max(end - 1, start)), first + 1)
        return tuple(dict.fromkeys(self.frames[first:last]))


class Certainty(StrEnum):
    """How much a rule's word is worth: what else could look like that?"""

    CERTAIN = "certain"  # nothing else does, short of an imitation or a coincidence of many random bits
    LIKELY = "likely"  # a statistic or a combination with a known, small cost in false positives
    POSSIBLE = "possible"  # a hint: other uses of the same protocol look alike; no sighting is made of it


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A tunnel in use. Shape: `frame` is where the rule was certain; `rule` says in words what made it so.

    `layers` are the headers from the outermost to the tunnel itself: `ipv4, gre, ipv4, udp, openvpn`.
    """

    protocol: str
    transport: str  # udp, tcp, ip
    client: Endpoint
    server: Endpoint
    rule: str
    frame: int
    certainty: Certainty = Certainty.CERTAIN
    false_positives: str = ""  # what the rule is known to cost, and who measured it
    layers: tuple[str, ...] = ()
    packet: int = 0  # the number of the conversation's packet, from 1, that came in `frame`


@dataclass(frozen=True, slots=True)
class ClearText:
    """Something readable that should make a reader uneasy. Shape: `what` is http, payload, …"""

    what: str
    value: str
    frame: int


@dataclass(frozen=True, slots=True)
class Observation:
    """All that one capture file told. Units: octets as on the wire, `captured_octets` as stored in the file."""

    sightings: Sequence[Sighting] = ()  # may be made when they are looked at, as flows may
    names: tuple[Name, ...] = ()
    flows: Sequence[Flow] = ()
    streams: tuple[Stream, ...] = ()  # none where nobody asked for them
    tunnels: tuple[Tunnel, ...] = ()
    cleartext: tuple[ClearText, ...] = ()
    warnings: tuple[str, ...] = ()
    frames: int = 0
    octets: int = 0
    captured_octets: int = 0
    dropped: int = 0  # by the tap, as the file's own statistics say
    hints: tuple[Hint, ...] = ()
    complete: bool = True  # False: a limit, damage or cut packets kept the observer from seeing or keeping everything
    damaged: bool = False  # the same, but for packets that were cut, as a tap for load does: which ones shows in each
    addresses: dict[str, tuple[int, ...]] = field(
        default_factory=dict
    )  # every address in an IP header: its first frames

    def to_dict(self) -> dict[str, Any]:
        """The observation as plain values; streams are left out, they are the bytes."""
        return {what: value if isinstance(value, int) else list(value) for what, value in self.parts().items()}

    def parts(self) -> dict[str, int | Iterable[Any]]:
        """The same with its lists made member by member, for whoever writes them down one after the other."""
        return {
            "frames": self.frames,
            "octets": self.octets,
            "captured_octets": self.captured_octets,
            "dropped": self.dropped,
            "complete": self.complete,
            "names": (_name_to_dict(n) for n in self.names),
            "flows": (_flow_to_dict(f) for f in self.flows),
            "tunnels": (_tunnel_to_dict(t) for t in self.tunnels),
            "cleartext": ({"what": c.what, "value": c.value, "frame": c.frame} for c in self.cleartext),
            "hints": (_hint_to_dict(h) for h in self.hints),
            "sightings": (_sighting_to_dict(s) for s in self.sightings),
            "warnings": self.warnings,
        }


def _name_to_dict(name: Name) -> dict[str, Any]:
    return {"name": name.name, "via": name.via, "frame": name.frame, "filter": name.display_filter}


def _hint_to_dict(hint: Hint) -> dict[str, Any]:
    return {
        "what": hint.what,
        "value": hint.value,
        "about": hint.about,
        "frames": list(hint.frames),
        "filter": hint.display_filter,
        "rule": hint.rule,
    }


def _flow_to_dict(flow: Flow) -> dict[str, Any]:
    return {
        "protocol": flow.protocol,
        "client": str(flow.client),
        "server": str(flow.server),
        "application": flow.application,
        "packets_sent": flow.sent.packets,
        "packets_received": flow.received.packets,
        "octets_sent": flow.sent.octets,
        "octets_received": flow.received.octets,
        "payload_sent": flow.sent.payload_octets,
        "payload_received": flow.received.payload_octets,
        "first_frame": flow.first_frame,
        "last_frame": flow.last_frame,
        "started_at": flow.started_at,
        "ended_at": flow.ended_at,
        "bursts": flow.bursts,
    }


def _tunnel_to_dict(tunnel: Tunnel) -> dict[str, Any]:
    return {
        "protocol": tunnel.protocol,
        "transport": tunnel.transport,
        "client": str(tunnel.client),
        "server": str(tunnel.server),
        "rule": tunnel.rule,
        "frame": tunnel.frame,
        "packet": tunnel.packet,
        "certainty": tunnel.certainty.value,
        "false_positives": tunnel.false_positives,
        "layers": list(tunnel.layers),
    }


def _sighting_to_dict(sighting: Sighting) -> dict[str, Any]:
    return {
        "kind": sighting.kind.value,
        "value": sighting.value,
        "frames": list(sighting.frames),
        "time": sighting.time,
        "filter": sighting.display_filter,
        "via": sighting.via,
        "detail": dict(sighting.detail),
    }

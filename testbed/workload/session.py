"""What the whole workload shows whatever the tunnel hides: how much crossed the client's own links, and when.

Volumes are the kernel's counters of the node's interfaces, without the loopback and without tunnel devices: what went
into a tunnel comes out of a link again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from testbed.facts import Fact, Kind

SESSION_ACTION = "session"
COUNTERS = Path("/proc/thread-self/net/dev")
TUNNEL_DEVICES = ("tun", "tap", "wg")


@dataclass(frozen=True, slots=True)
class LinkCounters:
    """Sums over the node's links."""

    received_octets: int = 0
    received_packets: int = 0
    sent_octets: int = 0
    sent_packets: int = 0

    @classmethod
    def parse(cls, text: str, tunnel: str = "") -> LinkCounters:
        """Shape: the text of /proc/net/dev: two header lines, then `name: ` and 16 numbers; `tunnel` is a device."""
        sums = [0, 0, 0, 0]
        for line in text.splitlines()[2:]:
            name, _, numbers = line.partition(":")
            if name.strip() not in ("lo", tunnel) and not name.strip().startswith(TUNNEL_DEVICES):
                values = [int(number) for number in numbers.split()]
                for place, column in enumerate((0, 1, 8, 9)):
                    sums[place] += values[column]
        return cls(*sums)

    @classmethod
    def read(cls, tunnel: str = "") -> LinkCounters:
        return cls.parse(COUNTERS.read_text(), tunnel)


def session_facts(before: LinkCounters, after: LinkCounters, lasted_s: float, actions: int) -> tuple[Fact, ...]:
    """The volume and the timing of the workload, in words."""
    volume = (
        f"sent {after.sent_packets - before.sent_packets} packets, {after.sent_octets - before.sent_octets} octets; "
        f"received {after.received_packets - before.received_packets} packets, "
        f"{after.received_octets - before.received_octets} octets"
    )
    return (
        Fact(Kind.VOLUME, volume, SESSION_ACTION),
        Fact(Kind.TIMING, f"{actions} actions in {lasted_s:.3f} s", SESSION_ACTION),
    )

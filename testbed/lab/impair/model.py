"""What can be wrong with one direction of a link, as a frozen value. Pure.

The meanings are those of the kernel's netem, with these differences, each so that the options do not undo each other:

- Jitter alone never reorders; only what `reorder` picks overtakes.
- A packet that overtakes skips the delay but not the line: the rate holds for every octet.
- A packet's copy is a packet of its own: it can be lost, delayed and overtaken like any other.

Sources: tc-netem(8); kernel net/sched/sch_netem.c (meanings only).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

NETEM_QUEUE_PACKETS = 1000  # netem's own default limit
MAX_DELAY_S = 3600.0


@dataclass(frozen=True, slots=True)
class Impairment:
    """One direction of a link.

    Shape: `loss`, `duplicate` and `reorder` are shares from 0 to 1; `queue_packets` bounds everything that is held,
        what waits for the line and what is delayed alike
    Units: `rate_bit_s` in bit/s over the octets of whole frames, Ethernet header included; None is no limit
    Errors: ValueError for what no link can be
    """

    rate_bit_s: float | None = None
    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    queue_packets: int = NETEM_QUEUE_PACKETS
    jitter_shape: Literal["uniform", "normal"] = "uniform"  # within ± jitter_s, or with that standard deviation

    def __post_init__(self) -> None:
        if self.rate_bit_s is not None and not 1 <= self.rate_bit_s < float("inf"):
            raise ValueError(f"rate_bit_s is {self.rate_bit_s}; it must be 1 or more")
        for name in ("delay_s", "jitter_s"):
            if not 0 <= getattr(self, name) <= MAX_DELAY_S:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be from 0 to {MAX_DELAY_S:g}")
        for name in ("loss", "duplicate", "reorder"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be from 0 to 1")
        if self.queue_packets < 1:
            raise ValueError(f"queue_packets is {self.queue_packets}; it must be 1 or more")
        if self.jitter_shape not in ("uniform", "normal"):
            raise ValueError(f"jitter_shape is {self.jitter_shape}; it must be uniform or normal")

    def to_dict(self) -> dict[str, Any]:
        """Return the value as JSON values: `Impairment(**value.to_dict()) == value`."""
        return asdict(self)

    def describe(self) -> str:
        """Return the value for people: only what differs from a plain cable."""
        words = [
            ("rate", self.rate_bit_s and f"{self.rate_bit_s / 1e6:g} Mbit/s"),
            ("delay", self.delay_s and f"{self.delay_s * 1e3:g} ms"),
            ("jitter", self.jitter_s and f"{self.jitter_s * 1e3:g} ms ({self.jitter_shape})"),
            ("loss", self.loss and f"{self.loss * 100:g} %"),
            ("duplicate", self.duplicate and f"{self.duplicate * 100:g} %"),
            ("reorder", self.reorder and f"{self.reorder * 100:g} %"),
            ("queue", f"{self.queue_packets} packets"),
        ]
        return ", ".join(f"{name} {value}" for name, value in words if value)

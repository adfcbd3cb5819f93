"""How long a session may last: without traffic (`inactive`) and in all (`session-timeout`). Pure.

Traffic is what inner packets carry, both ways; pings and control packets do not count.
Source: openvpn(8), "--inactive" and "--session-timeout".
"""

from __future__ import annotations

from vpn.events import CloseReason
from vpn.settings import Timers

_NEVER = float("inf")


class Limits:
    """Nothing is limited before `start` and after `stop`. Units: seconds in the time of `now`."""

    __slots__ = ("_ends_at", "_idle_at", "_noted_octets", "_timers")

    def __init__(self) -> None:
        self._timers = Timers()
        self._noted_octets = 0
        self._idle_at = _NEVER
        self._ends_at = _NEVER

    def start(self, timers: Timers, now: float) -> None:
        self._timers = timers
        self._ends_at = now + timers.session_timeout if timers.session_timeout > 0 else _NEVER
        self._idle_at = now + timers.inactive if timers.inactive > 0 else _NEVER

    def stop(self) -> None:
        self._ends_at = self._idle_at = _NEVER

    def note(self, octets: int, now: float) -> None:
        """`octets` have been carried since the session's beginning."""
        if self._idle_at != _NEVER and octets - self._noted_octets >= max(1, self._timers.inactive_octets):
            self._noted_octets = octets
            self._idle_at = now + self._timers.inactive

    @property
    def due_at(self) -> float:
        """When `reached` will say so; infinity for never."""
        return min(self._ends_at, self._idle_at)

    def reached(self, now: float) -> CloseReason | None:
        if self._ends_at <= now:
            return CloseReason.SESSION_TIMEOUT
        return CloseReason.INACTIVE if self._idle_at <= now else None

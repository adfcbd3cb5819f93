"""The same moment twice: the observer's packet lists of two variants side by side, aligned by what the client did.

A line names the other end and the direction, since one end is always the client; link-layer chatter is kept, as the
observer has it too. Packets before the client's first action stand in a row of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from testbed.report.html_ladder import Opened, during, kind_of_line, short_text
from testbed.report.packets import PacketLine
from testbed.report.places import Places
from testbed.report.summary import started_at
from testbed.report.words import action_in_words
from testbed.result import VariantResult

_LINES_SHOWN = 24  # per action and variant
_SETTING_UP = "before the first action"


@dataclass(frozen=True, slots=True)
class LineView:
    """One packet as a listener at the line reads it. Shape: `arrow` is →, ← or · where the client is no end"""

    frame: int
    packet_id: str
    time: str
    arrow: str
    direction: str
    end: str
    octets: int
    protocol: str
    text: str
    sealed: bool


@dataclass(frozen=True, slots=True)
class SideView:
    lines: tuple[LineView, ...]
    more: int
    octets: int
    absent: bool  # the variant did not do this


@dataclass(frozen=True, slots=True)
class MomentView:
    title: str
    action: str
    setting_up: bool
    sides: tuple[SideView, SideView]


@dataclass(frozen=True, slots=True)
class MomentsView:
    """Two variants compared. Shape: `names` are those of the two sides"""

    names: tuple[str, str]
    moments: tuple[MomentView, ...]


@dataclass(frozen=True, slots=True)
class Side:
    variant: VariantResult
    file: str
    lines: Sequence[PacketLine]
    places: Places
    sealed: frozenset[int] = frozenset()  # frames known to be sealed although their octets do not show it


def moments(left: Side, right: Side, opened: Opened) -> MomentsView:
    titles: dict[str, str] = {}
    for side in (left, right):
        for action in side.variant.actions:
            titles.setdefault(action.id, action_in_words(action))
    sides = [_by_action(side) for side in (left, right)]
    keys = [_SETTING_UP, *titles]
    made = []
    for key in keys:
        pair = (_side(left, sides[0].get(key), opened), _side(right, sides[1].get(key), opened))
        if any(side.lines for side in pair):
            setting_up = key == _SETTING_UP
            title = "before that: the line, and where there is one the tunnel, is set up" if setting_up else titles[key]
            made.append(MomentView(title, "" if setting_up else key, setting_up, pair))
    return MomentsView((left.variant.name, right.variant.name), tuple(made))


def _by_action(side: Side) -> dict[str, list[PacketLine]]:
    zero = started_at(side.variant)
    found = {_SETTING_UP: [line for line in side.lines if zero is not None and line.time < zero]}
    for action in side.variant.actions:
        found[action.id] = during(action, side.variant, side.lines)
    if zero is None:
        found[_SETTING_UP] = list(side.lines)
    return found


def _side(side: Side, lines: Sequence[PacketLine] | None, opened: Opened) -> SideView:
    if lines is None:
        return SideView((), 0, 0, absent=True)
    zero = started_at(side.variant)
    shown = tuple(_line(line, side, zero, opened) for line in lines[:_LINES_SHOWN])
    return SideView(shown, len(lines) - len(shown), sum(line.length_octets for line in lines), absent=False)


def _line(line: PacketLine, side: Side, zero: float | None, opened: Opened) -> LineView:
    up, down = line.source in side.places.clients, line.destination in side.places.clients
    arrow, direction = ("→", "to") if up else ("←", "from") if down else ("·", "between others, to")
    protocol, text = short_text(line)
    return LineView(
        frame=line.frame,
        packet_id=opened((side.file, line.frame)),
        time=f"{line.time:.6f}" if zero is None else f"{line.time - zero:+.3f}",
        arrow=arrow,
        direction=direction,
        end=line.source if down else line.destination,
        octets=line.length_octets,
        protocol=protocol,
        text=text,
        sealed=line.frame in side.sealed or kind_of_line(line) != "clear",
    )


def all_moments(pairs: Sequence[tuple[str, str]], sides: Mapping[str, Side], opened: Opened) -> list[MomentsView]:
    """A comparison for each pair of variants that both have a packet list."""
    return [moments(sides[a], sides[b], opened) for a, b in pairs if a in sides and b in sides]

"""Datagrams of several senders that came in turns: put together by sender, so that many go the way of many at once.

    in memory, as they came     A B C A B C A B …         gathered     A A A …   B B B …   C C C …

Each sender's datagrams keep their order; of different senders' none is promised. A train begins at few places only:
views of them are kept. What is too little for a train stays a list.
"""

from __future__ import annotations

from dataclasses import dataclass

from vpn.dataplane.train import LARGE_OCTETS, LONGEST_TRAIN
from vpn.settings import Address

LEAST_GATHERED = 12  # twice what makes a train of what lies together: putting together costs, and one alone is quick
_PLACE_OCTETS = 32768
GATHERING_OCTETS = 8 * _PLACE_OCTETS


@dataclass(slots=True)  # not frozen: that takes three times as long to make, and one is made per datagram
class Run:
    """Datagrams of one sender and size, one behind the other. Shape: the last may be shorter."""

    address: Address
    at: int
    octets: int
    size: int


def gathered(runs: list[Run], buffer: memoryview, room_at: int) -> list[Run]:
    """The runs by sender, in the order of the first of each; many alike of one sender are one.

    Shape: from `room_at` on `buffer` has room for `GATHERING_OCTETS`, in which the joined ones lie.
    """
    by_sender: dict[Address, list[Run]] = {}
    for run in runs:
        by_sender.setdefault(run.address, []).append(run)
    found: list[Run] = []
    ends_at = room_at + GATHERING_OCTETS
    for own in by_sender.values():
        for like in _alike(own):
            octets, size = sum(run.octets for run in like), like[0].size
            is_worth = len(like) > 1 and octets >= LEAST_GATHERED * size
            if is_worth and octets <= min(_PLACE_OCTETS, LONGEST_TRAIN * size) and room_at < ends_at:
                found.append(_joined(like, buffer, room_at, octets))
                room_at += _PLACE_OCTETS
            else:
                found += like
    return found


def are_worth_gathering(runs: list[Run]) -> bool:
    """Whether there are several senders, and enough of each on the average; of very many it looks at a few."""
    most, senders = len(runs) // LEAST_GATHERED, set()
    if most < 2:
        return False
    for run in runs:
        senders.add(run.address)
        if len(senders) > most:
            return False
    return len(senders) > 1


def _alike(runs: list[Run]) -> list[list[Run]]:
    """One sender's runs in order, cut where they cannot be one train: another size, or behind a shorter last one.

    An empty datagram is in no train.
    """
    found: list[list[Run]] = []
    for run in runs:
        before = found[-1][-1] if found else None
        if before is None or before.size != run.size or not 0 < run.size < LARGE_OCTETS or before.octets % run.size:
            found.append([run])
        else:
            found[-1].append(run)
    return found


def _joined(runs: list[Run], buffer: memoryview, place: int, octets: int) -> Run:
    at = place
    for run in runs:
        buffer[at : at + run.octets] = buffer[run.at : run.at + run.octets]
        at += run.octets
    return Run(runs[0].address, place, octets, runs[0].size)

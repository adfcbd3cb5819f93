"""What waits for its turn: a ping does not wait behind a stream, and nothing overtakes another packet of its flow."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vpn.dataplane.backlog import BATCH_SUPERPACKETS, HELD_OCTETS, HELD_PACKETS, SHORT_TURNS, Backlog, Held, Turns
from vpn.dataplane.offload import TCP, UDP, Superpacket

ICMP, ICMP6, EXPERIMENT = 1, 58, 253
FRAGMENT = 0x20


def packet(version: int, protocol: int, number: int, *, fragment: bool = False) -> bytes:
    if version == 4:
        return (
            bytes((0x45, 0, 0, 0, 0, 0, FRAGMENT * fragment, 0, 64, protocol)) + bytes(10) + number.to_bytes(4, "big")
        )
    head = bytes((0x60, 0, 0, 0, 0, 0, 44 if fragment else protocol, 64)) + bytes(32)
    return head + number.to_bytes(4, "big")


def superpacket(version: int, protocol: int, number: int, octets: int = 3000) -> Superpacket:
    head = 20 if version == 4 else 40
    return Superpacket(packet(version, protocol, number) + bytes(octets), head, head + 8, 1000, protocol)


def number_of(held: Held) -> int:
    octets = held if isinstance(held, bytes) else held.octets
    at = 20 if octets[0] >> 4 == 4 else 40
    return int.from_bytes(octets[at : at + 4], "big")


Kind = tuple[int, int, bool, bool]  # version, protocol, superpacket, fragment
kinds = st.tuples(
    st.sampled_from([4, 6]), st.sampled_from([TCP, UDP, ICMP, ICMP6, EXPERIMENT]), st.booleans(), st.booleans()
)


@given(st.lists(st.one_of(kinds, st.none()), max_size=80))  # None: one is taken
def test_nothing_is_lost_and_nothing_overtakes_a_packet_of_its_protocol(
    story: list[tuple[int, int, bool, bool] | None],
) -> None:
    backlog, added, out = Backlog(), dict[int, tuple[int, int]](), list[int]()
    for number, kind in enumerate(story):
        if kind is None:
            if len(backlog):
                out.append(number_of(backlog.pop()))
            continue
        version, protocol, is_large, is_fragment = kind
        large = is_large and protocol in (TCP, UDP)
        made: Held = (
            superpacket(version, protocol, number)
            if large
            else packet(version, protocol, number, fragment=is_fragment and protocol != TCP)
        )
        assert backlog.add(made) == 0
        added[number] = (version, protocol)
    while len(backlog):
        out.append(number_of(backlog.pop()))
    assert sorted(out) == sorted(added)
    for flow in set(added.values()):
        of_flow = [number for number in out if added[number] == flow]
        assert of_flow == sorted(of_flow)


def test_a_ping_and_a_question_to_a_resolver_go_ahead_of_a_stream_and_its_acknowledgements_do_not() -> None:
    backlog = Backlog()
    for number in range(5):
        backlog.add(superpacket(4, TCP, number))
    backlog.add(packet(4, TCP, 5))
    backlog.add(packet(4, ICMP, 6))
    backlog.add(packet(6, UDP, 7))
    assert [number_of(backlog.pop()) for _ in range(8)] == [6, 7, 0, 1, 2, 3, 4, 5]


def test_there_is_an_end_to_what_is_held_in_packets_and_in_octets() -> None:
    small, large = Backlog(), Backlog()
    assert sum(small.add(packet(4, UDP, number)) for number in range(HELD_PACKETS + 7)) == 7
    assert small.has_enough
    octets = 60_000
    fit = HELD_OCTETS // (octets + 24)
    refused = sum(large.add(superpacket(4, TCP, number, octets)) for number in range(fit + 2))
    assert refused == 2 * superpacket(4, TCP, 0, octets).segments
    assert not large.has_enough


def test_a_datagram_does_not_overtake_one_that_came_before_the_stream_or_may_be_of_its_flow() -> None:
    before, large, cut = Backlog(), Backlog(), Backlog()
    before.add(packet(4, UDP, 0))
    before.add(superpacket(4, TCP, 1))
    large.add(superpacket(4, TCP, 0))
    large.add(superpacket(4, UDP, 1))
    cut.add(superpacket(4, TCP, 0))
    cut.add(packet(4, UDP, 1, fragment=True))
    for backlog in (before, large, cut):
        backlog.add(packet(4, UDP, 2))
        assert [number_of(backlog.pop()) for _ in range(3)] == [0, 1, 2]


def test_turns_are_short_for_a_while_after_a_ping_beside_a_stream_and_after_nothing_else() -> None:
    turns = Turns()
    turns.note(packet(4, ICMP, 0))
    assert turns.begin() == BATCH_SUPERPACKETS  # no stream
    turns.note(superpacket(4, TCP, 1))
    turns.note(packet(4, TCP, 2))
    assert turns.begin() == BATCH_SUPERPACKETS
    turns.note(packet(4, UDP, 3))
    turns_taken = [turns.begin() for _ in range(SHORT_TURNS + 1)]
    assert turns_taken == [1] * (SHORT_TURNS - 1) + [BATCH_SUPERPACKETS] * 2
    turns.note(packet(6, ICMP6, 4))
    assert turns.begin() == BATCH_SUPERPACKETS  # the stream has ended

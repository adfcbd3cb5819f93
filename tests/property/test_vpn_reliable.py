"""Reliability layer and replay windows against models that are slow and obvious."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vpn.crypto.replay import ReplayWindow, StampWindow
from vpn.reliable.acks import AckLedger
from vpn.reliable.receive import RECEIVE_WINDOW, Message, ReceiveWindow, Verdict
from vpn.reliable.send import SEND_WINDOW, SendWindow
from vpn.wire.packet import MessageId, Opcode
from vpn.wire.wrapped import ReplayStamp


class SlowWindow:
    """Remembers everything it ever accepted."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.accepted: set[int] = set()

    def accept(self, packet_id: int) -> bool:
        highest = max(self.accepted, default=0)
        good = packet_id > 0 and packet_id not in self.accepted and packet_id > highest - self.width
        if good:
            self.accepted.add(packet_id)
        return good


near = st.integers(0, 300)
far = st.integers(0, 0xFFFFFFFF)


@given(st.lists(st.one_of(near, far), max_size=200), st.sampled_from([1, 8, 64, 512]))
def test_the_replay_window_agrees_with_a_set_of_everything(ids: list[int], width: int) -> None:
    window, model = ReplayWindow(width), SlowWindow(width)
    for packet_id in ids:
        assert window.accept(packet_id, 0.0) == model.accept(packet_id)


@given(st.lists(st.tuples(near, st.integers(0, 5)), max_size=100))
def test_an_id_is_late_when_a_later_one_came_long_before(steps: list[tuple[int, int]]) -> None:
    # whole seconds, so that the window's one-second memory is exact
    window, now = ReplayWindow(64, 15.0), 0.0
    arrivals: list[tuple[float, int]] = []
    for packet_id, pause in steps:
        now += 2.0 * pause
        highest = max((number for _, number in arrivals), default=0)
        late = any(number >= packet_id and now - at > 15.0 for at, number in arrivals)
        seen = any(number == packet_id for _, number in arrivals)
        expected = packet_id > 0 and not seen and packet_id > highest - 64 and not late
        assert window.accept(packet_id, now) == expected
        if expected:
            arrivals.append((now, packet_id))


def test_the_window_holds_at_its_edges() -> None:
    window = ReplayWindow()
    assert window.accept(100, 0.0)
    assert not window.accept(100 - 64, 0.0)
    assert window.accept(100 - 63, 0.0)
    assert not window.accept(100 - 63, 0.0)
    assert window.accept(0xFFFFFFFF, 0.0)
    assert not window.accept(101, 0.0)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 80)), max_size=120))
def test_stamps_of_an_earlier_time_are_never_accepted(stamps: list[tuple[int, int]]) -> None:
    window, newest, model = StampWindow(), -1, SlowWindow(64)
    for time, counter in stamps:
        expected = counter > 0 and time >= newest
        if expected and time > newest:
            newest, model = time, SlowWindow(64)
        expected = expected and model.accept(counter)
        assert window.accept(ReplayStamp(counter, time), 0.0) == expected


def message(number: int) -> Message:
    return Message(MessageId(number), Opcode.CONTROL_V1, b"%d" % number)


@given(st.lists(st.integers(0, 40), max_size=150))
def test_messages_come_out_once_and_in_order(numbers: list[int]) -> None:
    window, delivered, stored = ReceiveWindow(), list[int](), set[int]()
    for number in numbers:
        verdict = window.accept(message(number))
        expected = len(delivered)
        if number >= expected + RECEIVE_WINDOW:
            assert verdict is Verdict.BEYOND
        elif number in stored:
            assert verdict is Verdict.DUPLICATE
        else:
            assert verdict is Verdict.NEW
            stored.add(number)
        while (taken := window.take()) is not None:
            delivered.append(taken.message_id)
    assert delivered == list(range(len(delivered)))
    assert len(delivered) not in stored


@given(st.lists(st.one_of(st.none(), st.integers(0, 30)), max_size=80))
def test_at_most_six_numbers_are_out_and_none_is_lost(steps: list[int | None]) -> None:
    """None: push if there is room; a number: its acknowledgement arrives."""
    window, pushed, unacked = SendWindow(2.0), 0, set[int]()
    for step in steps:
        lowest = min(unacked, default=pushed)
        assert window.has_room == (pushed - lowest < SEND_WINDOW)
        if step is None:
            if window.has_room:
                window.push(Opcode.CONTROL_V1, b"", 0.0)
                unacked.add(pushed)
                pushed += 1
        else:
            assert window.acknowledge([MessageId(step)]) == (step in unacked)
            unacked.discard(step)
    window.expedite(0.0)
    assert {due.message_id for due in window.due(0.0)} == unacked
    assert window.is_idle == (not unacked)


def test_a_message_is_sent_again_after_two_four_and_eight_seconds() -> None:
    window = SendWindow(2.0)
    window.push(Opcode.CONTROL_V1, b"x", 0.0)
    sent = [now for now in range(40) if window.due(float(now))]
    assert sent == [0, 2, 6, 14, 22, 30, 38]


def test_three_later_acknowledgements_make_a_message_due_at_once() -> None:
    window = SendWindow(2.0)
    for _ in range(4):
        window.push(Opcode.CONTROL_V1, b"", 0.0)
    assert len(window.due(0.0)) == 4
    window.acknowledge([MessageId(1), MessageId(2)])
    assert window.due(0.1) == []
    window.acknowledge([MessageId(3)])
    assert [due.message_id for due in window.due(0.1)] == [0]
    assert window.due(0.2) == []


@given(st.lists(st.one_of(st.integers(0, 30).map(MessageId), st.sampled_from(["control", "ack"])), max_size=100))
def test_new_acknowledgements_go_first_and_old_ones_fill_up(steps: list[MessageId | str]) -> None:
    ledger, pending, sent = AckLedger(), list[MessageId](), set[MessageId]()
    for step in steps:
        if isinstance(step, int):
            ledger.note(step)
            if step not in pending:
                pending.append(step)
            continue
        limit = 4 if step == "control" else 8
        acks = ledger.take(limit)
        fresh, pending = pending[:limit], pending[limit:]
        assert list(acks[: len(fresh)]) == fresh
        assert len(acks) <= limit
        assert len(set(acks)) == len(acks)
        assert set(acks[len(fresh) :]) <= sent
        sent.update(acks)
        assert len(acks) == min(limit, len(sent)) or len(acks) == min(limit, 8)
        assert ledger.is_due == bool(pending)

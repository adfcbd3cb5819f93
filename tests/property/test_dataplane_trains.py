"""Sealing and opening many packets at once against one by one: the same datagrams, packets, drops and window."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vpn.crypto.replay import ReplayWindow
from vpn.crypto.static_key import KeyHalf
from vpn.dataplane.cipher import AEAD_CIPHERS, LAST_PACKET_ID, AeadOpener, AeadSealer
from vpn.dataplane.rows import PACKET_AT, Rows, RowShape
from vpn.dataplane.train import Train
from vpn.dataplane.workbench import Workbench
from vpn.drops import Drops
from vpn.settings import Cipher
from vpn.wire.stream import frame, framed_runs

HALF = KeyHalf(bytes(range(64)), bytes(range(64, 128)))
V2, V1 = b"\x48\x00\x00\x07", b"\x30"
CIPHERS = sorted(AEAD_CIPHERS)


def rows_of(packets: list[bytes], last: bytes = b"") -> Rows:
    shape = RowShape(len(packets[0]))
    for row, packet in enumerate(packets):
        shape.array[row, PACKET_AT : PACKET_AT + len(packet)] = list(packet)
    return Rows(shape, len(packets), last)


def packets_of(count: int, octets: int, last: int) -> tuple[list[bytes], bytes]:
    packets = [bytes((index + at) & 0xFF for at in range(octets)) for index in range(count)]
    return packets, bytes(min(last, octets - 1))


def train_of(datagrams: list[bytes], at: int = 0) -> Train:
    """Datagrams of one size, the last perhaps shorter, as a receive call leaves them, with others behind them."""
    octets = b"".join(datagrams)
    memory = bytearray(bytes(at) + octets + b"\xee" * 64)
    return Train(memoryview(memory), at, len(octets), len(datagrams[0]))


@pytest.mark.parametrize("header", [V1, V2])
@pytest.mark.parametrize("cipher", CIPHERS)
@given(count=st.integers(1, 40), octets=st.integers(1, 300), last=st.integers(0, 299), before=st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_a_train_holds_the_very_datagrams_that_one_by_one_gives(
    cipher: Cipher, header: bytes, count: int, octets: int, last: int, before: int
) -> None:
    packets, rest = packets_of(count, octets, last)
    plain, many = AeadSealer(cipher, HALF, header), AeadSealer(cipher, HALF, header)
    plain.last_packet_id = many.last_packet_id = before
    expected = plain.seal_batch([*packets, rest] if rest else packets)
    for lead in (0, 2):
        many.last_packet_id = before
        train = many.seal_rows(rows_of(packets, rest), lead, Workbench())
        assert train is not None
        assert train.datagrams() == expected
        assert (len(train), many.last_packet_id) == (len(expected), plain.last_packet_id)
        stream = b"".join(map(frame, expected)) if lead else b"".join(expected)
        assert bytes(train.view) == stream


@pytest.mark.parametrize("header", [V1, V2])
@pytest.mark.parametrize("cipher", CIPHERS)
@given(
    order=st.lists(st.integers(0, 90), min_size=1, max_size=30),
    octets=st.integers(1, 200),
    last=st.integers(0, 199),
    spoiled=st.integers(-30, 29),
    at=st.sampled_from([0, 1, 24, 4096]),
)
@settings(max_examples=25, deadline=None)
def test_a_train_opens_to_what_one_by_one_gives(
    cipher: Cipher, header: bytes, order: list[int], octets: int, last: int, spoiled: int, at: int
) -> None:
    """In any order, with repetitions, gaps and a spoiled one; what lies around the train stays as it is."""
    packets, rest = packets_of(91, octets, last)
    sealer = AeadSealer(cipher, HALF, header)
    sealed = sealer.seal_batch(packets)
    datagrams = [sealed[number] for number in order] + (sealer.seal_batch([rest]) if rest else [])
    if 0 <= spoiled < len(order):
        datagrams[spoiled] = datagrams[spoiled][:-1] + bytes((datagrams[spoiled][-1] ^ 1,))
    plain = AeadOpener(cipher, HALF, ReplayWindow(8))
    many = AeadOpener(cipher, HALF, ReplayWindow(8))
    bench, expected_drops, drops = Workbench(), Drops(), Drops()
    for _ in range(2):  # the second time all is replayed
        train = train_of(datagrams, at)
        opened = many.open_train(train, 0.0, drops, bench)
        if opened is None:
            assert train.datagrams() == datagrams
            found = many.open_batch(train.datagrams(), 0.0, drops)
        else:
            assert not 0 <= spoiled < len(order)
            found = opened if isinstance(opened, list) else opened.packets()
        assert found == plain.open_batch(datagrams, 0.0, expected_drops)
        assert drops.by_reason() == expected_drops.by_reason()
        assert bytes(train.buffer[:at]) == bytes(at)
        assert bytes(train.buffer[train.at + train.octets :]) == b"\xee" * 64


@given(st.integers(1, 30), st.integers(40, 80))
@settings(max_examples=20, deadline=None)
def test_datagrams_of_another_key_or_sender_are_left_to_the_plain_way(count: int, octets: int) -> None:
    sealer, other = AeadSealer(CIPHERS[0], HALF, V2), AeadSealer(CIPHERS[0], HALF, b"\x49\x00\x00\x07")
    packets, _ = packets_of(count, octets, 0)
    train = train_of(sealer.seal_batch(packets) + other.seal_batch(packets))
    drops = Drops()
    opener = AeadOpener(CIPHERS[0], HALF, ReplayWindow())
    assert opener.open_train(train, 0.0, drops, Workbench()) is None
    assert drops.total == 0


def test_rows_never_use_a_packet_id_twice() -> None:
    sealer = AeadSealer(CIPHERS[0], HALF, V2)
    sealer.last_packet_id = LAST_PACKET_ID - 9
    packets, _ = packets_of(10, 20, 0)
    assert sealer.seal_rows(rows_of(packets), 0, Workbench()) is None
    assert sealer.last_packet_id == LAST_PACKET_ID - 9
    assert sealer.seal_rows(rows_of(packets[:9]), 0, Workbench()) is not None
    assert sealer.seal_batch([b"one more"]) == []


def test_two_keys_share_a_workbench_and_keep_apart() -> None:
    bench = Workbench()
    packets, rest = packets_of(12, 50, 7)
    halves = [KeyHalf(bytes((number,)) * 64, bytes((number + 9,)) * 64) for number in range(2)]
    sealers = [AeadSealer(CIPHERS[0], half, V2) for half in halves]
    openers = [AeadOpener(CIPHERS[0], half, ReplayWindow()) for half in halves]
    for turn in (0, 1, 0, 1, 1, 0):
        train = sealers[turn].seal_rows(rows_of(packets, rest), 0, bench)
        assert train is not None
        datagrams = train.datagrams()
        opened = openers[turn].open_train(train_of(datagrams), 0.0, Drops(), bench)
        assert isinstance(opened, Rows)
        assert opened.packets() == [*packets, rest]


@given(st.integers(1, 70), st.integers(1, 200), st.integers(1, 100), st.integers(0, 70))
@example(30, 5, 64, 0)  # begins with the highest of all before: drawn once in seventy times
@example(31, 5, 64, 0)
def test_a_run_of_ids_does_to_the_window_what_each_alone_does(first: int, count: int, width: int, probe: int) -> None:
    one, run = ReplayWindow(width), ReplayWindow(width)
    for window in (one, run):
        window.accept(30, 0.0)
        window.accept(28, 0.0)
    if run.accept_run(first, count, 0.0):
        assert [one.accept(number, 0.0) for number in range(first, first + count)] == [True] * count
    else:
        assert first <= 30
    assert run.highest == one.highest
    late = max(1, run.highest - probe)
    assert run.accept(late, 0.0) == one.accept(late, 0.0)


@given(st.lists(st.integers(1, 30), max_size=60), st.integers(0, 40))
def test_runs_in_a_stream_are_its_packets_in_order(lengths: list[int], cut: int) -> None:
    packets = [bytes((index & 0xFF,)) * length for index, length in enumerate(lengths)]
    stream = b"".join(map(frame, packets))
    whole = len(stream) - min(cut, len(stream))
    memory = memoryview(bytearray(stream))
    found, end = list[bytes](), 0
    for at, slot, count in framed_runs(memory, whole):
        assert at == end
        end = at + slot * count
        found += Train(memory, at, slot * count, slot, lead=2).datagrams()
    assert found == packets[: len(found)]
    assert sum(len(packet) + 2 for packet in packets[: len(found) + 1]) > whole or len(found) == len(packets)


def test_no_memory_is_laid_out_for_a_size_that_nobody_authentic_has_sent() -> None:
    bench = Workbench()
    sealer, opener = AeadSealer(CIPHERS[0], HALF, V2), AeadOpener(CIPHERS[0], HALF, ReplayWindow())
    datagrams = sealer.seal_batch(packets_of(10, 100, 0)[0])
    forged = [datagram[:-1] + bytes((datagram[-1] ^ 1,)) for datagram in datagrams]
    assert opener.open_train(train_of(forged), 0.0, Drops(), bench) is None
    assert not bench.knows(100)
    assert opener.open_train(train_of(datagrams), 0.0, Drops(), bench) is not None
    assert bench.knows(100)


@pytest.mark.parametrize("lead", [0, 2])
@pytest.mark.parametrize("header", [V1, V2])
@given(octets=st.integers(0, 65_000), at=st.sampled_from([0, 7]))
@settings(max_examples=10, deadline=None)
def test_a_large_packet_is_sealed_and_opened_in_place_as_any_other(
    header: bytes, lead: int, octets: int, at: int
) -> None:
    plaintext = bytes(index & 0xFF for index in range(octets))
    plain, large = AeadSealer(CIPHERS[0], HALF, header), AeadSealer(CIPHERS[0], HALF, header)
    (expected,) = plain.seal_batch([plaintext])
    train = large.seal_large(plaintext, lead)
    assert train is not None
    assert bytes(train.view) == ((len(expected) & 0xFFFF).to_bytes(2, "big") if lead else b"") + expected
    opener, drops = AeadOpener(CIPHERS[0], HALF, ReplayWindow()), Drops()
    received = train_of([expected], at)
    assert opener.open_train(received, 0.0, drops, None) == [plaintext]
    assert opener.open_train(received, 0.0, drops, None) == []
    assert drops.total == 1
    assert received.datagrams() == [expected]
    received.buffer[at + len(expected) - 1] ^= 1
    assert opener.open_train(received, 0.0, drops, None) is None
    assert bytes(received.buffer[at + len(expected) :]) == b"\xee" * 64

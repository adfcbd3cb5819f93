"""The UDP link on the loopback: what goes in at one end, in whatever batches, comes out at the other in order."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator

import pytest

from vpn.config.model import Family, Protocol, SocketSettings
from vpn.dataplane.train import LARGE_OCTETS, LEAST_TRAIN, Outgoing, Train
from vpn.driver.udp import UdpLink
from vpn.settings import Address, Transport

SETTINGS = SocketSettings(protocol=Protocol(Transport.UDP, Family.IPV4))
PATIENCE_SECONDS = 20.0


class Watched:
    """The descriptors a link asks for."""

    def __init__(self) -> None:
        self.descriptors: list[int] = []

    def watch(self, descriptor: int, events: int = select.EPOLLIN) -> None:
        self.descriptors.append(descriptor)

    def unwatch(self, descriptor: int) -> None:
        self.descriptors.remove(descriptor)


class End:
    def __init__(self) -> None:
        self.watched = Watched()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            self.address: Address = probe.getsockname()
        self.link = UdpLink(SETTINGS, socket.AF_INET, self.address, self.watched)

    def taken(self, octets: int) -> tuple[list[bytes], list[int]]:
        """The datagrams of so many octets, and how many each train had."""
        datagrams: list[bytes] = []
        trains: list[int] = []
        (descriptor,) = self.watched.descriptors
        while sum(map(len, datagrams)) < octets:
            if not select.select([descriptor], [], [], PATIENCE_SECONDS)[0]:
                raise AssertionError(f"{len(datagrams)} datagrams came, then nothing")
            for _, arrived in self.link.receive(descriptor):
                if isinstance(arrived, Train):
                    trains.append(len(arrived))
                    arrived = arrived.datagrams()
                datagrams += arrived
        return datagrams, trains


@pytest.fixture
def ends() -> Iterator[tuple[End, End]]:
    one, other = End(), End()
    yield one, other
    one.link.close()
    other.link.close()


def numbered(count: int, octets: int, first: int = 0) -> list[bytes]:
    return [bytes(((first + index) & 0xFF,)) * octets for index in range(count)]


def train_of(datagrams: list[bytes]) -> Train:
    octets = b"".join(datagrams)
    return Train(memoryview(bytearray(octets)), 0, len(octets), len(datagrams[0]))


@pytest.mark.parametrize("count", [1, 2, LEAST_TRAIN, 44, 64, 65, 130])
@pytest.mark.parametrize("last", [0, 1, 999])
def test_a_train_arrives_as_its_datagrams(count: int, last: int, ends: tuple[End, End]) -> None:
    here, there = ends
    datagrams = numbered(count, 1000) + ([bytes(last)] if last else [])
    here.link.send([(train_of(datagrams), there.address)])
    found, trains = there.taken(sum(map(len, datagrams)))
    assert found == datagrams
    assert here.link.unsent == 0
    assert here.link.octets_sent == there.link.octets_received == sum(map(len, datagrams))
    if count >= 44:
        assert trains  # not one by one


def test_datagrams_of_all_sizes_between_trains_keep_their_order(ends: tuple[End, End]) -> None:
    here, there = ends
    sizes = [100, 100, 100, 99, 1400, 1400, 7, LARGE_OCTETS, LARGE_OCTETS, 100, *[40] * 70, 1, 2, 3]
    singles = [bytes((index & 0xFF,)) * size for index, size in enumerate(sizes)]
    first, second = numbered(20, 300, 5), [*numbered(30, 1300, 9), b"end"]
    sent: list[tuple[Outgoing, Address]] = [(train_of(first), there.address)]
    sent += [(single, there.address) for single in singles]
    sent += [(train_of(second), there.address)]
    here.link.send(sent)
    expected = first + singles + second
    assert there.taken(sum(map(len, expected)))[0] == expected


def test_an_empty_datagram_is_given_to_the_core_which_counts_it(ends: tuple[End, End]) -> None:
    there = ends[1]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for datagram in (b"one", b"", b"two"):
            stranger.sendto(datagram, there.address)
    assert there.taken(6)[0] == [b"one", b"", b"two"]


def test_a_burst_of_empty_datagrams_of_several_strangers_is_all_given_to_the_core(ends: tuple[End, End]) -> None:
    target, count = ends[1], 32
    strangers = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for _ in range(count):
        for stranger in strangers:
            stranger.sendto(b"", target.address)
    strangers[0].sendto(b"last", target.address)
    for stranger in strangers:
        stranger.close()
    (descriptor,) = target.watched.descriptors
    came: list[bytes] = []
    while not came or came[-1] != b"last":
        assert select.select([descriptor], [], [], PATIENCE_SECONDS)[0]
        for _, arrived in target.link.receive(descriptor):
            assert not isinstance(arrived, Train)
            came += arrived
    assert came.count(b"") == len(strangers) * count


def test_two_senders_are_kept_apart(ends: tuple[End, End]) -> None:
    here, there = ends
    (descriptor,) = there.watched.descriptors
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        for index in range(10):
            here.link.send([(bytes((index,)) * 50, there.address)])
            other.sendto(bytes((100 + index,)) * 50, there.address)
        found: dict[Address, list[int]] = {here.address: [], other.getsockname(): []}
        while sum(map(len, found.values())) < 20:
            assert select.select([descriptor], [], [], PATIENCE_SECONDS)[0]
            for address, arrived in there.link.receive(descriptor):
                datagrams = arrived.datagrams() if isinstance(arrived, Train) else arrived
                found[address] += [datagram[0] for datagram in datagrams]
        assert found == {here.address: list(range(10)), other.getsockname(): list(range(100, 110))}


def test_trains_that_end_with_a_shorter_datagram_stay_apart(ends: tuple[End, End]) -> None:
    here, there = ends
    trains = [[*numbered(20, 1000, 20 * place), bytes((200 + place,)) * 500] for place in range(3)]
    here.link.send([(train_of(train), there.address) for train in trains])
    expected = [datagram for train in trains for datagram in train]
    assert there.taken(sum(map(len, expected)))[0] == expected

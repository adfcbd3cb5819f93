"""Which data keys a session opens with while one follows the other."""

from __future__ import annotations

from tests.sim.inner import ip_packet
from tests.sim.setups import KEY
from vpn.crypto.static_key import split_key
from vpn.dataplane.channel import DataChannel, Negotiated, make_data_key
from vpn.drops import Drop, Drops
from vpn.settings import Cipher, Compression, DataSettings, KeyDirection
from vpn.wire.packet import KeyId, PeerId

PACKET = ip_packet("10.8.0.2", "10.8.0.1", 1)
NEGOTIATED = Negotiated(Cipher.AES_256_GCM, True, PeerId(0), Compression.NONE)


def channel(direction: KeyDirection, *numbers: int) -> tuple[DataChannel, Drops]:
    """One that has had these keys, the newest sending."""
    drops = Drops()
    made = DataChannel(drops)
    for number in numbers:
        keys = split_key(bytes((number,)) * 8 + KEY[8:], direction)
        made.install(make_data_key(KeyId(number), keys, NEGOTIATED, DataSettings(), bytes), 0.0)
        made.use_newest()
    return made, drops


def sealed_with(number: int) -> bytes:
    (datagram,) = channel(KeyDirection.NORMAL, number)[0].seal_raw([PACKET], 0.0)
    return datagram


def opens(receiver: DataChannel, number: int) -> bool:
    return receiver.open([sealed_with(number)], 0.0).packets == [PACKET]


def test_the_newest_three_keys_open() -> None:
    receiver, drops = channel(KeyDirection.INVERSE, 0, 1, 2, 3)
    assert [opens(receiver, number) for number in range(4)] == [False, True, True, True]
    assert drops[Drop.NO_DATA_KEY] == 1


def test_with_a_key_whose_time_is_over_all_before_it_are_forgotten() -> None:
    receiver, drops = channel(KeyDirection.INVERSE, 0, 1, 2)
    receiver.retire(KeyId(1))
    assert [opens(receiver, number) for number in range(3)] == [False, False, True]
    assert drops[Drop.NO_DATA_KEY] == 2
    receiver.retire(KeyId(7))
    assert receiver.is_open
    receiver.retire(KeyId(2))
    assert not receiver.is_open

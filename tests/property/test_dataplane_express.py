"""The express way against the way of all others: the same datagrams, packets, drops and counters, whatever comes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet

from vpn.crypto.replay import ReplayWindow
from vpn.crypto.static_key import KeyHalf
from vpn.dataplane.cbc import CbcKey, CbcOpener, CbcSealer
from vpn.dataplane.channel import DataChannel, DataKey, Opened
from vpn.dataplane.cipher import AEAD_CIPHERS, RENEGOTIATE_AT_PACKET_ID, AeadOpener, AeadSealer
from vpn.dataplane.few import MOST_IN_FEW
from vpn.dataplane.inner import source
from vpn.dataplane.mss import MssLimits
from vpn.dataplane.offload import Superpacket
from vpn.dataplane.train import Outgoing, Train
from vpn.drops import Drops
from vpn.settings import Cipher, Compression, Digest
from vpn.wire.occ import PING, OccType, build_occ
from vpn.wire.packet import KeyId

HALF = KeyHalf(bytes(range(64)), bytes(range(64, 128)))
V2, V1 = b"\x48\x00\x00\x07", b"\x30"
NEVER = float("inf")
LIMITS = MssLimits(1300, 1280)
OWN, OTHER = "10.8.0.2", "10.8.0.3"
FOUR, SIX = IP(src=OWN, dst="10.8.0.1"), IPv6(src="2001:db8::2", dst="2001:db8::1")
SYN = TCP(flags="S", options=[("MSS", 1460)])
PACKETS = [
    bytes(packet)
    for packet in (
        FOUR / ICMP() / b"ping",
        FOUR / UDP() / bytes(64),
        FOUR / TCP(flags="A") / b"octets",
        FOUR / TCP(flags="A") / bytes(1300),
        FOUR / SYN,
        SIX / UDP() / b"octets",
        SIX / TCP(flags="PA") / b"octets",
        SIX / SYN,
        FOUR / TCP() / bytes(5000),
        IP(src=OTHER, dst="10.8.0.1") / ICMP(),
        IP(src=OWN, dst="10.8.0.1", frag=3) / bytes(40),
        IP(src=OWN, dst="10.8.0.1", options=b"\x94\x04\x00\x00") / UDP(),
    )
] + [PING, build_occ(OccType.REQUEST), build_occ(OccType.EXIT), b"\x45", b"\x60" * 39, b"\x00" * 60]

packets = st.one_of(st.sampled_from(PACKETS), st.binary(min_size=1, max_size=80))
headers = st.sampled_from([V1, V2])
limits = st.sampled_from([None, LIMITS])


def channel(header: bytes = V2, mss: MssLimits | None = None, *, cipher: Cipher = Cipher.AES_256_GCM) -> DataChannel:
    made = DataChannel(Drops())
    made.mss = mss
    made.install(key(header, cipher), NEVER)
    return made


def key(header: bytes = V2, cipher: Cipher = Cipher.AES_256_GCM, number: int = 0) -> DataKey:
    key_id, window = KeyId(number), ReplayWindow()
    if cipher in AEAD_CIPHERS:
        return DataKey(key_id, AeadSealer(cipher, HALF, header), AeadOpener(cipher, HALF, window))
    secret = CbcKey(cipher, Digest.SHA256, HALF)
    return DataKey(key_id, CbcSealer(secret, header, bytes), CbcOpener(secret, window))


def octets(datagrams: list[Outgoing]) -> list[bytes]:
    return [bytes(datagram.view) if isinstance(datagram, Train) else datagram for datagram in datagrams]


def counters(of: DataChannel) -> tuple[int, ...]:
    """Those that count lone packets, too: what a key carried counts for quotas, and with these none goes by express."""
    newest = of.newest
    return (of.octets_in, of.octets_out, newest.sealer.last_packet_id if newest else 0)


@given(sent=st.lists(packets, max_size=12), header=headers, mss=limits)
@settings(max_examples=150, deadline=None)
def test_what_goes_by_express_is_sealed_as_any_other(sent: list[bytes], header: bytes, mss: MssLimits | None) -> None:
    plain, express = channel(header, mss), channel(header, mss)
    for packet in sent:
        datagram = express.seal_one(packet, 1.0)
        quick = [datagram] if datagram is not None else octets(list(express.seal((packet,), 1.0)))
        assert quick == octets(list(plain.seal((packet,), 1.0)))
        assert counters(express) == counters(plain)


@given(
    sent=st.lists(packets, min_size=1, max_size=8),
    arrivals=st.lists(st.tuples(st.integers(0, 7), st.integers(-1, 60)), max_size=16),
    header=headers,
    mss=limits,
    only_own=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_what_comes_by_express_is_opened_as_any_other(
    sent: list[bytes], arrivals: list[tuple[int, int]], header: bytes, mss: MssLimits | None, only_own: bool
) -> None:
    """Lost, late, twice, and with an octet changed (where the second number is one of the datagram's)."""
    sender, drops = channel(header), Drops()
    datagrams = sender.seal_raw(sent, 0.0)
    plain, express = DataChannel(drops), DataChannel(quick_drops := Drops())
    own = frozenset({source(PACKETS[0]) or b""}) if only_own else None
    for made in (plain, express):
        made.mss = mss
        made.install(key(header), NEVER)
    for index, spoiled in arrivals:
        datagram = bytearray(datagrams[index % len(datagrams)])
        if 0 < spoiled < len(datagram):
            datagram[spoiled] ^= 0x10
        untrusted = bytes(datagram)
        packet = express.open_one(untrusted, own, 1.0)
        if packet is None:
            assert express.open((untrusted,), 1.0) == plain.open((untrusted,), 1.0)
        else:
            assert own is None or source(packet) in own
            assert plain.open((untrusted,), 1.0) == Opened([packet], 1)
        assert counters(express) == counters(plain)
    assert quick_drops.by_reason() == drops.by_reason()


@pytest.mark.parametrize("cipher", sorted(AEAD_CIPHERS))
def test_a_usual_packet_does_go_by_express(cipher: Cipher) -> None:
    sender, receiver = channel(cipher=cipher, mss=LIMITS), channel(cipher=cipher, mss=LIMITS)
    for packet in PACKETS[:4] + PACKETS[5:7]:
        datagram = sender.seal_one(packet, 0.0)
        assert datagram is not None
        assert receiver.open_one(datagram, None, 0.0) == packet
        assert receiver.open_one(datagram, None, 0.0) is None


def stream(segments: int, ip: Packet = FOUR, octets_each: int = 700) -> Superpacket:
    payload = bytes(range(250)) * 100
    whole = bytes(ip / TCP(flags="PA", seq=7) / payload[: segments * octets_each])
    at = len(whole) - segments * octets_each - 20
    return Superpacket(whole, at, at + 20, octets_each, whole[6 if at == 40 else 9])


@given(
    sent=st.lists(
        st.tuples(st.integers(1, MOST_IN_FEW), st.sampled_from([FOUR, SIX]), st.integers(1, 1400)), max_size=5
    ),
    header=headers,
    mss=limits,
)
@settings(max_examples=100, deadline=None)
def test_a_few_segments_are_sealed_as_any_superpacket(
    sent: list[tuple[int, Packet, int]], header: bytes, mss: MssLimits | None
) -> None:
    plain, express = channel(header, mss), channel(header, mss)
    for few in sent:
        assert express.seal_few(stream(*few), 1.0) == octets(plain.seal_superpacket(stream(*few), 1.0, None))
        assert counters(express) == counters(plain)


def test_more_than_a_few_segments_and_a_key_near_its_end_take_the_way_of_all() -> None:
    of = channel()
    assert of.seal_few(stream(MOST_IN_FEW + 1), 0.0) is None
    sealer = of.newest.sealer if of.newest else None
    assert isinstance(sealer, AeadSealer)
    sealer.last_packet_id = RENEGOTIATE_AT_PACKET_ID - 3
    assert of.seal_few(stream(3), 0.0) is None
    assert sealer.last_packet_id == RENEGOTIATE_AT_PACKET_ID - 3
    assert len(of.seal_few(stream(2), 0.0) or ()) == 2


def test_a_packet_that_changes_something_takes_the_way_of_all() -> None:
    packet = PACKETS[0]
    framed, cbc, unkeyed = channel(), channel(cipher=Cipher.AES_256_CBC), DataChannel(Drops())
    framed.compression = Compression.STUB
    due = channel()
    due.install(key(number=1), 5.0)
    worn = DataChannel(Drops())
    used = key()
    assert isinstance(used.sealer, AeadSealer)
    used.sealer.last_packet_id = RENEGOTIATE_AT_PACKET_ID - 1
    worn.install(used, NEVER)
    for of in (framed, cbc, unkeyed, due, worn):
        assert of.seal_one(packet, 5.0) is None
        assert of.seal_few(stream(2), 5.0) is None
    assert due.seal_one(packet, 4.9) is not None
    with_newest = channel(b"\x49\x00\x00\x07").seal_raw((packet,), 0.0)[0]
    assert due.open_one(with_newest, None, 4.9) is None  # from now on the new key sends, too
    assert due.sending_key_id == 0
    assert [framed.open_one(with_newest, None, 0.0), unkeyed.open_one(with_newest, None, 0.0)] == [None, None]

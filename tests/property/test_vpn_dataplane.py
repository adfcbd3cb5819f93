"""The data plane's pure functions against libraries and models: sealing, framing, MSS, inner routes, agenda, pool."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from vpn.agenda import Agenda
from vpn.crypto.replay import ReplayWindow
from vpn.crypto.static_key import KeyHalf
from vpn.dataplane.cbc import CbcKey, CbcOpener, CbcSealer
from vpn.dataplane.cipher import AEAD_CIPHERS, AeadOpener, AeadSealer, Opener, Sealer
from vpn.dataplane.framing import add_framing, remove_framing
from vpn.dataplane.inner import InnerRoutes
from vpn.dataplane.mss import MssLimits, Path, largest_inner_packet
from vpn.drops import Drop, Drops
from vpn.settings import Cipher, Compression, Digest, Transport

HALF = KeyHalf(bytes(range(64)), bytes(range(64, 128)))
V2, V1 = b"\x48\x00\x00\x07", b"\x30"


def make_pair(cipher: Cipher, header: bytes) -> tuple[Sealer, Opener]:
    if cipher in AEAD_CIPHERS:
        return AeadSealer(cipher, HALF, header), AeadOpener(cipher, HALF, ReplayWindow())
    key = CbcKey(cipher, Digest.SHA256, HALF)
    return CbcSealer(key, header, bytes), CbcOpener(key, ReplayWindow())


@pytest.mark.parametrize("header", [V1, V2])
@pytest.mark.parametrize("cipher", list(Cipher))
@given(packets=st.lists(st.binary(max_size=200), max_size=10), data=st.data())
@settings(max_examples=25)
def test_batches_open_to_what_was_sealed_in_any_cut_and_once(
    cipher: Cipher, header: bytes, packets: list[bytes], data: st.DataObject
) -> None:
    sealer, opener = make_pair(cipher, header)
    cut = data.draw(st.integers(0, len(packets)))
    datagrams = sealer.seal_batch(packets[:cut]) + sealer.seal_batch(packets[cut:])
    drops = Drops()
    assert opener.open_batch(datagrams, 0.0, drops) == packets
    assert opener.open_batch(datagrams, 0.0, drops) == []
    assert drops[Drop.REPLAYED_DATA] == drops.total == len(packets)


@pytest.mark.parametrize("cipher", list(Cipher))
@given(untrusted=st.lists(st.one_of(st.just(V2), st.binary(min_size=1, max_size=120)), max_size=5))
@settings(max_examples=25)
def test_any_octets_are_dropped_and_counted(cipher: Cipher, untrusted: list[bytes]) -> None:
    drops = Drops()
    assert make_pair(cipher, V2)[1].open_batch(untrusted, 0.0, drops) == []
    assert drops[Drop.UNAUTHENTIC_DATA] == len(untrusted)


@pytest.mark.parametrize("cipher", [Cipher.AES_256_GCM, Cipher.AES_256_CBC])
def test_a_key_never_uses_a_packet_id_twice(cipher: Cipher) -> None:
    sealer, _ = make_pair(cipher, V2)
    sealer.last_packet_id = 0xFFFFFFFD  # type: ignore[misc]  # a key at the end of its life
    assert len(sealer.seal_batch([b"a", b"b", b"c"])) == 2
    assert sealer.seal_batch([b"d"]) == []


@pytest.mark.parametrize("compression", list(Compression))
@given(packets=st.lists(st.binary(min_size=2, max_size=40), max_size=8))
def test_framing_comes_off_as_it_went_on(compression: Compression, packets: list[bytes]) -> None:
    drops = Drops()
    assert remove_framing(list(add_framing(packets, compression)), compression, drops) == packets
    assert drops.total == 0


@pytest.mark.parametrize("compression", list(Compression))
@given(untrusted=st.lists(st.binary(max_size=20), max_size=8))
def test_framing_takes_any_octets(compression: Compression, untrusted: list[bytes]) -> None:
    drops = Drops()
    assert len(remove_framing(untrusted, compression, drops)) + drops.total == len(untrusted)


OPTIONS = st.lists(
    st.sampled_from([("MSS", 1460), ("MSS", 9000), ("MSS", 536), ("NOP", None), ("WScale", 7), ("SAckOK", b"")]),
    max_size=6,
)


@given(
    OPTIONS,
    st.booleans(),
    st.sampled_from(["S", "SA", "A", "SEC", "F"]),
    st.binary(max_size=30),
    st.integers(0, 0xFFFF),
)
def test_clamping_changes_the_mss_of_syns_alone_and_keeps_the_checksum_right(
    options: list[tuple[str, int | bytes | None]], ipv6: bool, flags: str, payload: bytes, port: int
) -> None:
    outer = IPv6(src="2001:db8::1", dst="2001:db8::2") if ipv6 else IP(src="10.0.0.1", dst="10.0.0.2")
    original = bytes(outer / TCP(sport=port, flags=flags, options=options) / payload)
    limits = MssLimits(1400, 1380)
    (clamped,) = limits.clamp_batch([original])
    limit = 1380 if ipv6 else 1400
    parse = IPv6 if ipv6 else IP
    before, after = parse(original)[TCP], parse(clamped)[TCP]
    first = next((index for index, option in enumerate(before.options) if option[0] == "MSS"), None)
    expected = list(before.options)
    if first is not None and "S" in flags:
        expected[first] = ("MSS", min(before.options[first][1], limit))
    assert list(after.options) == expected
    recomputed = parse(clamped)
    del recomputed[TCP].chksum
    assert parse(bytes(recomputed))[TCP].chksum == after.chksum
    assert bytes(after.payload) == bytes(before.payload)


@given(st.binary(max_size=120))
def test_clamping_takes_any_octets(packet: bytes) -> None:
    assert len(MssLimits(1400, 1380).clamp_batch([packet])[0]) == len(packet)


def test_the_default_mssfix_gives_the_real_peers_mss() -> None:
    path = Path(Transport.UDP, False, Cipher.AES_256_GCM, Digest.SHA1, Compression.NONE, 4)
    assert MssLimits.of(1492, path) == MssLimits(1400, 1380)


@pytest.mark.parametrize("compression", [Compression.NONE, Compression.COMP_LZO, Compression.STUB])
@pytest.mark.parametrize("digest", list(Digest))
@pytest.mark.parametrize("cipher", list(Cipher))
def test_the_largest_inner_packet_fits_and_one_octet_more_does_not(
    cipher: Cipher, digest: Digest, compression: Compression
) -> None:
    path = Path(Transport.UDP, False, cipher, digest, compression, 4)
    largest = largest_inner_packet(1400, path)

    def outer(octets: int) -> int:
        if cipher in AEAD_CIPHERS:
            sealer: Sealer = AeadSealer(cipher, HALF, V2)
        else:
            half = KeyHalf(bytes(64), bytes(64))
            sealer = CbcSealer(CbcKey(cipher, digest, half), V2, bytes)
        return 28 + len(sealer.seal_batch(add_framing([bytes(octets)], compression))[0])

    assert outer(largest) <= 1400 < outer(largest + 1)


@given(
    st.lists(st.tuples(st.integers(0, 255), st.integers(8, 32), st.integers(0, 4)), max_size=12),
    st.binary(min_size=4, max_size=4),
)
def test_the_longest_prefix_wins(entries: list[tuple[int, int, int]], address: bytes) -> None:
    routes: InnerRoutes[str] = InnerRoutes()
    known: dict[IPv4Network, str] = {}
    for second, bits, owner in entries:
        network = IPv4Network((bytes((address[0], second, 0, 0)), bits), strict=False)
        if network not in known:
            known[network] = f"client {owner}"
            routes.add_network(network, known[network])
    matching = [network for network in known if IPv4Address(address) in network]
    best = max(matching, key=lambda network: network.prefixlen, default=None)
    assert routes.find(address) == (None if best is None else known[best])


def test_an_owner_is_removed_whole_and_families_do_not_mix() -> None:
    routes: InnerRoutes[str] = InnerRoutes()
    routes.add_host(IPv4Address("10.8.0.2"), "a")
    routes.add_network(IPv6Network("::/0"), "a")
    routes.add_network(IPv4Network("10.8.0.0/24"), "b")
    assert routes.find(ip_address("2001:db8::9").packed) == "a"
    assert routes.find(ip_address("10.9.0.1").packed) is None
    routes.remove("a")
    assert routes.find(IPv4Address("10.8.0.2").packed) == "b"
    assert routes.find(IPv6Address("::1").packed) is None
    assert ip_network("10.8.0.0/24").version == 4


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 50)), max_size=60))
def test_nobody_is_forgotten_and_nobody_is_called_too_late(steps: list[tuple[int, int]]) -> None:
    agenda, due = Agenda(), dict[int, float]()
    now = 0.0
    for number, delay in steps:
        now += 1
        due[number] = now + delay
        agenda.put(number, due[number])
        earliest = agenda.next_at()
        assert earliest is not None
        assert earliest <= min(due.values())
        for called in agenda.take_due(now):
            if due[called] <= now:
                del due[called]
            else:
                agenda.put(called, due[called])
        assert all(at > now for at in due.values())

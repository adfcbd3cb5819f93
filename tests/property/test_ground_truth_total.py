"""Whatever octets a capture holds, nothing that reads them after a run raises: they are other people's."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.annotate import unwrapped
from testbed.capture.merge import Tape, TapeFrame
from testbed.ground_truth.control import RecordKeeper, bare, unwrap, without_hmac
from testbed.ground_truth.data_keys import StaticKeyOpener, TlsModeOpener
from testbed.ground_truth.inner import comparable, read_head
from testbed.ground_truth.keylog import exporter_secrets
from testbed.ground_truth.matching import inner_packets, match, open_all
from testbed.ground_truth.outer import End, outer_packets
from testbed.ground_truth.rewrite import with_tcp_payload, with_udp_payload
from testbed.verdict.headers import fields, transport
from testbed.verdict.unassembled import unassembled
from tests.unit.verdict_samples import CLIENT, VPN, frames_of

BLOCK = bytes(range(256))
SERVER = End(ip_address(VPN).packed, 1194)
ENDS = ip_address(CLIENT).packed + ip_address(VPN).packed
PORTS = (40000).to_bytes(2, "big") + (1194).to_bytes(2, "big")


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    """IP packets of the tunnel's conversation with anything wrong in them."""
    payload = PORTS + draw(st.binary(max_size=80))
    head = bytearray(b"\x45\0\0\0\0\0\0\0\x40\0\0\0" + ENDS)
    head[0] = draw(st.sampled_from([0x45, 0x45, 0x45, 0x45, 0x46, 0x4F, 0x40, 0x60]))
    head[2:4] = draw(st.one_of(st.just(0), st.integers(0, 200))).to_bytes(2, "big")
    head[6:8] = draw(st.sampled_from([0, 0, 0, 0, 0x2000, 0x0001, 0x3FFF])).to_bytes(2, "big")
    head[9] = draw(st.sampled_from([6, 17, 6, 17, 1, 4, 41, 47, 58]))
    octets = bytes(head) + payload
    return octets[: draw(st.one_of(st.integers(0, len(octets)), st.just(len(octets))))]


ACKS = st.integers(0, 9).map(lambda count: bytes([count]))
ETHER = bytes(12) + b"\x08\x00"
FRAMES = packets().map(lambda packet: ETHER + packet)
ANYTHING = st.one_of(FRAMES, packets(), st.binary(max_size=120))


@settings(max_examples=300, deadline=None)
@given(st.lists(ANYTHING, max_size=8), st.sampled_from([1, 101]), st.booleans())
def test_nothing_in_a_capture_stops_the_map(frames: list[bytes], link_type: int, headers: bool) -> None:
    captured = frames_of(*frames)
    found = outer_packets(captured, SERVER, link_type)
    opener = TlsModeOpener("AES-256-GCM", [BLOCK]) if headers else StaticKeyOpener(BLOCK)
    carriers = open_all(found, opener, headers=headers)
    assert len(carriers) == len(found)
    match(carriers, inner_packets(captured))
    unassembled(captured, (), link_type)
    for data in frames:
        list(fields(data, link_type))
        transport(data, link_type)


@settings(max_examples=300, deadline=None)
@given(ANYTHING)
def test_no_packet_stops_what_compares_and_rewrites_it(data: bytes) -> None:
    head = read_head(data)
    if head is not None:
        assert len(comparable(data, head)) <= len(data)
    for link_type in (1, 101):
        with_udp_payload(data, b"new", link_type)
        with_tcp_payload(data, 1, 2, b"new", link_type)


CONTROL = st.tuples(
    st.sampled_from([0x20, 0x28, 0x38, 0x50]), st.binary(min_size=8, max_size=8), ACKS, st.binary(max_size=30)
)


@settings(max_examples=300, deadline=None)
@given(st.lists(CONTROL.map(lambda parts: bytes(parts[:1]) + b"".join(parts[1:])), max_size=6), st.booleans())
def test_no_control_packet_stops_the_unwrapping(packets: list[bytes], to_server: bool) -> None:
    keeper = RecordKeeper()
    for packet in packets:
        unwrap(packet, BLOCK, to_server=to_server)
        without_hmac(packet)
        shown = bare(packet)
        if shown is not None:
            aligned, got, kept = keeper.aligned(shown)
            assert got >= 0
            assert kept >= 0
            assert aligned[:9] == packet[:9]


@settings(deadline=None)
@given(st.lists(packets(), max_size=6), st.sampled_from(["none", "tls-auth", "tls-crypt"]))
def test_no_tape_stops_what_makes_it_readable(frames: list[bytes], control: str) -> None:
    tape = Tape("k", "n", 1, [TapeFrame(n, n, ETHER + f, len(f), 1) for n, f in enumerate(frames, 1)], lambda _: "")
    found = unwrapped(tape, VPN, 1194, control, BLOCK)
    assert found is None or [frame.number for frame in found.tape.frames] == [*range(1, len(found.tape.frames) + 1)]


@settings(deadline=None)
@given(st.text())
def test_no_key_log_is_refused(text: str) -> None:
    exporter_secrets(text)

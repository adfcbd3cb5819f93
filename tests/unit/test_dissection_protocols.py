"""Opened packets of newer protocols and tunnels: streams put together, sealed parts marked, hostile octets survived."""

from __future__ import annotations

from pathlib import Path

import pytest
from hpack import Encoder
from hypothesis import given
from hypothesis import strategies as st

from testbed.capture import pcapng
from testbed.capture.reader import CaptureReader, Frame
from testbed.dissection.capture import CaptureDissector
from testbed.observer.wire.http2 import PREFACE
from testbed.report.packets import PacketView
from tests.unit.report_run import CLIENT, VPN, WEB, ipv4, tcp, udp

CAPTURES = Path(__file__).parents[1] / "data" / "captures"
UP, DOWN = (CLIENT, VPN, (50000, 1194)), (VPN, CLIENT, (1194, 50000))


def opened(*packets: bytes) -> list[PacketView]:
    dissector = CaptureDissector()
    return [
        dissector.open(Frame(number, number * 10**9, pcapng.LINKTYPE_RAW, data, len(data), 0))
        for number, data in enumerate(packets, start=1)
    ]


def recorded(file: str) -> list[PacketView]:
    dissector = CaptureDissector()
    with CaptureReader(CAPTURES / file) as reader:
        return [dissector.open(frame) for frame in reader]


# -- OpenVPN's control channel -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["openvpn-plain.pcapng", "openvpn-auth.pcapng", "openvpn-auth256.pcapng"])
def test_the_tunnels_tls_handshake_is_put_together_across_control_messages(file: str) -> None:
    views = [view for view in recorded(file) if "P_CONTROL_V1" in view.summary]
    said = [view.summary.removeprefix("MessageType: P_CONTROL_V1, ") for view in views]
    assert said[0] == "Client Hello"
    assert said[1].startswith("Server Hello, Change Cipher Spec, Application Data")
    assert not [words for words in said if words == "MessageType: P_CONTROL_V1"]  # every message completes a record
    parts = [layer for view in views for layer in view.layers if layer.name == "Part of a TLS record"]
    assert parts
    assert all("of" in dict(layer.fields) for layer in parts)


def control(message_id: int, payload: bytes, *, up: bool = True) -> bytes:
    session = b"clientid" if up else b"serverid"
    return udp(*(UP if up else DOWN), b"\x20" + session + b"\0" + message_id.to_bytes(4, "big") + payload)


RESET = udp(*UP, b"\x38clientid" + bytes(5))
RECORD = b"\x16\x03\x03\x00\x04\x0e\x00\x00\x00"  # Server Hello Done


def test_control_messages_out_of_order_and_sent_again_are_said_to_be_so_and_lose_nothing() -> None:
    views = opened(RESET, control(1, RECORD[:3]), control(3, RECORD), control(2, RECORD[3:]), control(2, RECORD[3:]),
                   control(4, RECORD))  # fmt: skip
    said = [view.summary.removeprefix("MessageType: P_CONTROL_V1") for view in views[1:]]
    assert said == ["", " [came before an earlier one]", ", Server Hello Done", " [sent again]",
                    ", Server Hello Done, Server Hello Done"]  # fmt: skip


def test_acknowledgements_and_both_session_ids_are_named() -> None:
    acknowledgement = b"\x28clientid\2" + (0).to_bytes(4, "big") + (1).to_bytes(4, "big") + b"serverid"
    view = opened(RESET, udp(*UP, acknowledgement))[1]
    fields = dict(view.layers[-1].fields)
    assert view.summary == "MessageType: P_ACK_V1"
    assert fields["acknowledges messages"] == "0, 1"
    assert fields["session id"] == f"0x{b'clientid'.hex()}"
    assert fields["the other's session id"] == f"0x{b'serverid'.hex()}"


# -- others ------------------------------------------------------------------------------------------------------------


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def segments(*pieces: bytes, hole_before: int = -1) -> list[bytes]:
    made = [tcp((CLIENT, WEB), (40000, 8080), (0, 0), 0x02), tcp((WEB, CLIENT), (8080, 40000), (0, 1), 0x12)]
    sequence = 1
    for number, piece in enumerate(pieces):
        sequence += 10 if number == hole_before else 0
        made.append(tcp((CLIENT, WEB), (40000, 8080), (sequence, 1), 0x18, piece))
        sequence += len(piece)
    return made


def test_headers_of_http2_are_read_with_what_came_before_and_never_behind_a_hole() -> None:
    encoder = Encoder()
    request = [(":method", "GET"), (":path", "/a"), ("cookie", "secret=1")]
    first = PREFACE + frame(4, 0, 0, b"") + frame(1, 4, 1, encoder.encode(request))
    second = frame(1, 4, 3, encoder.encode(request))  # indexes the table that the first one made
    views = opened(*segments(first, second))
    assert [view.summary for view in views[2:]] == ["Magic, SETTINGS[0], HEADERS[1]: GET /a", "HEADERS[3]: GET /a"]
    assert ("cookie", "secret=1") in views[3].layers[-1].fields
    behind = opened(*segments(first, b"lost", second, second, hole_before=1))
    assert not [view for view in behind[3:] if "GET" in view.summary]


def test_a_packet_in_a_packet_without_encryption_is_opened_to_the_innermost() -> None:
    inner = udp("10.0.0.1", "10.0.0.2", (40000, 53), bytes.fromhex("abcd01000001000000000000013000") + b"\0\1\0\1")
    (view,) = opened(ipv4(CLIENT, VPN, 4, inner))
    names = [layer.name for layer in view.layers]
    assert names[:3] == ["Internet Protocol Version 4"] * 2 + ["User Datagram Protocol"]
    assert (view.source, view.destination) == ("10.0.0.1", "10.0.0.2")


def test_ipsecs_signature_hides_nothing_and_its_encryption_everything() -> None:
    inside = udp(CLIENT, VPN, (40000, 9), b"hello")[20:]
    header = bytes((17, 4, 0, 0)) + b"\0\0\0\1" + b"\0\0\0\2" + bytes(12)
    signed, sealed = opened(
        ipv4(CLIENT, VPN, 51, header + inside), ipv4(CLIENT, VPN, 50, b"\0\0\0\1\0\0\0\2" + bytes(40))
    )
    assert dict(signed.layers[-1].fields)["text"] == "hello"
    assert not any(layer.encrypted for layer in signed.layers)
    assert (sealed.summary, sealed.layers[-1].encrypted) == ("ESP (SPI=0x00000001)", True)


def test_octets_that_only_look_like_wireguards_data_are_not_taken_for_it() -> None:
    (view,) = opened(udp(CLIENT, VPN, (1, 2), b"\4\0\0\0" + bytes(range(60))))
    assert view.protocol == "UDP"


BEGINNINGS = (
    *(b"\xc3\0\0\0\1\x08destinat\x08source12\0", b"\xc0\x6b\x33\x43\xcf\x00\x00", b"\x80\0\0\0\0\x01a\x01b\0\0\0\1"),
    *(b"\x40", b"\1\0\0\0", b"\4\0\0\0", PREFACE, PREFACE + frame(1, 4, 1, b""), frame(1, 0, 1, b"x")),
    *(b"\x23" + bytes(47), b"\1\1\0\4\x21\x12\xa4\x42" + bytes(12)),
    *(b"\x16\xfe\xfd" + bytes(8) + b"\0\x10\1", b"\x17\xfe\xfd\0\1" + bytes(7), b"SSH-2.0-x\r\n", b"\0\0\0\x0c\4\x15"),
    *(b"\1\1\6\0", bytes(4), b"\x38clientid" + bytes(5), b"\x20clientid\0\0\0\0\1", b"\x07"),
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(BEGINNINGS),
            st.binary(max_size=200),
            st.sampled_from((67, 123, 443, 500, 546, 1194, 4500, 5353, 8080)),
            st.booleans(),
        ),
        max_size=6,
    )
)
def test_any_octets_that_begin_like_a_protocol_open_without_an_error(
    parts: list[tuple[bytes, bytes, int, bool]],
) -> None:
    sequence = 1
    packets = []
    for begin, rest, port, as_tcp in parts:
        ports = (port + 1 if port in (67, 546) else port, port)
        if as_tcp:
            packets.append(tcp((CLIENT, WEB), ports, (sequence, 1), 0x18, begin + rest))
            sequence += len(begin + rest)
        else:
            packets.append(udp(CLIENT, WEB, ports, begin + rest))
    for view in opened(*packets):
        assert all(0 <= layer.start <= layer.end <= len(view.octets) for layer in view.layers)
        assert all(isinstance(text, str) for layer in view.layers for pair in layer.fields for text in pair)


@given(st.integers(0, 255), st.binary(max_size=160))
def test_any_octets_of_any_ip_protocol_open_without_an_error(protocol: int, body: bytes) -> None:
    for view in opened(ipv4(CLIENT, WEB, protocol, body)):
        assert all(0 <= layer.start <= layer.end <= len(view.octets) for layer in view.layers)


def test_what_follows_new_keys_of_ssh_is_sealed_and_what_precedes_is_not() -> None:
    new_keys = b"\0\0\0\x0c\x0a\x15" + bytes(10)
    views = opened(*segments(b"SSH-2.0-x\r\n" + new_keys[:6], new_keys[6:] + b"sealed octets"))[2:]
    assert views[0].summary == "Client: Protocol (SSH-2.0-x)"
    assert views[1].summary == "Client: New Keys, Encrypted packet (len=13)"
    assert [layer.encrypted for layer in views[1].layers[2:]] == [False, True]
    assert views[1].octets[views[1].layers[-1].start :] == b"sealed octets"

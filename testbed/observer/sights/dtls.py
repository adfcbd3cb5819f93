"""The name in a DTLS ClientHello, in one datagram or in fragments over several.

    record:  22 | version | epoch (2) | sequence (6) | length (2)
    handshake:  1 | length (3) | message (2) | fragment offset (3) | fragment length (3) | fragment

Source: RFC 6347 section 4, RFC 9147 section 5
"""

from __future__ import annotations

from testbed.observer import tls
from testbed.observer.findings import Findings, Place
from testbed.observer.flows import FlowState
from testbed.observer.sights.tls import OVER_DTLS, sight_handshake
from testbed.observer.wire.assembler import Assembler

RECORD_OCTETS, HANDSHAKE_OCTETS = 13, 12
LONGEST_HELLO_OCTETS = 1 << 16
VERSIONS = (b"\xfe\xff", b"\xfe\xfd", b"\xfe\xfc")


def looks_like_dtls_hello(data: bytes) -> bool:
    """Whether a datagram begins with an unencrypted handshake record that holds a part of a ClientHello."""
    return (
        data[:1] == b"\x16"
        and data[1:3] in VERSIONS
        and data[3:5] == b"\0\0"
        and data[13:14] == b"\1"
        and len(data) >= RECORD_OCTETS + HANDSHAKE_OCTETS
    )


def dissect_dtls(flow: FlowState, data: bytes, place: Place, findings: Findings) -> None:
    flow.application = flow.application or "dtls"
    size = int.from_bytes(data[14:17], "big")
    offset, length = int.from_bytes(data[19:22], "big"), int.from_bytes(data[22:25], "big")
    fragment = data[25 : 25 + length]
    if length < size:
        held = flow.dissector if isinstance(flow.dissector, Assembler) and offset else Assembler(LONGEST_HELLO_OCTETS)
        flow.dissector = held
        if not held.add(offset, fragment) or len(held.data) < size:
            return
        fragment, flow.dissector = bytes(held.data[:size]), None
    if len(fragment) == size:
        sight_handshake(flow, tls.CLIENT_HELLO, fragment, OVER_DTLS, place, findings)

"""Which detectors a conversation's first datagram deserves: most need none, and every later datagram is then free."""

from __future__ import annotations

from testbed.observer.tunnels.block_cipher import LEAST_OCTETS, BlockCipherDetector
from testbed.observer.tunnels.envelopes import EnvelopeDetector, may_be_envelope
from testbed.observer.tunnels.fastd import FastdDetector
from testbed.observer.tunnels.ipsec import IpsecDetector
from testbed.observer.tunnels.openvpn import CONTROL_WKC, SOFT_RESET, OpenVpnDetector
from testbed.observer.tunnels.openvpn_patterns import OpenVpnPatternDetector
from testbed.observer.tunnels.recognised import Detector
from testbed.observer.tunnels.wireguard import MESSAGES, WireGuardDetector

SMALLEST_OCTETS = 2
DTLS_HANDSHAKES = (b"\x16\xfe\xff", b"\x16\xfe\xfd")


def datagram_detectors(packet: bytes) -> list[Detector]:
    """Those whose protocol could begin, or go on, with this datagram; the surer ones first."""
    if len(packet) < SMALLEST_OCTETS:
        return [OpenVpnDetector(), WireGuardDetector(), IpsecDetector()]  # something to keep a NAT's entry alive
    found: list[Detector] = []
    if SOFT_RESET <= packet[0] >> 3 <= CONTROL_WKC:
        found.append(OpenVpnDetector())
    if packet[:4] in MESSAGES:
        found.append(WireGuardDetector())
    elif packet[:2] == b"\1\0":
        found.append(FastdDetector())
    if may_be_envelope(packet):
        found.append(EnvelopeDetector())
    found.append(IpsecDetector())
    if packet[:3] not in DTLS_HANDSHAKES:  # what says what it is need not be told from the sizes of its packets
        found.append(OpenVpnPatternDetector())
    if len(packet) >= LEAST_OCTETS:
        found.append(BlockCipherDetector())
    return found

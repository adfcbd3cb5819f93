"""Why a fact was seen, in a sentence that a person understands: what, where, and which way it went.

The way is read from the frame itself: where a packet left the client outside the tunnel, the address it went to says
whether no route covered it or the tunnel let go of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from testbed.facts import Kind
from testbed.result import Exposure, Verdict
from testbed.scenario.values import SERVER_OBSERVER, TunnelSpec
from testbed.verdict.evidence import VariantEvidence
from testbed.verdict.leaks import carries

SAID = {
    Kind.CLIENT_ADDRESS: "the client's address {value} was seen",
    Kind.SERVER_ADDRESS: "the address {value} was seen",
    Kind.DNS_NAME: "{value} was looked up in clear",
    Kind.DNS_ANSWER: "the answer {value} was seen",
    Kind.HTTP_HOST: "{value} was asked for in clear HTTP",
    Kind.HTTP_URL: "{value} was opened in clear",
    Kind.HTTP_HEADER: 'the header "{value}" was sent in clear',
    Kind.HTTP_BODY: "the content {value} was sent in clear",
    Kind.TLS_NAME: "{value} stands in a TLS hello",
    Kind.TLS_CERTIFICATE: "a certificate of {value} was seen",
    Kind.QUIC_NAME: "{value} stands in a QUIC hello",
    Kind.PAYLOAD: "the payload {value} was sent in clear",
    Kind.TUNNEL: "a tunnel was recognised: {value}",
    Kind.VOLUME: "packets and octets can be counted",
    Kind.TIMING: "start, end and bursts can be measured",
}
LONGEST_VALUE = 80
ETHERNET_OCTETS = 14


def sentence(row: Exposure) -> str:
    """What was seen, and the first packet or log line that shows it."""
    value = row.fact.value if len(row.fact.value) <= LONGEST_VALUE else f"{row.fact.value[:LONGEST_VALUE]}…"
    # A secondary find says itself what stands where.
    what = row.reason or SAID[Kind(row.fact.kind)].format(value=value)
    if not row.evidence:
        return what
    first = row.evidence[0]
    if row.observer.startswith(SERVER_OBSERVER):
        site = row.observer.removeprefix(SERVER_OBSERVER)
        return f"{site} recorded {value}: {first.file} line {first.frame}"
    return f"{what}: {first.file} frame {first.frame} ({first.filter})"


class Explainer:
    """Explains the cells of one variant."""

    def __init__(self, variant: VariantEvidence) -> None:
        self._variant = variant
        self._taps = {tap.name: tap for tap in variant.taps}

    def seen(self, row: Exposure) -> str:
        """What was seen and, with a tunnel, why the tunnel did not hide it."""
        why = self._way(row)
        return f"{sentence(row)}{f': {why}' if why else ''}"

    def not_seen(self, rows: Sequence[Exposure]) -> str:
        first = next((row for row in rows if row.verdict is Verdict.UNPROVEN), rows[0])
        return f"not seen: {first.fact.kind} {first.fact.value} is {first.verdict.value}: {first.reason}"

    def _way(self, row: Exposure) -> str:
        tunnel, tap = self._variant.tunnel, self._taps.get(row.observer)
        if tunnel is None or tap is None or not tap.before_tunnel_server or not row.evidence:
            return ""
        frame = next((frame for frame in tap.frames if frame.number == row.evidence[0].frame), None)
        ends = [address for address in frame_addresses(frame.data) if self._is_far(address)] if frame else []
        if not ends:
            return ""
        if row.evidence[0].filter.startswith("dns."):
            return f"the DNS server {ends[0]} is reached outside the tunnel{_because(tunnel, ends[0], dns=True)}"
        return f"{ends[0]} is reached outside the tunnel{_because(tunnel, ends[0])}"

    def _is_far(self, address: str) -> bool:
        own = {fact.value for fact in self._variant.facts if fact.kind is Kind.CLIENT_ADDRESS}
        return address not in own


def _because(tunnel: TunnelSpec, address: str, *, dns: bool = False) -> str:
    if dns and tunnel.dns == "isp":
        return " (dns: isp)"
    if tunnel.routes == ():
        return ", since no route leads into it"
    if not carries(tunnel, address):
        return ", since none of its routes covers the address"
    return ", although its routes should cover the address"


def frame_addresses(untrusted: bytes) -> tuple[str, ...]:
    """Destination and source of the IP packet in an Ethernet or raw IP frame; empty if there is none.

    Shape: VLAN tags are not looked into; the lab has none.
    """
    ethertype = untrusted[12:14]
    packet = untrusted[ETHERNET_OCTETS:] if ethertype in (b"\x08\x00", b"\x86\xdd") else untrusted
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        return str(ip_address(packet[16:20])), str(ip_address(packet[12:16]))
    if len(packet) >= 40 and packet[0] >> 4 == 6:
        return str(ip_address(packet[24:40])), str(ip_address(packet[8:24]))
    return ()

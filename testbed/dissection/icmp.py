"""ICMP and ICMPv6: echoes, errors, neighbour discovery and listener reports, one line and the fields that matter.

Source: RFC 792, RFC 4443, RFC 4861, RFC 3810
"""

from __future__ import annotations

import ipaddress

from testbed.dissection.network import mac
from testbed.dissection.opening import Opening, Reader
from testbed.observer import ip

_IPV4_TYPES = {
    0: "Echo (ping) reply",
    3: "Destination unreachable",
    4: "Source quench",
    5: "Redirect",
    8: "Echo (ping) request",
    11: "Time-to-live exceeded",
    12: "Parameter problem",
}
_IPV4_UNREACHABLE = {
    0: "Network unreachable",
    1: "Host unreachable",
    2: "Protocol unreachable",
    3: "Port unreachable",
    4: "Fragmentation needed",
    9: "Network administratively prohibited",
    10: "Host administratively prohibited",
    13: "Communication administratively filtered",
}
_IPV6_TYPES = {
    1: "Destination Unreachable",
    2: "Packet Too Big",
    3: "Time Exceeded",
    4: "Parameter Problem",
    128: "Echo (ping) request",
    129: "Echo (ping) reply",
    130: "Multicast Listener Query",
    131: "Multicast Listener Report",
    132: "Multicast Listener Done",
    133: "Router Solicitation",
    134: "Router Advertisement",
    135: "Neighbor Solicitation",
    136: "Neighbor Advertisement",
    137: "Redirect",
    143: "Multicast Listener Report Message v2",
}
_IPV6_UNREACHABLE = {
    0: "no route to destination",
    1: "Administratively prohibited",
    3: "Address unreachable",
    4: "Port unreachable",
    5: "Source address failed ingress/egress policy",
    6: "Reject route to destination",
}
_ROUTER_SOLICITATION, _ROUTER_ADVERTISEMENT, _SOLICITATION, _ADVERTISEMENT = 133, 134, 135, 136
_SOURCE_LINK, _TARGET_LINK = 1, 2


def open_icmp(opening: Opening, packet: ip.Packet, *, version: int) -> None:
    reader = Reader(opening.data, packet.start, packet.end)
    kind, code, checksum = reader.number(1), reader.number(1), reader.number(2)
    names = _IPV4_TYPES if version == 4 else _IPV6_TYPES
    summary = names.get(kind, f"type {kind}")
    fields: list[tuple[str, object]] = [
        ("type", f"{summary} ({kind})"),
        ("code", code),
        ("checksum", f"0x{checksum:04x}"),
    ]
    echo = kind in ((0, 8) if version == 4 else (128, 129))
    unreachable = _IPV4_UNREACHABLE if version == 4 else _IPV6_UNREACHABLE
    header_end = packet.start + 8
    if echo:
        identifier, sequence = reader.number(2), reader.number(2)
        # Wireshark shows the number in either byte order in ICMP, as systems differ, and in one in ICMPv6
        swapped = f"/{int.from_bytes(sequence.to_bytes(2, 'little'), 'big')}" if version == 4 else ""
        summary += f" id=0x{identifier:04x}, seq={sequence}{swapped}, {_hops_left(opening, version)}"
        fields += [("identifier", f"0x{identifier:04x}"), ("sequence", sequence)]
    elif kind == (3 if version == 4 else 1):
        summary += f" ({unreachable.get(code, f'code {code}')})"
        reader.take(4)
    elif version == 6 and kind in (_ROUTER_SOLICITATION, _ROUTER_ADVERTISEMENT):
        reader.take(4 if kind == _ROUTER_SOLICITATION else 12)
        link = _link_address(reader, fields)
        summary += f" from {link}" if link else ""
        header_end = packet.end
    elif version == 6 and kind in (_SOLICITATION, _ADVERTISEMENT):
        summary = _neighbour(kind, summary, reader, fields)
        header_end = packet.end
    else:
        header_end = packet.end
    opening.say("ICMP" if version == 4 else "ICMPv6", summary)
    name = "Internet Control Message Protocol" + (" v6" if version == 6 else "")
    opening.add(name, packet.start, min(header_end, packet.end), *fields)
    if header_end < packet.end:
        _open_rest(opening, header_end, packet.end, echo=echo)


def _hops_left(opening: Opening, version: int) -> str:
    label, words = ("time to live", "ttl") if version == 4 else ("hop limit", "hop limit")
    fields = dict(opening.layers[-1].fields) if opening.layers else {}
    return f"{words}={fields.get(label, '?')}"


def _open_rest(opening: Opening, start: int, end: int, *, echo: bool) -> None:
    octets = opening.data[start:end]
    if echo:
        opening.add("Data", start, end, ("octets", octets.hex(" ")), ("length", len(octets)))
    else:
        inner = ip.parse_ip(octets, 0)
        ends = (
            f"{ipaddress.ip_address(inner.source)} → {ipaddress.ip_address(inner.destination)}"
            if inner
            else "unreadable"
        )
        opening.add("The packet it answers, first part", start, end, ("packet", ends))


def _neighbour(kind: int, summary: str, reader: Reader, fields: list[tuple[str, object]]) -> str:
    flags = reader.number(4) >> 29
    target = ipaddress.IPv6Address(reader.take(16))
    fields.append(("target", target))
    link = _link_address(reader, fields)
    if kind == _SOLICITATION:
        return f"{summary} for {target}" + (f" from {link}" if link else "")
    words = ", ".join(word for bit, word in ((4, "rtr"), (2, "sol"), (1, "ovr")) if flags & bit)
    return f"{summary} {target} ({words})" + (f" is at {link}" if link else "")


def _link_address(reader: Reader, fields: list[tuple[str, object]]) -> str:
    """The link-layer address that the first option names, or nothing."""
    if reader.left < 8 or reader.number(1) not in (_SOURCE_LINK, _TARGET_LINK) or reader.number(1) != 1:
        return ""
    link = mac(reader.take(6))
    fields.append(("link-layer address", link))
    return link

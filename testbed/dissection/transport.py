"""UDP and TCP: ports, flags and relative numbers, and which protocol a conversation carries, told from its octets.

Relative sequence numbers, window scales and messages that span segments need what came before, so a `Transport` sees
the frames of a capture in order. Segments out of order or sent again are shown by their header alone.

Source: RFC 768, RFC 9293, RFC 7323
"""

from __future__ import annotations

from dataclasses import dataclass, field

from testbed.dissection import http, http2, openvpn, ssh, tls
from testbed.dissection.conversations import Conversation, Endpoint, Half
from testbed.dissection.datagrams import open_datagram
from testbed.dissection.dns import open_dns
from testbed.dissection.opening import Opening, Reader, add_data, text_of
from testbed.observer import ip

_FLAGS = (
    (0x02, "SYN"),
    (0x01, "FIN"),
    (0x04, "RST"),
    (0x08, "PSH"),
    (0x10, "ACK"),
    (0x20, "URG"),
    (0x40, "ECE"),
    (0x80, "CWR"),
)
_SYN, _ACK = 0x02, 0x10
_DNS_PORT = 53
_MOST_CONVERSATIONS = 4_096
_MOST_PENDING_OCTETS = 2 << 20
_UNFINISHED = "  [TCP segment of a reassembled PDU]"
_MASK = 0xFFFFFFFF


@dataclass(slots=True)
class Transport:
    conversations: dict[tuple[int, frozenset[Endpoint]], Conversation] = field(default_factory=dict)

    def _conversation(self, protocol: int, source: Endpoint, destination: Endpoint) -> Conversation:
        key = protocol, frozenset((source, destination))
        if key not in self.conversations and len(self.conversations) >= _MOST_CONVERSATIONS:
            self.conversations.clear()
        return self.conversations.setdefault(key, Conversation(source))

    # -- UDP ----------------------------------------------------------------------------------------------------------

    def open_udp(self, opening: Opening, packet: ip.Packet) -> None:
        reader = Reader(opening.data, packet.start, packet.end)
        source, destination, length, checksum = (reader.number(2) for _ in range(4))
        fields = (("source port", source), ("destination port", destination), ("length", length))
        opening.add("User Datagram Protocol", packet.start, reader.at, *fields, ("checksum", f"0x{checksum:04x}"))
        opening.say("UDP", f"{source} → {destination} Len={reader.left}")
        if not reader.left:
            return
        ends = (packet.source, source), (packet.destination, destination)
        conversation = self._conversation(packet.protocol, *ends)
        open_datagram(opening, conversation, ends, reader.at, packet.end)

    # -- TCP ----------------------------------------------------------------------------------------------------------

    def open_tcp(self, opening: Opening, packet: ip.Packet) -> None:
        reader = Reader(opening.data, packet.start, packet.end)
        source, destination = reader.number(2), reader.number(2)
        sequence, acknowledged, word, window = reader.number(4), reader.number(4), reader.number(2), reader.number(2)
        reader.take(4)
        flags = word & 0xFF
        header_end = min(max(packet.start + (word >> 12) * 4, reader.at), packet.end)
        options = read_options(opening.data[reader.at : header_end])
        ends = (packet.source, source), (packet.destination, destination)
        conversation = self._conversation(packet.protocol, *ends)
        if _DNS_PORT in (source, destination):
            conversation.application = "dns"
        direction = ends[0] == conversation.first_speaker
        half = _half(conversation, direction, sequence, flags, options)
        relative = (sequence - half.first) & _MASK
        other = conversation.halves.get(not direction)
        base = other.first if other else (acknowledged - 1) & _MASK
        numbers = [f"Seq={relative}"]
        if flags & _ACK:
            numbers.append(f"Ack={(acknowledged - base) & _MASK}")
        numbers += [f"Win={_window(window, flags, half, other)}", f"Len={packet.end - header_end}", *_spelled(options)]
        names = _flag_names(flags)
        opening.say("TCP", f"{source} → {destination} [{names}] {' '.join(numbers)}")
        opening.add(
            "Transmission Control Protocol",
            *(packet.start, header_end),
            *(("source port", source), ("destination port", destination), ("flags", names)),
            *(
                ("sequence number", f"{relative} (relative), {sequence}"),
                ("window", numbers[1 + bool(flags & _ACK)][4:]),
            ),
            *([("acknowledges", f"{(acknowledged - base) & _MASK} (relative)")] if flags & _ACK else []),
            *([("options", " ".join(_spelled(options)))] if options else []),
        )
        if header_end < packet.end:
            self._open_segment(opening, conversation, direction, sequence, header_end, packet.end)

    def _open_segment(
        self, opening: Opening, conversation: Conversation, direction: bool, sequence: int, start: int, end: int
    ) -> None:
        half = conversation.halves[direction]
        payload = opening.data[start:end]
        if half.next_octet != sequence:
            if (sequence - half.next_octet) & _MASK < 1 << 31:  # a hole: what was begun cannot be completed
                half.forget()
                conversation.http2.lose(direction)
                half.next_octet = (sequence + len(payload)) & _MASK
            opening.add("TCP segment, out of order or sent again", start, end)
            return
        half.next_octet = (sequence + len(payload)) & _MASK
        half.pending.append(payload)
        half.pending_octets += len(payload)
        half.frames.append(opening.number)
        if half.pending_octets < half.wanted <= _MOST_PENDING_OCTETS:
            opening.summary += _UNFINISHED
            opening.add("Part of a message", start, end, ("octets", end - start), ("of", f"{half.wanted:,} octets"))
            return
        octets = b"".join(half.pending)
        used = _open_stream(opening, conversation, direction, octets, (start, end), half.frames)
        rest = octets[used:] if len(octets) - used <= _MOST_PENDING_OCTETS else b""
        half.keep(rest, http.octets_wanted(rest) if http.is_http(rest) else 0)
        half.frames = (half.frames[-1:] if used else half.frames) if rest else []


def _half(conversation: Conversation, direction: bool, sequence: int, flags: int, options: dict[str, int]) -> Half:
    half = conversation.halves.get(direction)
    if flags & _SYN:
        if half is None or half.first != sequence:
            half = Half(sequence, options.get("WS"), (sequence + 1) & _MASK)
            conversation.halves[direction] = half
            if not flags & _ACK:  # the ports are used anew
                conversation.application, conversation.tls = "", tls.TlsState()
                conversation.http2, conversation.ssh = http2.Http2State(), ssh.SshState()
                conversation.halves.pop(not direction, None)
    elif half is None:
        half = conversation.halves[direction] = Half((sequence - 1) & _MASK, None, sequence)
    return half


def _open_stream(
    opening: Opening,
    conversation: Conversation,
    direction: bool,
    octets: bytes,
    where: tuple[int, int],
    frames: list[int],
) -> int:
    """Open what the direction's octets, so far unread, hold completely. Returns how many octets that was."""
    start, end = where
    if not conversation.application:
        conversation.application = _application(octets)
        if conversation.application == "openvpn":
            conversation.openvpn = openvpn.recognise(octets[2:])
    if conversation.application == "http2":
        return _open_http2(opening, conversation, direction, octets, start, end)
    if conversation.application == "ssh":
        return _open_ssh(opening, conversation, direction, octets, start, end)
    if http.is_http(octets):
        return _open_http(opening, octets, start, end, frames)
    if conversation.application == "tls" and tls.looks_like_records(octets):
        return _open_tls(opening, conversation, direction, octets, start, end)
    if conversation.application == "openvpn" and conversation.openvpn is not None:
        return _open_openvpn(opening, conversation.openvpn, direction, octets, start, end)
    if conversation.application == "dns":
        return _open_dns(opening, octets, start, end)
    add_data(opening, start, end)
    return len(octets)


def _application(octets: bytes) -> str:
    if http2.begins(octets):
        return "http2"
    if ssh.begins(octets):
        return "ssh"
    if tls.looks_like_records(octets):
        return "tls"
    length = int.from_bytes(octets[:2], "big")
    if 2 + length <= len(octets) and openvpn.recognise(octets[2 : 2 + length]) is not None:
        return "openvpn"
    return ""


def _open_http(opening: Opening, octets: bytes, start: int, end: int, frames: list[int]) -> int:
    messages = http.complete_messages(octets)
    if messages:
        http.open_messages(opening, octets, messages, start, end, frames)
        return messages[-1].end
    opening.summary = f"{http.first_line(octets)}{_UNFINISHED}"
    begins_here = len(octets) <= end - start
    fields = http.readable_head(octets) if begins_here else [("text", text_of(opening.data[start:end]))]
    opening.add("Part of an HTTP message", start, end, ("begins with", http.first_line(octets)), *fields)
    return 0


def _open_http2(
    opening: Opening, conversation: Conversation, direction: bool, octets: bytes, start: int, end: int
) -> int:
    used, wanted = http2.open_frames(opening, octets, start, end, conversation.http2, direction)
    if not used and not wanted:
        add_data(opening, start, end)
        return len(octets)
    if used < len(octets):
        opening.summary += "" if used else _UNFINISHED
        opening.add(
            "Part of an HTTP/2 frame", max(start, end - (len(octets) - used)), end, ("of", f"{wanted:,} octets")
        )
    return used


def _open_ssh(
    opening: Opening, conversation: Conversation, direction: bool, octets: bytes, start: int, end: int
) -> int:
    used = ssh.open_stream(opening, octets, start, end, conversation.ssh, direction)
    if used < len(octets):
        opening.summary += "" if used else _UNFINISHED
        opening.add("Part of an SSH packet", max(start, end - (len(octets) - used)), end)
    return used


def _open_tls(
    opening: Opening, conversation: Conversation, direction: bool, octets: bytes, start: int, end: int
) -> int:
    used = tls.records_end(octets)
    if not used:
        opening.summary += _UNFINISHED
        opening.add("Part of a TLS record", start, end, ("octets", end - start), encrypted=octets[0] == 23)
        return 0
    tls.open_records(opening, octets[:used], start, end - (len(octets) - used), conversation.tls, direction)
    return used


def _open_openvpn(
    opening: Opening, state: openvpn.OpenVpnState, direction: bool, octets: bytes, start: int, end: int
) -> int:
    """OpenVPN over TCP: packets with two octets of length before each; the last whole one is opened."""
    at, names = 0, []
    base = end - len(octets)
    while at + 2 <= len(octets):
        packet_end = at + 2 + int.from_bytes(octets[at : at + 2], "big")
        if packet_end > len(octets):
            break
        names.append(openvpn.OPCODES.get(octets[at + 2] >> 3, "?") if packet_end > at + 2 else "empty")
        last, at = at, packet_end
    if not names:
        opening.add("Part of an OpenVPN packet", start, end, ("octets", end - start), encrypted=True)
        return 0
    if base + last >= start and at > last + 2:
        opening.add("Length before a packet in the stream", base + last, base + last + 2, ("octets", at - last - 2))
        openvpn.open_packet(opening, base + last + 2, base + at, state, direction)
    else:
        opening.add("OpenVPN, last part of a packet", start, base + at, encrypted=True)
    opening.say("OpenVPN", "MessageType: " + ", ".join(names))
    return at


def _open_dns(opening: Opening, octets: bytes, start: int, end: int) -> int:
    """DNS over TCP: messages with two octets of length before each."""
    at = 0
    base = end - len(octets)
    while at + 2 <= len(octets):
        message_end = at + 2 + int.from_bytes(octets[at : at + 2], "big")
        if message_end > len(octets):
            break
        if not open_dns(opening, octets[at + 2 : message_end], max(start, base + at), base + message_end):
            add_data(opening, max(start, base + at), end)
            return len(octets)
        at = message_end
    if at < len(octets):
        opening.summary += "" if at else _UNFINISHED
        opening.add("Part of a DNS message", max(start, base + at), end)
    return at


def _window(window: int, flags: int, half: Half, other: Half | None) -> int:
    scaled = not flags & _SYN and half.shift is not None and other is not None and other.shift is not None
    return window << min(half.shift or 0, 14) if scaled else window


def _flag_names(flags: int) -> str:
    return ", ".join(word for bit, word in sorted(_FLAGS) if flags & bit) or "<None>"


def read_options(octets: bytes) -> dict[str, int]:
    """TCP's options that matter for reading: segment size, window scale, selective acknowledgement, time stamps."""
    found: dict[str, int] = {}
    at = 0
    while at < len(octets) and octets[at]:
        if octets[at] == 1:
            at += 1
            continue
        length = octets[at + 1] if at + 1 < len(octets) else 0
        value = octets[at + 2 : at + length]
        if length < 2 or at + length > len(octets):
            break
        if octets[at] == 2 and length == 4:
            found["MSS"] = int.from_bytes(value, "big")
        elif octets[at] == 3 and length == 3:
            found["WS"] = value[0]
        elif octets[at] == 4:
            found["SACK_PERM"] = 1
        elif octets[at] == 8 and length == 10:
            found["TSval"], found["TSecr"] = int.from_bytes(value[:4], "big"), int.from_bytes(value[4:], "big")
        at += length
    return found


def _spelled(options: dict[str, int]) -> list[str]:
    """As Wireshark's summary spells them: the scale as the factor it is, a permission without a value."""
    shift = min(options.get("WS", 0), 14)
    values = {**options, **({"WS": 1 << shift} if "WS" in options else {})}
    return [name if name == "SACK_PERM" else f"{name}={value}" for name, value in values.items()]

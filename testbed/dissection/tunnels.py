"""WireGuard and IPsec: headers as anybody reads them, the rest sealed.

    WireGuard  1 initiation (148 octets)  2 response (92)  3 cookie (64)  4 data: receiver (4) | counter (8) | sealed
    ESP        SPI (4) | sequence number (4) | sealed        IKEv2: SPIs (8, 8) | next | version | exchange | flags | id
    AH         next (1) | length (1) | 2 | SPI (4) | sequence number (4) | ICV

Source: wireguard.com/protocol, RFC 4303, RFC 4302, RFC 7296 section 3.1, RFC 3948
"""

from __future__ import annotations

from testbed.dissection.opening import Opening, Reader, plural

IKE_PORT, NAT_TRAVERSAL_PORT = 500, 4500
_WIREGUARD_OCTETS = {1: 148, 2: 92, 3: 64}
_WIREGUARD_DATA_OCTETS = 32
_EXCHANGES = {
    2: "Identity Protection (Main Mode)",
    4: "Aggressive",
    5: "Informational",
    32: "Quick Mode",
    34: "IKE_SA_INIT",
    35: "IKE_AUTH",
    36: "CREATE_CHILD_SA",
    37: "INFORMATIONAL",
}
_IKE_HEADER_OCTETS = 28
_SEALED_PAYLOADS = frozenset((46, 53))  # Encrypted and Authenticated, and its fragments


def is_wireguard(datagram: bytes) -> bool:
    """Whether a datagram has a WireGuard message's type, reserved zeros and length."""
    if len(datagram) < _WIREGUARD_DATA_OCTETS or any(datagram[1:4]):
        return False
    if datagram[0] == 4:
        return len(datagram) % 16 == 0
    return _WIREGUARD_OCTETS.get(datagram[0]) == len(datagram)


def opens_wireguard(datagram: bytes) -> bool:
    """Whether a conversation is WireGuard's from this datagram on: data alone has too little form to tell."""
    return is_wireguard(datagram) and datagram[0] in _WIREGUARD_OCTETS


def open_wireguard(opening: Opening, start: int, end: int) -> None:
    reader = Reader(opening.data, start, end)
    kind = reader.number(4) >> 24
    if kind == 4:
        _open_wireguard_data(opening, reader, start, end)
        return
    name = {1: "Handshake Initiation", 2: "Handshake Response", 3: "Cookie Reply"}[kind]
    fields: list[tuple[str, object]] = [("type", f"{name} ({kind})")]
    labels = {1: ("sender",), 2: ("sender", "receiver"), 3: ("receiver",)}[kind]
    fields += [(label, f"0x{_little(reader, 4):08x}") for label in labels]
    words = [name, *(f"{label}={value}" for label, value in fields[1:])]
    if kind != 3:
        fields.append(("ephemeral key", reader.take(32).hex()))
    opening.say("WireGuard", ", ".join(words))
    opening.add("WireGuard", start, reader.at, *fields)
    opening.add("WireGuard handshake, sealed", reader.at, end, ("octets", reader.left), encrypted=True)


def _open_wireguard_data(opening: Opening, reader: Reader, start: int, end: int) -> None:
    receiver, counter = f"0x{_little(reader, 4):08x}", _little(reader, 8)
    inside = reader.left - 16
    name = "Keepalive" if not inside else "Transport Data"
    length = f", datalen={inside}" if inside else ""
    opening.say("WireGuard", f"{name}, receiver={receiver}, counter={counter}{length}")
    opening.add("WireGuard", start, reader.at, ("type", f"{name} (4)"), ("receiver", receiver), ("counter", counter))
    fields = (("octets", reader.left), ("of these", "16 of the authentication tag"))
    opening.add("WireGuard data", reader.at, end, *fields, encrypted=True)


def _little(reader: Reader, count: int) -> int:
    return int.from_bytes(reader.take(count), "little")


def open_esp(opening: Opening, start: int, end: int) -> None:
    """Errors: Short"""
    reader = Reader(opening.data, start, end)
    spi, number = f"0x{reader.number(4):08x}", reader.number(4)
    opening.say("ESP", f"ESP (SPI={spi})")
    opening.add("Encapsulating Security Payload", start, reader.at, ("SPI", spi), ("sequence number", number))
    opening.add("ESP data", reader.at, end, ("octets", reader.left), encrypted=True)


def open_ah(opening: Opening, start: int, end: int) -> tuple[int, int]:
    """An authentication header, which seals nothing. Returns where what it signs begins, and its protocol number.

    Errors: Short
    """
    reader = Reader(opening.data, start, end)
    protocol, length = reader.number(1), reader.number(1)
    reader.take(2)
    spi, number = f"0x{reader.number(4):08x}", reader.number(4)
    reader.take(max(0, (length + 2) * 4 - 12))
    opening.say("AH", f"AH (SPI={spi})")
    opening.add("IPsec authentication header", start, reader.at, ("SPI", spi), ("sequence number", number))
    return reader.at, protocol


def open_ipsec_datagram(opening: Opening, start: int, end: int, port: int) -> bool:
    """IKE, or ESP in UDP. Whether it is one of them."""
    octets = opening.data[start:end]
    if port == NAT_TRAVERSAL_PORT:
        if octets == b"\xff":
            opening.say("UDPENCAP", "NAT-keepalive")
            opening.add("IPsec NAT-keepalive", start, end)
            return True
        if octets[:4] != bytes(4):
            if len(octets) < 8:
                return False
            open_esp(opening, start, end)
            return True
        opening.add("IPsec non-ESP marker", start, start + 4)
        start += 4
    return _open_ike(opening, start, end)


def _open_ike(opening: Opening, start: int, end: int) -> bool:
    octets = opening.data[start:end]
    if len(octets) < _IKE_HEADER_OCTETS or octets[17] >> 4 not in (1, 2):
        return False
    reader = Reader(opening.data, start, end)
    initiator, responder = reader.take(8).hex(), reader.take(8).hex()
    payload, version, exchange, flags = (reader.number(1) for _ in range(4))
    message, length = reader.number(4), reader.number(4)
    name = _EXCHANGES.get(exchange, f"exchange {exchange}")
    words = name
    if version >> 4 == 2:
        ends = "Initiator" if flags & 8 else "Responder"
        words = f"{name} MID={message:02d} {ends} {'Response' if flags & 0x20 else 'Request'}"
    opening.say("ISAKMP", words)
    fields: list[tuple[str, object]] = [
        *(("exchange", name), ("initiator's SPI", initiator), ("responder's SPI", responder)),
        *(("version", f"{version >> 4}.{version & 15}"), ("message id", message), ("length", plural(length, "octet"))),
    ]
    opening.add("IPsec key exchange (IKE)", start, reader.at, *fields)
    sealed = payload in _SEALED_PAYLOADS or (version >> 4 == 1 and bool(flags & 1))
    if reader.left:
        opening.add("IKE payloads", reader.at, end, ("octets", reader.left), encrypted=sealed)
    return True

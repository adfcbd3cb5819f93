"""What an ICMP error quotes: the beginning of the packet that it answers.

    ICMPv4 3, 4, 5, 11, 12 and ICMPv6 1 to 4:  type | code | checksum | 4 octets | quoted packet [| extensions]

Extensions behind the quote (RFC 4884) say where it ends, and are left out.

Source: RFC 792, RFC 4443, RFC 4884
"""

from __future__ import annotations

ICMP_ERRORS = frozenset((3, 4, 5, 11, 12))
ICMPV6_ERRORS = frozenset((1, 2, 3, 4))
WITH_LENGTH = {True: frozenset((1, 3)), False: frozenset((3, 11, 12))}  # by whether it is ICMPv6
QUOTE_AT = 8


def quoted_packet(message: bytes, six: bool) -> bytes:
    """The octets of the packet that the error answers, as many as it quotes; empty if it is no error."""
    if len(message) <= QUOTE_AT or message[0] not in (ICMPV6_ERRORS if six else ICMP_ERRORS):
        return b""
    length = 0
    if message[0] in WITH_LENGTH[six]:
        length = message[4] * 8 if six else message[5] * 4
    quote = message[QUOTE_AT:]
    return quote[:length] if 0 < length < len(quote) else quote

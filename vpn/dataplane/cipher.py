"""Sealing and opening data packets with an AEAD: the way of nearly all traffic.

    header (4 or 1)   packet id (4)   tag (16)   ciphertext

The nonce is the packet id and 8 octets of the HMAC half of the key; what is authenticated besides is, of DATA_V2,
everything before the tag, of DATA_V1 only the packet id. `cryptography` puts the tag last, the wire has it first.
Batches go in and come out as lists, so that a packet costs no object besides its octets.

Source: openvpn-protocol.md section 7.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from vpn.crypto.replay import ReplayWindow
from vpn.crypto.static_key import KeyHalf
from vpn.dataplane.train import Train
from vpn.drops import Drop, Drops
from vpn.settings import Cipher
from vpn.wire.packet import Opcode

if TYPE_CHECKING:
    from vpn.dataplane.workbench import Rows, Workbench

TAG_OCTETS = 16
LAST_PACKET_ID = 0xFFFFFFFF
RENEGOTIATE_AT_PACKET_ID = 0xFF000000
_DATA_V2 = int(Opcode.DATA_V2)  # an enumeration's member costs a look-up each time
KEY_OCTETS = {
    Cipher.AES_128_GCM: 16,
    Cipher.AES_192_GCM: 24,
    Cipher.AES_256_GCM: 32,
    Cipher.CHACHA20_POLY1305: 32,
    Cipher.AES_128_CBC: 16,
    Cipher.AES_192_CBC: 24,
    Cipher.AES_256_CBC: 32,
}
AEAD_CIPHERS = frozenset({Cipher.AES_128_GCM, Cipher.AES_192_GCM, Cipher.AES_256_GCM, Cipher.CHACHA20_POLY1305})


class Sealer(Protocol):
    """One direction's sending key. Holds the packet id; never uses one twice."""

    @property
    def last_packet_id(self) -> int: ...

    def seal_batch(self, plaintexts: Sequence[bytes]) -> list[bytes]:
        """Datagrams in the order given; fewer than plaintexts when the key's packet ids are used up."""


class Opener(Protocol):
    """One direction's receiving key. Holds the replay window."""

    def open_batch(self, untrusted: Sequence[bytes], now: float, drops: Drops) -> list[bytes]:
        """Plaintexts of the packets that are authentic and new, in the order given; the rest is counted."""


def _aead(cipher: Cipher, key: KeyHalf) -> AESGCM | ChaCha20Poly1305:
    octets = key.cipher[: KEY_OCTETS[cipher]]
    return ChaCha20Poly1305(octets) if cipher is Cipher.CHACHA20_POLY1305 else AESGCM(octets)


class AeadSealer:
    """Shape: `header` is 4 octets for DATA_V2, 1 for DATA_V1."""

    __slots__ = ("_encrypt_into", "_with_header", "encrypt", "header", "implicit_iv", "last_packet_id")

    def __init__(self, cipher: Cipher, key: KeyHalf, header: bytes) -> None:
        aead = _aead(cipher, key)
        self.encrypt: Callable[[bytes, bytes, bytes], bytes] = aead.encrypt
        self._encrypt_into = aead.encrypt_into
        self.implicit_iv = key.hmac[:8]
        self.header = header
        self._with_header = len(header) > 1
        self.last_packet_id = 0

    def seal_batch(self, plaintexts: Sequence[bytes]) -> list[bytes]:
        encrypt, implicit_iv, header = self.encrypt, self.implicit_iv, self.header
        datagrams = []
        room = LAST_PACKET_ID - self.last_packet_id
        number = self.last_packet_id
        for plaintext in plaintexts[:room]:
            number += 1
            packet_id = number.to_bytes(4, "big")
            clear = header + packet_id
            sealed = encrypt(packet_id + implicit_iv, plaintext, clear if self._with_header else packet_id)
            datagrams.append(b"".join((clear, sealed[-TAG_OCTETS:], sealed[:-TAG_OCTETS])))
        self.last_packet_id = number
        return datagrams

    def seal_large(self, plaintext: bytes, lead: int) -> Train | None:
        """The same for one packet, with no copy besides the sealing."""
        if self.last_packet_id == LAST_PACKET_ID:
            return None
        self.last_packet_id += 1
        packet_id = self.last_packet_id.to_bytes(4, "big")
        clear = self.header + packet_id
        begin = lead + len(clear) + TAG_OCTETS
        octets = begin + len(plaintext)
        slot = memoryview(bytearray(octets + TAG_OCTETS))
        associated = clear if self._with_header else packet_id
        self._encrypt_into(packet_id + self.implicit_iv, plaintext, associated, slot[begin:])
        slot[:begin] = (octets - lead).to_bytes(2, "big")[:lead] + clear + bytes(slot[octets:])
        return Train(slot, 0, octets, octets, lead)

    def seal_rows(self, rows: Rows, lead: int, bench: Workbench) -> Train | None:
        """The same for many of one size; None, and nothing has happened, when the ids do not suffice for all."""
        first = self.last_packet_id + 1
        if LAST_PACKET_ID - self.last_packet_id < len(rows):
            return None
        self.last_packet_id += rows.count
        last = self.seal_batch((rows.last,))[0] if rows.last else b""
        return bench.seal(rows, self._encrypt_into, self.header, first, self.implicit_iv, lead, last)


class AeadOpener:
    __slots__ = ("_decrypt_into", "decrypt", "implicit_iv", "window")

    def __init__(self, cipher: Cipher, key: KeyHalf, window: ReplayWindow) -> None:
        aead = _aead(cipher, key)
        self.decrypt: Callable[[Any, Any, Any], bytes] = aead.decrypt
        self._decrypt_into = aead.decrypt_into
        self.implicit_iv = key.hmac[:8]
        self.window = window

    def open_batch(self, untrusted: Sequence[bytes], now: float, drops: Drops) -> list[bytes]:
        decrypt, implicit_iv, accept = self.decrypt, self.implicit_iv, self.window.accept
        plaintexts = []
        for packet in untrusted:
            start = 4 if packet[0] >> 3 == _DATA_V2 else 1
            end = start + 4
            packet_id = packet[start:end]
            sealed = packet[end + TAG_OCTETS :] + packet[end : end + TAG_OCTETS]
            try:
                plaintext = decrypt(packet_id + implicit_iv, sealed, packet[:end] if start == 4 else packet_id)
            except (InvalidTag, ValueError):
                # ValueError: cut so short that even the nonce is not whole
                drops.count(Drop.UNAUTHENTIC_DATA)
                continue
            if accept(int.from_bytes(packet_id, "big"), now):
                plaintexts.append(plaintext)
            else:
                drops.count(Drop.REPLAYED_DATA)
        return plaintexts

    def open_train(self, train: Train, now: float, drops: Drops, bench: Workbench | None) -> Rows | list[bytes] | None:
        """The same for many of one size: rows if all are new, else a list of those that are.

        None, and nothing has happened, if they are not all alike and authentic. One alone needs no `bench`.
        """
        header_octets = 4 if train.first_octet >> 3 == Opcode.DATA_V2 else 1
        if len(train) == 1:
            return self._open_large(train, header_octets, now, drops)
        if bench is None:
            return None
        body_octets = train.slot - train.lead - header_octets - 4 - TAG_OCTETS
        if not bench.knows(body_octets) and not self._is_authentic(train, header_octets):
            return None  # before memory is laid out for a size that nobody authentic has sent
        opened = bench.open(train, self._decrypt_into, header_octets, self.implicit_iv)
        if opened is None:
            return None
        rows, ids = opened
        fresh = self._accept(ids, now)
        last = train.last
        final = self.open_batch((last,), now, drops) if last else []
        if all(fresh):
            rows.last = final[0] if final else b""
            return rows
        drops.count(Drop.REPLAYED_DATA, fresh.count(False))
        return [packet for packet, new in zip(rows.packets(), fresh, strict=True) if new] + final

    def _open_large(self, train: Train, header_octets: int, now: float, drops: Drops) -> list[bytes] | None:
        """One packet where it lies; what is behind it comes back."""
        buffer, end = train.buffer, train.at + train.octets
        clear_at = train.at + train.lead
        tag_at = clear_at + header_octets + 4
        if end - tag_at < TAG_OCTETS or len(buffer) < end + TAG_OCTETS:
            return None
        packet_id = bytes(buffer[tag_at - 4 : tag_at])
        behind = bytes(buffer[end : end + TAG_OCTETS])
        buffer[end : end + TAG_OCTETS] = buffer[tag_at : tag_at + TAG_OCTETS]
        associated = buffer[clear_at:tag_at] if header_octets == 4 else packet_id
        sealed = buffer[tag_at + TAG_OCTETS : end + TAG_OCTETS]
        try:
            plaintext = self.decrypt(packet_id + self.implicit_iv, sealed, associated)
        except InvalidTag:
            return None
        finally:
            buffer[end : end + TAG_OCTETS] = behind
        if self.window.accept(int.from_bytes(packet_id, "big"), now):
            return [plaintext]
        drops.count(Drop.REPLAYED_DATA)
        return []

    def _is_authentic(self, train: Train, header_octets: int) -> bool:
        """Whether the first packet opens; it may be a replayed one."""
        packet = bytes(train.buffer[train.at + train.lead : train.at + train.slot])
        end = header_octets + 4
        packet_id = packet[header_octets:end]
        sealed = packet[end + TAG_OCTETS :] + packet[end : end + TAG_OCTETS]
        try:
            self.decrypt(packet_id + self.implicit_iv, sealed, packet[:end] if header_octets == 4 else packet_id)
        except (InvalidTag, ValueError):
            return False
        return True

    def _accept(self, ids: list[int], now: float) -> list[bool]:
        count, window = len(ids), self.window
        if ids == list(range(ids[0], ids[0] + count)) and window.accept_run(ids[0], count, now):
            return [True] * count
        return [window.accept(number, now) for number in ids]

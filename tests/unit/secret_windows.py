"""Finds secrets in text: any eight octets in a row, as octets, hexadecimal, base64 or a Python literal."""

from __future__ import annotations

import ast
import base64
import binascii
import re
from collections.abc import Iterable, Iterator

WINDOW = 8
_LITERAL = re.compile(r"b(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")")
_HEX = re.compile(r"[0-9a-fA-F]{16,}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{11,}={0,2}")


class Secrets:
    """All windows of some secrets; those of one repeated octet are left out, since zeros stand everywhere."""

    def __init__(self, secrets: Iterable[bytes]) -> None:
        self._windows = {window for secret in secrets for window in _windows(secret) if len(set(window)) > 1}

    def __len__(self) -> int:
        return len(self._windows)

    def shown_in(self, text: str) -> list[str]:
        """The windows that the text shows, in hexadecimal."""
        return [window.hex() for octets in _readings(text) for window in _windows(octets) if window in self._windows]


def _windows(octets: bytes) -> Iterator[bytes]:
    return (octets[start : start + WINDOW] for start in range(len(octets) - WINDOW + 1))


def _readings(text: str) -> Iterator[bytes]:
    """The text as octets, and what is written in it."""
    yield text.encode("utf-8", "surrogateescape")
    for found in _LITERAL.findall(text):
        yield ast.literal_eval(found)
    for found in _HEX.findall(text):
        for shift in (0, 1):  # digits may begin in the middle of an octet
            digits = found[shift:]
            yield bytes.fromhex(digits[: len(digits) // 2 * 2])
    for found in _BASE64.findall(text):
        for shift in range(4):
            word = found.rstrip("=")[shift:]
            try:
                yield base64.b64decode(word[: len(word) // 4 * 4])
            except binascii.Error:
                continue

"""Names as somebody else chose them, unable to forge lines or to steer a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` with an underscore for everything that is not shown as itself."""
    return "".join(character if character.isprintable() else "_" for character in text)

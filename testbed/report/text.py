"""Captured strings made fit to be shown: nothing a peer chose may steer a terminal, reorder a line or break a
document.

A host name, header or page title comes from a capture and may hold escape sequences, line breaks, bidirectional
overrides, invisible characters or lone surrogates. `visible` spells those out (`\\x1b`, `\\u202e`); `shorten` limits
the width that the rest takes on a terminal. Escaping for a format (HTML, XML, rich markup, shell) is the renderer's
job and comes after.

Not reversible: a backslash stays a backslash, since the observer spells undecodable octets the same way. Exact values
are in `result.json`.
"""

from __future__ import annotations

import re
import unicodedata

ELLIPSIS = "…"

# Control, format (bidi, zero width), surrogate, private, unassigned, line and paragraph separators.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_MARKS = frozenset({"Mn", "Me"})
_MARKS_IN_A_ROW = 2  # living languages stack two; more is a tower that covers the lines above and below
_PLAIN = re.compile(r"[ -~]*")


def visible(text: str) -> str:
    """The text on one line, with every character that would not show as itself spelled out.

    Shape: printable ASCII comes back unchanged; `visible(visible(x)) == visible(x)`
    """
    if _PLAIN.fullmatch(text):
        return text
    shown: list[str] = []
    marks = 0
    for character in text:
        category = unicodedata.category(character)
        marks = marks + 1 if category in _MARKS else 0
        odd_space = category == "Zs" and character != " "
        if category in _INVISIBLE or odd_space or marks > _MARKS_IN_A_ROW:
            shown.append(_spelled(character))
        else:
            shown.append(character)
    return "".join(shown)


def _spelled(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def cell_width(text: str) -> int:
    """Columns that visible text takes on a terminal: wide East Asian characters and emoji take two, marks none."""
    return len(text) if text.isascii() else sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def shorten(text: str, columns: int, ellipsis: str = ELLIPSIS) -> str:
    """The text made visible and cut to a number of terminal columns, the cut marked by an ellipsis."""
    shown = visible(text)
    if cell_width(shown) <= columns:
        return shown
    room = columns - len(ellipsis)
    kept: list[str] = []
    for character in shown:
        room -= _columns(character)
        if room < 0:
            break
        kept.append(character)
    return "".join(kept) + ellipsis


def octets_in_words(octets: float) -> str:
    """A size as people say it: `512 B`, `1.4 kB`, `2.3 MB` (decimal, as networks count)."""
    size = float(octets)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")


def number_in_words(value: float) -> str:
    """A number without noise: whole ones grouped by thousands, others to three places."""
    if float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.3f}"


def plain_value(value: object) -> str:
    """A value of a free-form part of the result on one line: lists by commas, mappings as `key value`."""
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return number_in_words(value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain_value(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(plain_value(item) for item in value) or "none"
    return visible(str(value))

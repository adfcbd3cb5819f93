"""What to look for: the ways in which a text may stand in captured octets.

    plain, in any case     www.example.com  WWW.Example.Com
    DNS labels             03 w w w 07 e x a m p l e 03 c o m
    hex                    7777772e…, in any case
    percent-encoded        what a URL must encode, or every octet: %77%77%77…
    base64                 at each of its three alignments, of the standard and of the URL alphabet
    UTF-16                 77 00 77 00 …, least or most significant octet first

Case is folded on both sides except for base64, where it carries meaning. At an alignment, only the characters that
depend on nothing but the text itself are looked for.

A host name may also stand where another one does that ends in it or holds it as a piece: `explaining` says which.

Source: RFC 1035 section 3.1; RFC 3986 section 2.1; RFC 4648 sections 4 and 5
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote

TRANSFORMS = (
    "plain",
    "case-folded",
    "DNS labels",
    "hex",
    "percent-encoded",
    "base64 at three alignments",
    "UTF-16 LE and BE",
)
LONGEST_LABEL_OCTETS = 63
SHORTEST_BASE64 = 6  # fewer characters than this turn up by chance


@dataclass(frozen=True, slots=True)
class Pattern:
    """Octets to find. Shape: if `folded`, they are in lower case and so is what they are looked for in."""

    transform: str
    octets: bytes
    folded: bool = True


@lru_cache(maxsize=4096)
def patterns(needle: str) -> tuple[Pattern, ...]:
    """Every form of a text, each once."""
    return tuple({(p.octets, p.folded): p for p in _patterns(needle) if p.octets}.values())


def _patterns(needle: str) -> Iterator[Pattern]:
    exact = needle.encode("utf-8", "surrogateescape")
    folded = exact.lower()
    yield Pattern("hex", folded.hex().encode())
    yield Pattern("hex", exact.hex().encode())
    for octets in (exact, folded):
        yield Pattern("percent-encoded", "".join(f"%{octet:02x}" for octet in octets).encode())
    yield Pattern("percent-encoded", quote(exact, safe="").lower().encode())
    labels = folded.rstrip(b".").split(b".")
    if len(labels) > 1 and all(0 < len(label) <= LONGEST_LABEL_OCTETS for label in labels):
        yield Pattern("DNS labels", b"".join(bytes([len(label)]) + label for label in labels))
    for octets in (exact, folded):
        for alignment in range(3):
            yield from _base64(octets, alignment)
    # What both orders of the octets have in common: all but the zero before the first or behind the last character.
    yield Pattern("UTF-16", b"".join(b"\0" + octet.to_bytes() for octet in folded)[1:])
    # Last, so that it wins where an encoding changes nothing.
    yield Pattern("plain", folded)


def _base64(octets: bytes, alignment: int) -> Iterator[Pattern]:
    encoded = b64encode(bytes(alignment) + octets)
    first = (8 * alignment + 5) // 6  # characters before it share bits with what precedes the text
    last = 8 * (alignment + len(octets)) // 6  # those from it on share bits with what follows
    inner = encoded[first:last]
    if len(inner) >= SHORTEST_BASE64:
        yield Pattern("base64", inner, folded=False)
        yield Pattern("base64", inner.translate(bytes.maketrans(b"+/", b"-_")), folded=False)


def explaining(needle: str, done: Iterable[str], read: Iterable[str]) -> tuple[str, ...]:
    """The longer names that account for a match by themselves: where they stand, the needle itself need not.

    Shape: `done` are names the client used: one that ends in the needle is another secret. `read` are names a dissector
        read in the capture: one that holds the needle as a piece of a word (`notwww.example.com`) is another name,
        while one above or below it (`www.example.com.lan`) tells it.
    """
    name = needle.casefold()
    used = {other for other in map(str.casefold, done) if other.endswith(f".{name}")}
    return tuple(
        sorted(used | {other for other in map(str.casefold, read) if name in other and not _holds(other, name)})
    )


def _holds(other: str, name: str) -> bool:
    return f".{name}." in f".{other}."


@lru_cache(maxsize=4096)
def surroundings(pattern: Pattern, longer: tuple[str, ...]) -> tuple[tuple[int, bytes], ...]:
    """Where a match of the pattern lies within the same form of a longer name: offset in it, and its octets."""
    found = []
    for name in longer:
        for form in patterns(name):
            at = form.octets.find(pattern.octets) if form.transform == pattern.transform != "base64" else -1
            if at >= 0:
                found.append((at, form.octets))
    return tuple(found)

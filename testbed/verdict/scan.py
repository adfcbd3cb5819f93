"""All places of all patterns in a buffer, in one pass whose cost hardly depends on how many patterns there are.

    buffer   | .... | .... | .... | .... |      read as words of four octets, letters folded by one OR
    pattern         ..xx xxxx x..               any seven octets of it hold a whole word, at one of four offsets
    table    hash of a word -> may some pattern hold it here?

Four words of every pattern, one for each offset, go into a table; the buffer's words are looked up in it by numpy, a
chunk of cache size at a time, and what is left is compared exactly. Which seven octets of a pattern are taken, a
sample of the buffer says: those that are rarest there, so that a common word (`www.`, `HTTP`) costs nothing. Few
octets, few patterns and patterns shorter than that are looked for one by one with `bytes.find`, which then is quicker
than numpy's import. Both ways find the same; a property test compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from testbed.verdict.needles import Pattern

WORD_OCTETS = 4
SHORTEST_BY_WORDS = 2 * WORD_OCTETS - 1
# Below this much work (octets times patterns) one `find` after the other takes less than numpy's import, 0.1 s.
LEAST_WORK_BY_WORDS = 500_000_000
SAMPLE_WORDS = 1 << 16
CHUNK_WORDS = 1 << 17  # half a megabyte: the arrays of a chunk stay in the cache
HASH_BITS = 18
HASH_FACTOR = 0x9E3779B1  # Knuth's multiplicative hash: 2^32 over the golden ratio
FOLD = 0x20202020

Accept = Callable[[int, int], bool]  # the pattern's index and a place: whether it counts


def scan(buffer: bytes, folded: Callable[[], bytes], patterns: Sequence[Pattern], accept: Accept, most: int) -> None:
    """Offer every place of every pattern to `accept`, each pattern's in ascending order, until it took `most`.

    Shape: `folded` gives the buffer in lower case, of equal length; it is called only if it is needed.
    """
    if len(buffer) * len(patterns) < LEAST_WORK_BY_WORDS:
        one_by_one(buffer, folded, enumerate(patterns), accept, most)
        return
    long = [(i, p) for i, p in enumerate(patterns) if len(p.octets) >= SHORTEST_BY_WORDS]
    by_words(buffer, long, accept, most)
    short = [(i, p) for i, p in enumerate(patterns) if len(p.octets) < SHORTEST_BY_WORDS]
    one_by_one(buffer, folded, short, accept, most)


def one_by_one(buffer: bytes, folded: Callable[[], bytes], patterns: Any, accept: Accept, most: int) -> None:
    """As `scan`, a pass for every pattern."""
    for index, pattern in patterns:
        octets = folded() if pattern.folded else buffer
        taken, at = 0, octets.find(pattern.octets)
        while at >= 0 and taken < most:
            taken += accept(index, at)
            at = octets.find(pattern.octets, at + 1)


def by_words(buffer: bytes, patterns: Sequence[tuple[int, Pattern]], accept: Accept, most: int) -> None:
    """As `scan`, one pass for all patterns, each of `SHORTEST_BY_WORDS` octets or more."""
    if not patterns:
        return
    import numpy

    words = numpy.frombuffer(buffer, dtype="<u4", count=len(buffer) // WORD_OCTETS)
    places = _anchors(patterns, words[:: max(1, len(words) // SAMPLE_WORDS)])
    taken: dict[int, int] = {}
    for at, word in _candidates(words, sorted(places)):
        for index, pattern, offset in places[word]:
            start = at * WORD_OCTETS - offset
            if start < 0 or taken.get(index, 0) >= most:
                continue
            piece = buffer[start : start + len(pattern.octets)]
            if (piece.lower() if pattern.folded else piece) == pattern.octets:
                taken[index] = taken.get(index, 0) + accept(index, start)


def _anchors(patterns: Sequence[tuple[int, Pattern]], sample: Any) -> dict[int, list[tuple[int, Pattern, int]]]:
    """Word -> the patterns that hold it, and where: of each pattern four words in a row, the rarest in the sample."""
    import numpy

    every = [
        [int.from_bytes(p.octets[at : at + WORD_OCTETS], "little") | FOLD for at in range(len(p.octets) - 3)]
        for _, p in patterns
    ]
    known = numpy.sort(sample | numpy.uint32(FOLD))
    flat = numpy.array([word for words in every for word in words], dtype=numpy.uint32)
    counted = numpy.searchsorted(known, flat, "right") - numpy.searchsorted(known, flat, "left")
    places: dict[int, list[tuple[int, Pattern, int]]] = {}
    begin = 0
    for (index, pattern), words in zip(patterns, every, strict=True):
        counts = counted[begin : begin + len(words)].tolist()
        begin += len(words)
        first = min(range(len(words) - 3), key=lambda at: sum(counts[at : at + WORD_OCTETS]))
        for offset in reversed(range(first, first + WORD_OCTETS)):  # of one word's matches the first comes first
            places.setdefault(words[offset], []).append((index, pattern, offset))
    return places


def _candidates(every: Any, words: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Number and folded value of the buffer's words that are, folded, one of `words` (ascending)."""
    import numpy

    wanted = numpy.array(words, dtype=numpy.uint32)
    shift, factor = numpy.uint32(32 - HASH_BITS), numpy.uint32(HASH_FACTOR)
    table = numpy.zeros(1 << HASH_BITS, dtype=numpy.bool_)
    table[(wanted * factor) >> shift] = True
    folded, hashed = numpy.empty(CHUNK_WORDS, numpy.uint32), numpy.empty(CHUNK_WORDS, numpy.uint32)
    for first in range(0, len(every), CHUNK_WORDS):
        chunk = every[first : first + CHUNK_WORDS]
        count = len(chunk)
        numpy.bitwise_or(chunk, numpy.uint32(FOLD), out=folded[:count])
        numpy.multiply(folded[:count], factor, out=hashed[:count])
        numpy.right_shift(hashed[:count], shift, out=hashed[:count])
        maybe = numpy.flatnonzero(table[hashed[:count]])
        if len(maybe):
            found = folded[maybe]
            at = numpy.searchsorted(wanted, found)
            at[at == len(wanted)] = 0
            right = wanted[at] == found
            yield from zip((maybe[right] + first).tolist(), found[right].tolist(), strict=True)

"""The scan for all patterns at once against one `find` after the other."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.verdict import scan
from testbed.verdict.needles import Pattern, patterns

ALPHABET = st.sampled_from([b"a", b"A", b"b", b"B", b"\0", b"@", b"`", b"1"])
WORDS = st.lists(ALPHABET, min_size=7, max_size=12).map(b"".join)
BUFFERS = st.lists(st.one_of(ALPHABET, WORDS), max_size=200).map(b"".join)


def found(way: str, buffer: bytes, patterns: list[Pattern], most: int) -> list[tuple[int, int]]:
    places: list[tuple[int, int]] = []

    def accept(index: int, at: int) -> bool:
        places.append((index, at))
        return at % 3 != 1  # what is not accepted must not count

    numbered = list(enumerate(patterns))
    if way == "words":
        scan.by_words(buffer, numbered, accept, most)
    else:
        scan.one_by_one(buffer, buffer.lower, numbered, accept, most)
    return sorted(places)


@settings(deadline=None)
@given(BUFFERS, st.lists(st.tuples(WORDS, st.booleans()), min_size=1, max_size=5), st.integers(1, 4), st.data())
def test_both_ways_offer_the_same_places(
    buffer: bytes, words: list[tuple[bytes, bool]], most: int, data: st.DataObject
) -> None:
    wanted = [Pattern("plain", word.lower() if folded else word, folded) for word, folded in words]
    for word, _ in words:  # put some in, so that there is something to find
        at = data.draw(st.integers(0, len(buffer)))
        buffer = buffer[:at] + word + buffer[at:]
    assert found("words", buffer, wanted, most) == found("find", buffer, wanted, most)


@settings(deadline=None)
@given(st.binary(max_size=300), st.integers(0, 400), st.sampled_from(["c0ffee1234567890", "www.example.com"]))
def test_every_form_is_found_by_words_at_every_alignment(noise: bytes, at: int, needle: str) -> None:
    for pattern in patterns(needle):
        buffer = noise[:at] + pattern.octets + noise[at:]
        places = found("words", buffer, [pattern], 10)
        assert (0, min(at, len(noise))) in places

"""The search against a slow, obvious model of itself."""

from __future__ import annotations

from base64 import b64encode
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from testbed.verdict.search import CaptureSearch
from tests.unit.verdict_samples import Stream, frames_of, tap

NEEDLES = st.text("abcdef0123456789", min_size=8, max_size=16)
NOISE = st.binary(max_size=40)


@given(st.lists(NOISE, max_size=5), NEEDLES, st.integers(0, 5), st.sampled_from(["plain", "upper", "hex", "url"]))
def test_a_needle_put_into_noise_is_found_in_its_frame(noise: list[bytes], needle: str, at: int, form: str) -> None:
    written = {
        "plain": needle.encode(),
        "upper": needle.upper().encode(),
        "hex": needle.encode().hex().encode(),
        "url": quote(needle).encode(),
    }[form]
    at = min(at, len(noise))
    octets = [*noise[:at], b"\xff" + written + b"\xff", *noise[at:]]
    hits = CaptureSearch(tap("isp", frames=frames_of(*octets))).find(needle)
    assert (at + 1,) in [hit.frames for hit in hits]


@given(NOISE, NEEDLES, NOISE)
def test_base64_of_anything_around_a_needle_is_found(before: bytes, needle: str, after: bytes) -> None:
    written = b64encode(before + needle.encode() + after)
    assert CaptureSearch(tap("isp", frames=frames_of(written))).find(needle)


@given(st.lists(st.binary(min_size=0, max_size=12), max_size=12), NEEDLES)
def test_plain_matches_are_exactly_the_frames_that_contain_the_needle(noise: list[bytes], needle: str) -> None:
    octets = [*noise, needle.encode(), *noise]
    found = CaptureSearch(tap("isp", frames=frames_of(*octets))).find(needle)
    model = [(number,) for number, data in enumerate(octets, 1) if needle.encode() in data.lower()]
    assert [hit.frames for hit in found if hit.transform == "plain"] == model


@given(NEEDLES, st.sets(st.integers(1, 30), max_size=6), st.binary(max_size=6), st.binary(max_size=6))
def test_a_needle_cut_into_segments_is_found_with_all_its_frames(
    needle: str, cuts: set[int], before: bytes, after: bytes
) -> None:
    data = before + needle.encode() + after
    offsets = sorted({0, *(cut for cut in cuts if cut < len(data))})
    segments = tuple((offset, number) for number, offset in enumerate(offsets, 1))
    pieces = [data[a:b] for a, b in zip(offsets, [*offsets[1:], len(data)], strict=True)]
    found = CaptureSearch(tap("isp", frames=frames_of(*pieces), streams=(Stream("tcp a -> b", data, segments),)))
    ends = [(offset, end) for offset, end in zip(offsets, [*offsets[1:], len(data)], strict=True)]
    start, stop = len(before), len(before) + len(needle)
    model = tuple(number for number, (a, b) in enumerate(ends, 1) if a < stop and b > start)
    assert model in [hit.frames for hit in found.find(needle)]

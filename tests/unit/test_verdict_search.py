"""The search behind every "hidden": what it finds, wherever and however it is written."""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable

import pytest

from testbed.verdict.search import CaptureSearch
from tests.unit.verdict_samples import Stream, frames_of, tap

TOKEN = "c0ffee1234567890"
NAME = "www.Example.com"


def search(*octets: bytes, streams: tuple[Stream, ...] = ()) -> CaptureSearch:
    return CaptureSearch(tap("isp", frames=frames_of(*octets), streams=streams))


@pytest.mark.parametrize(
    ("write", "transform"),
    [
        (lambda text: text.encode(), "plain"),
        (lambda text: text.swapcase().encode(), "case-folded"),
        (lambda text: text.encode().hex().encode(), "hex"),
        (lambda text: text.encode().hex().upper().encode(), "hex"),
        (lambda text: "".join(f"%{octet:02X}" for octet in text.encode()).encode(), "percent-encoded"),
        (lambda text: b"".join(bytes([len(p)]) + p for p in text.upper().encode().split(b".")), "DNS labels"),
        (lambda text: text.encode("utf-16-le"), "UTF-16"),
        (lambda text: text.upper().encode("utf-16-be"), "UTF-16"),
    ],
)
def test_a_name_is_found_in_every_form(write: Callable[[str], bytes], transform: str) -> None:
    hits = search(b"nothing", b"before " + write(NAME) + b" after").find(NAME)
    assert [(hit.frames, hit.transform) for hit in hits] == [((2,), transform)]


@pytest.mark.parametrize("encode", [b64encode, urlsafe_b64encode])
@pytest.mark.parametrize("before", [b"", b"x", b"xy", b"xyz"])
@pytest.mark.parametrize("after", [b"", b"u", b"uv"])
def test_base64_is_found_at_each_alignment(encode: Callable[[bytes], bytes], before: bytes, after: bytes) -> None:
    needle = "to??ken>>~~1234567"
    hits = search(b"Authorization: Basic " + encode(before + needle.encode() + after)).find(needle)
    assert [hit.transform for hit in hits] == ["base64"]


def test_a_url_encodes_only_what_it_must() -> None:
    assert search(b"/?q=a%20secret%2Fword").find("a secret/word")[0].transform == "percent-encoded"


def test_a_text_across_a_segment_boundary_is_found_in_the_stream_and_names_both_frames() -> None:
    stream = Stream("tcp 192.0.2.1:5 -> 192.0.2.2:80", b"GET /c0ffee1234567890 HTTP", ((0, 1), (11, 3)))
    found = search(b"..GET /c0ffee", b"other", b"..1234567890 HTTP", streams=(stream,))
    (hit,) = found.find(TOKEN)
    assert hit.frames == (1, 3)
    assert hit.where == "tcp"
    assert hit.filters == (
        'frame.number == 1 && frame contains "c0ffee"',
        'frame.number == 3 && frame contains "1234567890"',
    )


def test_base64_across_a_segment_boundary_is_found_too() -> None:
    written = b64encode(b"xx" + TOKEN.encode())
    stream = Stream("tcp a -> b", written, ((0, 1), (9, 2)))
    assert search(written[:9], written[9:], streams=(stream,)).find(TOKEN)[0].frames == (1, 2)


def test_a_decoded_body_is_searched_and_filtered_by_what_wireshark_decodes() -> None:
    stream = Stream("http-body a -> b", b"note=c0ffee1234567890", ((0, 1),))
    (hit,) = search(b"\x1f\x8bcompressed", streams=(stream,)).find(TOKEN)
    assert hit.filters == ('frame.number == 1 && http.file_data contains "c0ffee1234567890"',)


def test_two_frames_side_by_side_do_not_make_a_match() -> None:
    assert search(b"c0ffee12", b"34567890").find(TOKEN) == ()


def test_a_match_after_an_empty_frame_names_the_right_frame() -> None:
    assert search(b"", b"a", b"", TOKEN.encode()).find(TOKEN)[0].frames == (4,)


def test_a_frame_is_named_once_however_often_the_text_stands_in_it() -> None:
    assert len(search(TOKEN.encode() * 5).find(TOKEN)) == 1


def test_octets_that_are_no_text_become_a_filter_in_hexadecimal() -> None:
    (hit,) = search(b"\x03www\x07example\x03com\x00").find("www.example.com")
    assert hit.filters == ("frame contains 03:77:77:77:07:65:78:61:6d:70:6c:65:03:63:6f:6d",)


def test_quotes_in_a_match_do_not_become_syntax_of_the_filter() -> None:
    (hit,) = search(b'..say "hello world"..').find('say "hello world"')
    assert '"' not in hit.filters[0]


def piece(offset: int, more: bool, octets: bytes) -> bytes:
    """A fragment of a datagram."""
    length, flags = (20 + len(octets)).to_bytes(2, "big"), (offset // 8 | more << 13).to_bytes(2, "big")
    ends = bytes((192, 0, 2, 1, 192, 0, 2, 2))
    return bytes(12) + b"\x08\0\x45\0" + length + b"\0\7" + flags + b"\x40\x11\0\0" + ends + octets


def test_a_text_split_over_fragments_that_never_became_whole_is_found_in_any_order() -> None:
    first, second = piece(0, True, b"12345678" + TOKEN[:8].encode()), piece(16, True, TOKEN[8:].encode())
    for order, frames in (((first, second), (1, 2)), ((second, first), (2, 1))):
        (hit,) = search(*order).find(TOKEN)
        assert (hit.where, hit.frames) == ("unassembled", frames)
    assert (
        search(first, piece(16, True, b"something between the two"), piece(48, True, TOKEN[8:].encode())).find(TOKEN)
        == ()
    )

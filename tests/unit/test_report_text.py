"""Captured strings are shown, never obeyed."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.report.text import cell_width, octets_in_words, plain_value, shorten, visible

ANY_TEXT = st.text(st.characters())


@pytest.mark.parametrize(
    ("captured", "shown"),
    [
        ("plain text", "plain text"),
        ("red \x1b[31m", "red \\x1b[31m"),
        ("two\r\nlines\t", "two\\x0d\\x0alines\\x09"),
        ("exe.\u202egpj", "exe.\\u202egpj"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("c1 \x9b31m", "c1 \\x9b31m"),
        ("half \ud800", "half \\ud800"),
        ("no\u00a0break", "no\\xa0break"),
        ("tag \U000e0041", "tag \\U000e0041"),
        ("Zürich 北京 🙂", "Zürich 北京 🙂"),
        ("e\u0301", "e\u0301"),
        ("e" + "\u0301" * 4, "e\u0301\u0301\\u0301\\u0301"),
    ],
)
def test_characters_that_do_not_show_as_themselves_are_spelled_out(captured: str, shown: str) -> None:
    assert visible(captured) == shown


@given(ANY_TEXT)
def test_visible_text_is_one_printable_line_and_stays_the_same(text: str) -> None:
    shown = visible(text)
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"}
    assert visible(shown) == shown
    shown.encode()


@given(ANY_TEXT, st.integers(1, 60))
def test_shortened_text_fits_its_columns(text: str, columns: int) -> None:
    assert cell_width(shorten(text, columns)) <= columns


def test_a_cut_is_marked_and_a_wide_character_is_never_halved() -> None:
    assert shorten("www.example.com", 8) == "www.exa…"
    assert shorten("北京北京", 6) == "北京…"
    assert shorten("abc", 3) == "abc"


def test_sizes_and_values_read_as_people_say_them() -> None:
    assert [octets_in_words(n) for n in (0, 999, 1400, 2_300_000)] == ["0 B", "999 B", "1.4 kB", "2.3 MB"]
    assert plain_value({"routes": ["10.0.0.0/8", "a\x00"], "on": True, "mtu": 1500.0, "none": None}) == (
        "routes 10.0.0.0/8, a\\x00, on yes, mtu 1,500, none —"
    )

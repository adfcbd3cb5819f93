"""A configuration file, or a list of `--option value` words, cut into directives.

    option word "another word"      a directive
    <ca>                            an inline block: the lines up to </ca> are the option's one argument
    -----BEGIN CERTIFICATE-----
    </ca>
    <connection> … </connection>    a block of directives of its own (`Directive.block`)

Pure: the caller reads the files. Mistakes of all lines are collected, so that one run shows them all.

Source: openvpn(8), "INLINE FILE SUPPORT" and "--connection"
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from vpn.config.errors import COMMAND_LINE, Place, Problem
from vpn.config.words import WordError, split_words

CONNECTION = "connection"
LINE_MAXIMUM_CHARACTERS = 65536  # far above any real line; openvpn's own limit is 255
WORDS_MAXIMUM = 16  # openvpn's MAX_PARMS
_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True, slots=True)
class Directive:
    """One option as written. `inline`: the single argument is the content of a block, not a file name."""

    name: str
    arguments: tuple[str, ...]
    place: Place
    inline: bool = False
    block: tuple[Directive, ...] = field(default=())

    def __repr__(self) -> str:
        shown = "(inline)" if self.inline else " ".join(self.arguments)
        return f"Directive({self.name} {shown} at {self.place})"


def parse_text(text: str, file: str) -> tuple[list[Directive], list[Problem]]:
    """The directives of a file's text, and what is wrong with it."""
    problems: list[Problem] = []
    # not splitlines, which ends lines at form feeds and the like, too: a comment would go on as an option
    lines = text.removeprefix(_BYTE_ORDER_MARK).replace("\r\n", "\n").split("\n")
    numbered = list(enumerate(lines, start=1))
    directives = _parse_lines(numbered, file, problems)
    return directives, problems


def parse_arguments(words: Sequence[str]) -> tuple[list[Directive], list[Problem]]:
    """The directives of a command line: each word that begins with `--` starts one."""
    directives: list[Directive] = []
    problems: list[Problem] = []
    current: list[str] | None = None
    for word in [*words, "--"]:
        if word.startswith("--"):
            if current is not None:
                directives.append(Directive(current[0], tuple(current[1:]), COMMAND_LINE))
            current = [word[2:]]
        elif current is None:
            problems.append(Problem(COMMAND_LINE, "", f"{word!r} stands before any --option"))
        else:
            current.append(word)
    return directives, problems


def _parse_lines(numbered: Sequence[tuple[int, str]], file: str, problems: list[Problem]) -> list[Directive]:
    directives: list[Directive] = []
    index = 0
    while index < len(numbered):
        number, line = numbered[index]
        index += 1
        place = Place(file, number)
        if len(line) > LINE_MAXIMUM_CHARACTERS:
            problems.append(Problem(place, "", f"the line is longer than {LINE_MAXIMUM_CHARACTERS} characters"))
            continue
        try:
            words = split_words(line)
        except WordError as error:
            problems.append(Problem(place, "", str(error)))
            continue
        if not words:
            continue
        if tag := _opening_tag(words):
            end = _find_end(numbered, index, tag)
            if end is None:
                problems.append(Problem(place, tag, f"the block <{tag}> has no </{tag}>"))
                return directives
            directives.append(_block(tag, numbered[index:end], place, problems))
            index = end + 1
        elif len(words) > WORDS_MAXIMUM:
            problems.append(Problem(place, words[0], f"more than {WORDS_MAXIMUM} words on a line"))
        else:
            directives.append(Directive(words[0].removeprefix("--"), tuple(words[1:]), place))
    return directives


def _opening_tag(words: Sequence[str]) -> str:
    if len(words) == 1 and len(words[0]) > 2 and words[0].startswith("<") and words[0].endswith(">"):
        return words[0][1:-1]
    return ""


def _find_end(numbered: Sequence[tuple[int, str]], start: int, tag: str) -> int | None:
    closing = f"</{tag}>"
    for index in range(start, len(numbered)):
        if numbered[index][1].lstrip().startswith(closing):
            return index
    return None


def _block(tag: str, body: Sequence[tuple[int, str]], place: Place, problems: list[Problem]) -> Directive:
    if tag == CONNECTION:
        return Directive(tag, (), place, block=tuple(_parse_lines(body, place.file, problems)))
    content = "".join(f"{line}\n" for _, line in body)
    return Directive(tag, (content,), place, inline=True)

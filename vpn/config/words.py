"""One line of an OpenVPN configuration file, cut into words.

Words are separated by white space. `'…'` keeps everything as it stands; in `"…"` and outside of quotes a backslash
takes the next character literally, which must be a backslash, a double quote or white space. `#` or `;` at the start
of a word begins a comment; inside of a word it is an ordinary character (a password may hold one).

Source: openvpn(8), "OPTIONS"; behaviour compared with openvpn 2.6.14 in the tests
"""

from __future__ import annotations

_ESCAPABLE = '\\"'
_COMMENT = "#;"


class WordError(ValueError):
    """The line cannot be cut into words."""


def split_words(line: str) -> list[str]:
    """The words of one line; empty for a blank line or a comment.

    Errors: WordError for an open quote, a backslash before an ordinary character or at the end of the line
    """
    words: list[str] = []
    position = 0
    while True:
        while position < len(line) and line[position].isspace():
            position += 1
        if position >= len(line) or line[position] in _COMMENT:
            return words
        word, position = _read_word(line, position)
        words.append(word)


def _read_word(line: str, position: int) -> tuple[str, int]:
    """The word that starts at `position`, and where it ends. Quotes end a word only together with white space."""
    characters: list[str] = []
    quote = ""
    while position < len(line):
        character = line[position]
        position += 1
        if character == "\\" and quote != "'":
            characters.append(_escaped(line, position))
            position += 1
        elif quote:
            if character == quote:
                quote = ""
            else:
                characters.append(character)
        elif character in "'\"":
            quote = character
        elif character.isspace():
            break
        else:
            characters.append(character)
    if quote:
        raise WordError(f"a quotation that begins with {quote} does not end on this line")
    return "".join(characters), position


def _escaped(line: str, position: int) -> str:
    if position >= len(line):
        raise WordError("a backslash at the end of the line")
    character = line[position]
    if character not in _ESCAPABLE and not character.isspace():
        raise WordError(f"a backslash before {character!r}; write \\\\ for a backslash, or use single quotes")
    return character

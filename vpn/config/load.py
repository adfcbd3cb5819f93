"""From a configuration file's path and the command line to settings, or to the list of all mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vpn.config.directives import Directive, parse_arguments, parse_text
from vpn.config.errors import ConfigurationError, Place, Problem
from vpn.config.files import FILE_MAXIMUM_OCTETS, FileReader
from vpn.config.model import Configuration
from vpn.config.options import check_directives, role_of
from vpn.config.peers import build_configuration

NESTING_MAXIMUM = 10  # of files that name further files with `config`; openvpn's limit


def load_configuration(path: Path, arguments: Sequence[str] = ()) -> Configuration:
    """Reads `path`, then `arguments` (`--option value …`, which count after the file's own lines).

    Errors: ConfigurationError with every mistake found
    """
    problems: list[Problem] = []
    directives = _read(path, Place(str(path)), 1, problems)
    further, mistakes = parse_arguments(arguments)
    directives += further
    problems += mistakes
    options = check_directives(directives, role_of(directives))
    options.problems[:0] = problems
    start = options.value("cd")
    reader = FileReader(Path(start) if start else Path())
    # With wrong words the settings would miss things, and complain about what the words were meant to say.
    if not options.problems:
        configuration = build_configuration(options, reader, Place(str(path)))
        if not options.problems:
            return configuration
    raise ConfigurationError(options.problems)


def _read(path: Path, named_at: Place, depth: int, problems: list[Problem]) -> list[Directive]:
    """The directives of a file, with those of files named by `config` in their place."""
    if depth > NESTING_MAXIMUM:
        problems.append(Problem(named_at, "config", f"more than {NESTING_MAXIMUM} files inside each other"))
        return []
    text = _text(path, named_at, problems)
    found, mistakes = parse_text(text, str(path))
    problems += mistakes
    directives: list[Directive] = []
    for directive in found:
        if directive.name == "config" and len(directive.arguments) == 1:
            directives += _read(Path(directive.arguments[0]), directive.place, depth + 1, problems)
        else:
            directives.append(directive)
    return directives


def _text(path: Path, named_at: Place, problems: list[Problem]) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_MAXIMUM_OCTETS + 1)
    except OSError as error:
        problems.append(Problem(named_at, "config", f"{path}: {error.strerror}"))
        return ""
    if len(content) > FILE_MAXIMUM_OCTETS:
        problems.append(Problem(named_at, "config", f"{path}: larger than {FILE_MAXIMUM_OCTETS} octets"))
        return ""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problems.append(Problem(Place(str(path), line), "", "not text in UTF-8"))
        return ""

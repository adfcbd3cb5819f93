"""What one end of any tunnel is: a command, and the files it needs in a directory of its own. Pure but for `write`.

`{dir}` in words and files is that directory, so that a description can be made before it is known where it will run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

EXECUTABLE = (".sh", "-up")  # files whose name ends so are made executable


@dataclass(frozen=True, slots=True)
class End:
    """One end: the command that runs in its node until it is ended, and the files it needs below its directory."""

    argv: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict, repr=False)  # there may be keys in them


def with_values(end: End, values: Mapping[str, str]) -> End:
    """The end with each `{name}` of `values` replaced; whatever else stands in braces stays."""

    def placed(text: str) -> str:
        for name, value in values.items():
            text = text.replace(f"{{{name}}}", value)
        return text

    return replace(
        end,
        argv=tuple(placed(word) for word in end.argv),
        files={name: placed(text) for name, text in end.files.items()},
    )


def in_directory(end: End, directory: str) -> End:
    """The end with its directory's name in place of `{dir}`."""
    return with_values(end, {"dir": directory})


def write_files(folder: Path, end: End) -> None:
    """Write the end's files below `folder`, for their owner alone."""
    for name, text in end.files.items():
        path = folder / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        mode = 0o700 if name.endswith(EXECUTABLE) else 0o600
        with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "w") as file:
            file.write(text)

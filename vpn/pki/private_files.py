"""Files that hold keys: created for the owner alone, never through a link, never over something that exists.

`O_EXCL` refuses whatever already has the name, a dangling symbolic link included, and the mode is given at creation, so
there is no moment at which another user could open the file. Replacing a file (the CRL) goes through a new file and a
rename in the same directory.

Not done here: locking, and protection from somebody who can write to the directory.
"""

from __future__ import annotations

import os
from pathlib import Path

PRIVATE_MODE = 0o600
PUBLIC_MODE = 0o644
DIRECTORY_MODE = 0o700


class PkiError(Exception):
    """Something the caller can mend: a file in the way, a missing certificate, a bad name. The text is for people."""


def make_directory(path: Path) -> None:
    """Makes sure `path` is a directory; one made here (parents included) is closed to others."""
    if path.is_dir():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=DIRECTORY_MODE)
    except OSError as error:
        raise PkiError(f"{path}: cannot make the directory: {error.strerror}") from error


def create_file(path: Path, content: bytes, mode: int = PRIVATE_MODE) -> None:
    """Creates `path` with `content`.

    Errors: PkiError if the name is taken (also by a link) or cannot be created
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, mode)
    except FileExistsError:
        raise PkiError(f"{path}: exists already; nothing was overwritten") from None
    except OSError as error:
        raise PkiError(f"{path}: cannot create: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)  # the umask may have taken bits away from a public file
        file.write(content)


def replace_file(path: Path, content: bytes, mode: int = PUBLIC_MODE) -> None:
    """Puts `content` at `path` in one step: readers see the old file or the new one, never half of it."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    create_file(fresh, content, mode)
    try:
        fresh.replace(path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise PkiError(f"{path}: cannot replace: {error.strerror}") from error


def read_file(path: Path) -> bytes:
    """The file's octets. Errors: PkiError with the path and the reason."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise PkiError(f"{path}: {error.strerror}") from error

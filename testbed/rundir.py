"""The directory a run writes: made atomically, never through a link, owned by the person who asked for it.

Everything below it is opened relative to its descriptor without following links, so that nobody who may write beside
it can redirect a root process's writes. Files of a `sudo` run belong to the invoking user. An existing directory is
used only if it is empty and the invoking user's own: a run never mixes with, or overwrites, what is there.

While a run writes, a file in the directory says so, and the run holds a lock that the kernel lets go of however the
process ends. So what a killed run has left says itself that it is no result, and whether anybody is still at it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

DEFAULT_PARENT = Path("runs")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ATTEMPTS = 1000
UNFINISHED = "UNFINISHED.txt"
_MARK = """This run has not come to its end: it is still under way, or it failed, or it was stopped.
So what lies here is no result: captures may break off, and nothing in them was judged.
"""
_NOBODY = 2**32 - 1  # chown's "leave as it is"; no user or group has it


class RunDirectoryRefused(Exception):
    """The run directory cannot or must not be used. Says which, why, and what to do instead."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who asked for the run: under sudo the invoking user, else the process's own ids.

    `hand_over` says whether files must be given to the owner. It is settled before a user namespace is entered: inside
    one an ordinary user's process is called root too, but its files are the user's already.
    """

    uid: int
    gid: int
    hand_over: bool = False

    @classmethod
    def of_this_process(cls, environment: dict[str, str]) -> Owner:
        uid, gid = _number(environment.get("SUDO_UID")), _number(environment.get("SUDO_GID"))
        if os.geteuid() == 0 and uid is not None:
            return cls(uid, uid if gid is None else gid, hand_over=uid != 0)
        return cls(os.geteuid(), os.getegid())


class RunDirectory:
    """An open run directory. `path` is for people; every access goes through the descriptor."""

    def __init__(self, path: Path, fd: int, owner: Owner, *, made: bool = True) -> None:
        self.path = path
        self.fd = fd
        self._owner = owner
        self._made = made  # by this run, not found empty

    @classmethod
    def create(cls, name: str, owner: Owner, out: Path | None = None, parent: Path = DEFAULT_PARENT) -> RunDirectory:
        """Make `out`, or `parent`/<time>-<name> with a unique suffix, and open it. Errors: RunDirectoryRefused."""
        try:
            os.getcwd()
        except FileNotFoundError:  # programs inside the lab would fail for it, each in its own words
            raise RunDirectoryRefused("the working directory has been removed: change to one that is there") from None
        try:
            if out is not None:
                made = not out.exists()
                return cls(out, _open_or_make(out, owner), owner, made=made)
            parent_fd = _open_or_make(parent, owner, must_be_empty=False)
            try:
                return cls._unique(parent, parent_fd, f"{time.strftime('%Y%m%d-%H%M%S')}-{name}", owner)
            finally:
                os.close(parent_fd)
        except OSError as error:
            where = error.filename or out or parent
            raise RunDirectoryRefused(
                f"cannot make the run directory {where}: {error.strerror}; name another with --out"
            ) from error

    @classmethod
    def _unique(cls, parent: Path, parent_fd: int, stem: str, owner: Owner) -> RunDirectory:
        for attempt in range(1, _ATTEMPTS):
            name = stem if attempt == 1 else f"{stem}-{attempt}"
            try:
                os.mkdir(name, 0o755, dir_fd=parent_fd)
            except FileExistsError:
                continue
            fd = os.open(name, _DIRECTORY, dir_fd=parent_fd)
            _give(fd, owner)
            return cls(parent / name, fd, owner)
        raise RunDirectoryRefused(f"{parent} already holds {_ATTEMPTS} runs of this second; name another with --out")

    def begin(self) -> None:
        """Say in the directory that what it holds is not whole yet."""
        with suppress(OSError):  # there are file systems without locks; the file says enough
            fcntl.flock(self.fd, fcntl.LOCK_SH)
        self.write_text(UNFINISHED, _MARK)

    def finish(self) -> None:
        """It holds all that a run writes."""
        os.unlink(UNFINISHED, dir_fd=self.fd)
        with suppress(OSError):
            fcntl.flock(self.fd, fcntl.LOCK_UN)

    def make_directory(self, name: str) -> int:
        """Make the sub-directory `name` (a path of existing directories and one new); returns an open descriptor."""
        *above, last = name.split("/")
        with _Opened(self.fd, above) as above_fd:
            os.mkdir(last, 0o755, dir_fd=above_fd)
            fd = os.open(last, _DIRECTORY, dir_fd=above_fd)
        _give(fd, self._owner)
        return fd

    def create_file(self, name: str, *, secret: bool = False) -> int:
        """Make the new file `name`, open for reading and writing; 0600 where it holds secrets."""
        *above, last = name.split("/")
        with _Opened(self.fd, above) as above_fd:
            fd = os.open(last, _NEW_FILE, 0o600 if secret else 0o644, dir_fd=above_fd)
        _give(fd, self._owner)
        return fd

    def write_text(self, name: str, text: str, *, secret: bool = False) -> None:
        """Make the file `name` with this content."""
        with os.fdopen(self.create_file(name, secret=secret), "w", encoding="utf-8") as file:
            file.write(text)

    @property
    def is_full(self) -> bool:
        """Whether nothing more fits on its file system: then programs inside may have failed for that alone."""
        with suppress(OSError):
            told = os.fstatvfs(self.fd)
            return told.f_blocks > 0 and told.f_bfree == 0
        return False

    def give_to_owner(self) -> None:
        """Hand over what programs inside made below this directory with the wrong owner. Links are not followed."""
        for _, directories, files, directory_fd in os.fwalk(dir_fd=self.fd, follow_symlinks=False):
            for entry in (*directories, *files):
                if self._owner.hand_over:
                    os.chown(entry, self._owner.uid, self._owner.gid, dir_fd=directory_fd, follow_symlinks=False)

    def discard(self) -> None:
        """Remove all that the run wrote, and the directory if the run made it. Links are removed, not followed."""
        with os.scandir(self.fd) as entries:
            for entry in list(entries):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.name, dir_fd=self.fd)
                else:
                    os.unlink(entry.name, dir_fd=self.fd)
        if self._made:
            with suppress(OSError):  # moved away or filled by somebody else meanwhile: then it is theirs
                os.rmdir(self.path)

    def close(self) -> None:
        os.close(self.fd)


def why_unfinished(path: Path) -> str:
    """Why what a run's directory holds is no result, in words that go on after its name; empty if it may be one."""
    if not (path / UNFINISHED).is_file():
        return ""
    fd = os.open(path, _DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "the run that writes it has not ended yet"
    except OSError:  # a file system without locks: nobody can tell whether a run is at it
        pass
    finally:
        os.close(fd)
    return "holds a run that did not come to its end, so no result"


def check_output_directory(path: Path) -> None:
    """Find out before a measurement whether files can be written in `path`, made if it is not there.

    Errors: RunDirectoryRefused
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirectoryRefused(f"cannot make the directory {path}: {error.strerror}; name another") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise RunDirectoryRefused(f"cannot write in {path}: permission denied; name another directory")


def check_report_place(path: Path) -> None:
    """Find out before a run whether a file can be written at `path`. Errors: RunDirectoryRefused."""
    if path.is_dir():
        raise RunDirectoryRefused(f"{path} is a directory: name a file")
    if not path.parent.is_dir():
        raise RunDirectoryRefused(f"cannot write {path}: there is no directory {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise RunDirectoryRefused(f"cannot write {path}: permission denied")


def write_report(path: Path, text: str, owner: Owner) -> None:
    """Write a report where a person asked for it, outside the run directory; a new file is the owner's."""
    new = not path.exists()
    with path.open("w", encoding="utf-8") as file:
        if new:
            _give(file.fileno(), owner)
        file.write(text)


class _Opened:
    """The directory `parts` below `fd`, open for as long as the block runs, no component a link."""

    def __init__(self, fd: int, parts: list[str]) -> None:
        self._fd = os.dup(fd)
        for part in parts:
            below = os.open(part, _DIRECTORY, dir_fd=self._fd)
            os.close(self._fd)
            self._fd = below

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *exception: object) -> None:
        os.close(self._fd)


def _number(text: str | None) -> int | None:
    """A user's or group's number, where the text is one."""
    number = int(text) if text and text.isascii() and text.isdecimal() else _NOBODY
    return number if number < _NOBODY else None


def _make_parents(path: Path, owner: Owner) -> None:
    for folder in reversed([folder for folder in path.parents if not folder.exists()]):
        try:
            os.mkdir(folder, 0o755)
        except FileExistsError:  # made meanwhile, or a/.. when a has just been made
            continue
        fd = os.open(folder, _DIRECTORY)
        try:
            _give(fd, owner)
        finally:
            os.close(fd)


def _open_or_make(path: Path, owner: Owner, *, must_be_empty: bool = True) -> int:
    made = False
    try:
        _make_parents(path, owner)
        os.mkdir(path, 0o755)
        made = True
    except FileExistsError:
        if path.is_symlink():
            raise RunDirectoryRefused(f"{path} is a link: give the directory itself with --out") from None
        if not path.is_dir():
            raise RunDirectoryRefused(f"{path} exists and is not a directory: name another with --out") from None
    fd = os.open(path, _DIRECTORY)
    try:
        if made:
            _give(fd, owner)
        else:
            _check_existing(path, fd, owner, must_be_empty)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_existing(path: Path, fd: int, owner: Owner, must_be_empty: bool) -> None:
    status = os.fstat(fd)
    if status.st_uid not in (owner.uid, os.geteuid()):
        raise RunDirectoryRefused(f"{path} belongs to another user (uid {status.st_uid}): name another with --out")
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        raise RunDirectoryRefused(f"{path} can be written by everybody: name another with --out, or chmod o-w it")
    if must_be_empty and os.listdir(fd):
        found = why_unfinished(path)
        what = f": {found}; remove it, or" if found else " is not empty:"
        raise RunDirectoryRefused(f"{path}{what} name a new or an empty directory with --out")


def _give(fd: int, owner: Owner) -> None:
    if owner.hand_over:
        os.fchown(fd, owner.uid, owner.gid)

"""What a tunnel changed on this host, written down before it is changed, so that it can be undone after `kill -9`.

One file per process, in a directory of this user alone; one JSON value per line:

    {"boot": …, "network": …, "pid": …, "device": …}      whose journal this is
    {"n": 1, "what": …, "kind": 25, "flags": 0, "body": "0a…"}  undo: a message to the kernel (rtnetlink), in hex
    {"n": 2, "file": …, "before": …, "written": …}        undo: a file's old content, if it still holds ours (base64)
    {"done": [1]}                                         these need no undoing any more, or were not done at all

Whether the process still lives shows its lock on the file: the kernel drops it with the process, however that ended,
and it means the same in every PID namespace. (A process id with its start time, the usual way, is read wrongly from
another PID namespace.) The file is locked before it gets its name, so nobody ever finds a living process's journal
unlocked. It is synced nowhere: it has to outlive the process, not the kernel, whose routes end with it; only files are
put back after a restart of the host, if the directory lasts that long.

Source: flock(2), namespaces(7), proc_sys_kernel(5) on random/boot_id
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from vpn.config.model import DriverSettings
from vpn.driver.errors import HostError
from vpn.driver.netlink import Request

JOURNAL_DIRECTORY = DriverSettings().journal_directory
_SUFFIX = ".journal"
_SIZE_MAXIMUM = 16 * 1024 * 1024  # some hundred octets a route; a file larger than this is none of ours
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NETWORK_NAMESPACE = Path("/proc/self/ns/net")


@dataclass(frozen=True, slots=True)
class FileContent:
    """A file this program rewrote. Shape: `before` is None if there was no file."""

    path: Path
    before: bytes | None
    written: bytes


Undo: TypeAlias = Request | FileContent


@dataclass(frozen=True, slots=True)
class Place:
    """Where the changes were made: they mean nothing in another network namespace or after a restart of the host."""

    boot: str
    network: str


@dataclass(slots=True)
class Found:
    """A journal whose process is gone. It stays locked, so that no other process undoes the same, until `close`."""

    path: Path
    place: Place
    pid: int
    undo: list[Undo] = field(default_factory=list)  # latest change first
    descriptor: int = -1

    def close(self, *, remove: bool) -> None:
        if remove:
            self.path.unlink(missing_ok=True)
        os.close(self.descriptor)


def this_place() -> Place:
    try:
        return Place(_BOOT_ID.read_text().strip(), str(_NETWORK_NAMESPACE.readlink()))
    except OSError as error:
        raise HostError(f"read {error.filename}", error.errno or 0) from error


class Journal:
    """This process's own journal. The file appears with the first change and goes when all are undone."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / f"{os.getpid()}{_SUFFIX}"
        self._descriptor = -1
        self._number = 0
        self._open: set[int] = set()

    def note(self, undo: Sequence[Undo]) -> list[int]:
        """Writes down what would undo the changes about to be made. Errors: HostError; then change nothing."""
        if not undo:
            return []
        try:
            if self._descriptor < 0:
                self._create()
            numbers = list(range(self._number + 1, self._number + 1 + len(undo)))
            self._write([_line(number, entry) for number, entry in zip(numbers, undo, strict=True)])
        except OSError as error:
            raise HostError(f"write the journal {self._path}", error.errno or 0) from error
        self._number += len(undo)
        self._open.update(numbers)
        return numbers

    def strike(self, numbers: Sequence[int]) -> None:
        """These changes were undone, or not made after all."""
        struck = self._open.intersection(numbers)
        self._open -= struck
        if self._descriptor < 0 or not struck:
            return
        if not self._open:
            self.close()
            return
        with contextlib.suppress(OSError):  # undoing once more does no harm
            self._write([{"done": sorted(struck)}])

    def close(self) -> None:
        if self._descriptor >= 0:
            if not self._open:
                self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1

    def _create(self) -> None:
        _make_directory(self._path.parent)
        hidden = self._path.with_name(f".{self._path.name}")
        hidden.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(hidden, flags, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        place = this_place()
        self._write([{"boot": place.boot, "network": place.network, "pid": os.getpid()}])
        hidden.rename(self._path)

    def _write(self, lines: Sequence[dict[str, Any]]) -> None:
        """One call for all, so that a journal is cut only between whole groups, or at a full disk."""
        data = "".join(json.dumps(line) + "\n" for line in lines).encode()
        if os.write(self._descriptor, data) != len(data):
            raise OSError(28, "No space left on device")


def stale_journals(directory: Path) -> Iterator[Found]:
    """The journals of processes that are gone. Those of living ones, and what is not this user's own, are passed by."""
    try:
        paths = sorted(path for path in directory.iterdir() if path.name.endswith(_SUFFIX))
    except OSError:
        return
    for path in paths:
        found = _open_stale(path)
        if found is not None:
            yield found


def _open_stale(path: Path) -> Found | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        about = os.fstat(descriptor)
        private = about.st_uid == os.geteuid() and not about.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
        if not stat.S_ISREG(about.st_mode) or not private or about.st_size > _SIZE_MAXIMUM:
            raise OSError
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not path.exists():  # another process undid it while this one came to the lock
            raise OSError
        found = _parse(path, os.read(descriptor, _SIZE_MAXIMUM))
        found.descriptor = descriptor
        return found
    except (OSError, ValueError, KeyError, TypeError):
        os.close(descriptor)
        return None


def _parse(path: Path, data: bytes) -> Found:
    """Errors: ValueError, KeyError, TypeError for what no journal holds; a last line that was cut off is passed by."""
    lines = [json.loads(line) for line in data.splitlines(keepends=True) if line.endswith(b"\n")]
    head = lines[0] if lines else {}
    undo: dict[int, Undo] = {}
    for line in lines[1:]:
        if "done" in line:
            for number in line["done"]:
                undo.pop(number, None)
        elif "file" in line:
            before = line["before"]
            content = None if before is None else base64.b64decode(before, validate=True)
            undo[line["n"]] = FileContent(Path(line["file"]), content, base64.b64decode(line["written"], validate=True))
        else:
            undo[line["n"]] = Request(line["what"], line["kind"], line["flags"], bytes.fromhex(line["body"]))
    return Found(path, Place(head["boot"], head["network"]), head["pid"], list(undo.values())[::-1])


def _line(number: int, entry: Undo) -> dict[str, Any]:
    if isinstance(entry, Request):
        return {
            "n": number, "what": entry.operation, "kind": entry.kind, "flags": entry.flags, "body": entry.body.hex(),
        }  # fmt: skip
    before = None if entry.before is None else base64.b64encode(entry.before).decode()
    written = base64.b64encode(entry.written).decode()
    return {"n": number, "file": str(entry.path.absolute()), "before": before, "written": written}


def _make_directory(directory: Path) -> None:
    """Errors: OSError if it is not this user's own, or others may write there."""
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    about = directory.lstat()
    mine = stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid()
    if not mine or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise OSError(13, "Permission denied")

"""Changes of this host that have to be undone: each is written to the journal, then made, then remembered.

`undo` takes everything back in reverse order. A host where no journal can be written (a read-only /run) still gets its
tunnel, and a line in the log that says what is missing then.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vpn.driver.errors import HostError
from vpn.driver.journal import FileContent, Journal, Undo
from vpn.driver.log import BRIEF, Log
from vpn.driver.netlink import Netlink, Request
from vpn.driver.resolver import ResolverFile

# What was to be deleted went with its interface, or somebody else deleted it.
_GONE = frozenset({errno.ENODEV, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENETDOWN, errno.ENOENT})


@dataclass(frozen=True, slots=True)
class Change:
    """A message to the kernel, and the one that takes it back."""

    make: Request
    undo: Request


@dataclass(frozen=True, slots=True)
class _Made:
    numbers: list[int]  # in the journal
    undo: Callable[[], None]


class Changes:
    """What one tunnel changed so far."""

    def __init__(self, kernel: Netlink, journal: Journal, log: Log) -> None:
        self._kernel = kernel
        self._journal = journal
        self._log = log
        self._made: list[_Made] = []
        self._journal_failed = False

    def make(self, changes: Sequence[Change]) -> list[HostError | None]:
        """Makes all, in one batch; one answer each: None, or why the kernel did not. Only what was made is undone."""
        numbers = self._note([change.undo for change in changes])
        answers = self._kernel.apply([change.make for change in changes])
        made = [change for change, answer in zip(changes, answers, strict=True) if answer is None]
        self._journal.strike([n for n, answer in zip(numbers, answers, strict=False) if answer is not None])
        if made:
            requests = [change.undo for change in reversed(made)]
            self._made.append(_Made(numbers, lambda: self._apply(requests)))
        return answers

    def rewrite(self, file: ResolverFile, before: bytes | None, content: bytes) -> None:
        """Gives the resolver's file a new content. Errors: HostError."""
        numbers = self._note([FileContent(file.path, before, content)])
        self._made.append(_Made(numbers, lambda: self._restore(file)))
        file.apply(before, content)

    def undo(self) -> None:
        """Takes everything back. What fails is logged; the rest is still done."""
        while self._made:
            made = self._made.pop()
            try:
                made.undo()
            except HostError as error:
                self._log.write(f"ERROR: {error}", BRIEF)
            self._journal.strike(made.numbers)

    def _note(self, undo: Sequence[Undo]) -> list[int]:
        try:
            return self._journal.note(undo)
        except HostError as error:
            if not self._journal_failed:
                self._log.write(f"{error}; after kill -9 the host's network would stay as the tunnel made it", BRIEF)
            self._journal_failed = True
            return []

    def _apply(self, requests: Sequence[Request]) -> None:
        for answer in self._kernel.apply(requests):
            if answer is not None and answer.number not in _GONE:
                self._log.write(f"ERROR: {answer}", BRIEF)

    def _restore(self, file: ResolverFile) -> None:
        if not file.restore():
            self._log.write("resolv.conf was changed by another program meanwhile; left as it is", BRIEF)

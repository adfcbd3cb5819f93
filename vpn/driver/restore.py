"""Undoes what killed processes left behind on this host: `python -m vpn restore`, and every start of a tunnel.

Only journals of processes that are gone are touched, and only those of this network namespace. After a restart of the
host the kernel's part has no meaning any more, and files alone are put back.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from vpn.driver.errors import HostError
from vpn.driver.journal import JOURNAL_DIRECTORY, FileContent, Found, Place, stale_journals, this_place
from vpn.driver.netlink import Netlink, Request
from vpn.driver.resolver import put_back

USAGE = "usage: python -m vpn restore [--journal-dir DIR]    undo what killed clients left on this host"
# A route that is back, an interface or an address that went with the process: what was to be reached is so already.
ALREADY = frozenset({errno.EEXIST, errno.ENODEV, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENOENT, errno.ENETDOWN})


def restore_command(argv: Sequence[str]) -> int:
    """`restore`. Returns 0 if nothing is left to undo, 1 if something could not be undone, 2 for wrong usage."""
    directory = JOURNAL_DIRECTORY
    words = list(argv)
    if words[:1] == ["--journal-dir"] and len(words) == 2:
        directory = Path(words[1])
    elif words:
        print(USAGE, file=sys.stderr)
        return 2
    lines: list[str] = []
    try:
        complete = restore_stale(directory, lines.append)
    except HostError as error:
        print(f"vpn: {error}", file=sys.stderr)
        return 1
    print("\n".join(lines or ["nothing to restore"]))
    return 0 if complete else 1


def restore_stale(directory: Path, tell: Callable[[str], None]) -> bool:
    """Undoes all that can be undone here; False if something could not be. Errors: HostError without netlink."""
    here: Place | None = None
    complete = True
    for found in stale_journals(directory):
        here = here or this_place()
        rebooted = found.place.boot != here.boot
        if not rebooted and found.place.network != here.network:
            found.close(remove=False)
            continue
        done = _undo(found, tell, with_kernel=not rebooted)
        found.close(remove=done)
        complete = complete and done
    return complete


def _undo(found: Found, tell: Callable[[str], None], *, with_kernel: bool) -> bool:
    """Latest change first; what fails is told and the rest still done."""
    tell(f"process {found.pid} ended without undoing its changes; undoing {len(found.undo)} of them")
    failures = 0
    kernel = Netlink() if with_kernel else None
    try:
        for entry in found.undo:
            if isinstance(entry, FileContent):
                failures += not _restore_file(entry, tell)
            elif kernel is not None:
                failures += not _restore_kernel(kernel, entry, tell)
    finally:
        if kernel is not None:
            kernel.close()
    return failures == 0


def _restore_kernel(kernel: Netlink, request: Request, tell: Callable[[str], None]) -> bool:
    (answer,) = kernel.apply([request])
    if answer is None:
        tell(f"done: {request.operation}")
    elif answer.number not in ALREADY:
        tell(f"failed: {answer}")
        return False
    return True


def _restore_file(entry: FileContent, tell: Callable[[str], None]) -> bool:
    try:
        restored = put_back(entry.path, entry.before, entry.written)
    except HostError as error:
        tell(f"failed: {error}")
        return False
    tell(f"done: restore {entry.path}" if restored else f"{entry.path} was changed by another program; left as it is")
    return True

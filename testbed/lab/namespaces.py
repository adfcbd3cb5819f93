"""The kernel calls that make and enter namespaces, for Pythons whose `os` lacks them.

`os.unshare` and `os.setns` exist from Python 3.12 on, `mount`, `umount2`, `prctl` and `pivot_root` in none; all go
through ctypes here, and each failure is an `OSError` that names the call and its target. Every call acts on the calling
thread, so callers are single-threaded. Nothing here decides anything: see `bubble` and `build`.

Sources: unshare(2), setns(2), mount(2), umount2(2), prctl(2), namespaces(7).
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SHARED = 1 << 20

MNT_DETACH = 2

_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Move the calling thread into fresh namespaces of the kinds in `flags` (CLONE_NEW…)."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare", f"{flags:#x}")


def setns(fd: int, kind: int = 0) -> None:
    """Move the calling thread into the namespace behind `fd`; `kind` (CLONE_NEW…) makes the kernel check what it is."""
    _check(_libc.setns(ctypes.c_int(fd), ctypes.c_int(kind)), "setns", f"descriptor {fd}")


def mount(source: str, target: str, filesystem: str | None = None, flags: int = 0, data: str | None = None) -> None:
    """Mount `source` on `target`, as mount(2) does."""
    result = _libc.mount(
        source.encode(),
        os.fsencode(target),
        filesystem.encode() if filesystem else None,
        ctypes.c_ulong(flags),
        data.encode() if data else None,
    )
    _check(result, "mount", f"{source} on {target}")


def umount(target: str, flags: int = 0) -> None:
    """Take away the topmost mount on `target`."""
    _check(_libc.umount2(os.fsencode(target), ctypes.c_int(flags)), "umount", target)


def die_with_parent(sent: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send `sent` to this process when the thread that forked it ends.

    A parent that ended before this call is not noticed: callers also watch a pipe that only the parent holds.
    """
    _check(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(sent), 0, 0, 0), "prctl", "PR_SET_PDEATHSIG")


def set_hostname(name: str) -> None:
    """Set the host name of the calling process's UTS namespace."""
    socket.sethostname(name)


def open_namespace(kind: str, pid: int | None = None) -> int:
    """Return a descriptor of a namespace of the calling thread, or of process `pid`; `kind` as in /proc/<pid>/ns."""
    owner = "thread-self" if pid is None else str(pid)
    return os.open(f"/proc/{owner}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def entered_network(netns_fd: int) -> Iterator[None]:
    """Run the body of a `with` in the network namespace behind `netns_fd`, then return to the former one."""
    home = open_namespace("net")
    try:
        setns(netns_fd, CLONE_NEWNET)
        try:
            yield
        finally:
            setns(home, CLONE_NEWNET)
    finally:
        os.close(home)


def socket_in(
    netns_fd: int,
    family: int = socket.AF_INET,
    type: int = socket.SOCK_STREAM,
    proto: int = 0,
) -> socket.socket:
    """Return a socket that was created in, and stays in, the network namespace behind `netns_fd`."""
    with entered_network(netns_fd):
        return socket.socket(family, type, proto)


def _check(result: int, call: str, target: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call} {target}: {os.strerror(number)}")

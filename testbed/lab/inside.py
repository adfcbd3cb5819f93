"""What runs inside a bubble: the process that makes its namespaces, its PID 1, and the conductor.

    front (host) ── fork ── maker ── fork ── init (PID 1 of the bubble) ── fork ── conductor: the caller's function
                            unshares user*,     mounts, reaps,                      sends events and the result
                            mount, PID, net     SIGTERM, lifeline                   over the channel

Each of them dies when the one before it does (parent-death signal), and init also when the lifeline, a pipe whose
write end only the front holds, comes to its end: that covers a parent that died before the signal was armed. When init
ends, the kernel kills everything in its PID namespace. None of these functions returns.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from testbed.lab import namespaces
from testbed.lab.channel import Channel
from testbed.lab.devices import bring_up
from testbed.lab.errors import HostCannot
from testbed.lab.host import explain_refusal
from testbed.lab.mounts import HOSTNAME, furnish_bubble

_KINDS = (
    namespaces.CLONE_NEWNS
    | namespaces.CLONE_NEWPID
    | namespaces.CLONE_NEWNET
    | namespaces.CLONE_NEWIPC
    | namespaces.CLONE_NEWUTS
)


@dataclass(frozen=True, slots=True)
class BubbleEnds:
    """What the front hands to the processes of one bubble."""

    lab_id: str
    channel: Channel
    lifeline: int  # read end
    front_pid: int
    keep: bool  # hold the lab after the function has returned, until the lifeline ends
    kept_descriptors: tuple[int, ...]


class Conductor:
    """The caller's function's line to the front process."""

    def __init__(self, lab_id: str, channel: Channel) -> None:
        self.lab_id = lab_id
        self._channel = channel

    def send(self, event: Any) -> None:
        """Have `event`, a JSON value, reach `on_event` in the front process."""
        self._channel.send({"event": event})

    def publish(self, nodes: Mapping[str, Mapping[str, int]]) -> None:
        """Name this process's descriptors of each node's namespaces, so that `exec` and `shell` find them."""
        self._channel.send({"nodes": {name: dict(kinds) for name, kinds in nodes.items()}})


def make_bubble(ends: BubbleEnds, function: Callable[[Conductor], Any]) -> NoReturn:
    """Run as the forked child of the front: make the namespaces, start init, pass its exit code on."""
    try:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)  # the front's handlers are not for this copy of it
        _unblock_signals()
        namespaces.die_with_parent()
        if os.getppid() != ends.front_pid:
            os._exit(1)
        os.setsid()  # Ctrl-C on the front's terminal is the front's affair
        _let_go_of_descriptors({ends.channel.fileno(), ends.lifeline, *ends.kept_descriptors})
        _make_namespaces()
        init = os.fork()
    except BaseException as error:
        _fail(ends.channel, error)
    if init == 0:
        _run_init(ends, function)
    ends.channel.close()
    _status_pid, status = os.waitpid(init, 0)
    os._exit(_exit_code(status))


def _make_namespaces() -> None:
    uid, gid = os.geteuid(), os.getegid()
    try:
        if uid != 0:
            namespaces.unshare(namespaces.CLONE_NEWUSER)
            _write("/proc/self/setgroups", "deny")
            _write("/proc/self/uid_map", f"0 {uid} 1")
            _write("/proc/self/gid_map", f"0 {gid} 1")
        namespaces.unshare(_KINDS)
    except OSError as error:
        raise explain_refusal(error) from error
    with suppress(OSError):  # kernels without control groups have none to hide
        namespaces.unshare(namespaces.CLONE_NEWCGROUP)
    namespaces.die_with_parent()  # new credentials disarm it


def _run_init(ends: BubbleEnds, function: Callable[[Conductor], Any]) -> NoReturn:
    """Be PID 1: set the bubble up, start the conductor, reap, and end with the conductor or with the front."""
    try:
        namespaces.die_with_parent()
        wakeup_read, wakeup_write = os.pipe()
        os.set_blocking(wakeup_read, False)
        os.set_blocking(wakeup_write, False)
        signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda _number, _frame: os._exit(128 + signal.SIGTERM))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        _furnish()
        conductor = os.fork()
    except BaseException as error:
        _fail(ends.channel, error)
    if conductor == 0:
        signal.set_wakeup_fd(-1)
        os.close(wakeup_read)
        os.close(wakeup_write)
        _run_conductor(ends, function)
    ends.channel.close()
    while True:
        ready, _, _ = select.select([ends.lifeline, wakeup_read], [], [])
        if ends.lifeline in ready:
            os._exit(0)
        os.read(wakeup_read, 512)
        _reap(conductor)


def _furnish() -> None:
    try:
        furnish_bubble()
    except OSError as error:
        raise explain_refusal(error) from error
    namespaces.set_hostname(HOSTNAME)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        bring_up("lo", control)


def _reap(conductor: int) -> None:
    """Collect every child that has ended; end with the conductor."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid == conductor:
            os._exit(_exit_code(status))


def _run_conductor(ends: BubbleEnds, function: Callable[[Conductor], Any]) -> NoReturn:
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a node costs descriptors
        result = function(Conductor(ends.lab_id, ends.channel))
        sys.stdout.flush()
        sys.stderr.flush()
        ends.channel.send({"result": result})
    except BaseException as error:
        _fail(ends.channel, error)
    if ends.keep:
        select.select([ends.lifeline], [], [])
    os._exit(0)


def _fail(channel: Channel, error: BaseException) -> NoReturn:
    """Tell the front why this bubble cannot go on, and end it."""
    message: dict[str, Any]
    if isinstance(error, HostCannot):
        message = {"host_cannot": {"reason": error.reason, "fix": error.fix}}
    else:
        trace = "".join(traceback.format_exception(error))
        ours = type(error).__module__.startswith("testbed.")  # which say all in their words
        name = "" if ours else f"{type(error).__name__}: "
        message = {"failed": {"message": f"{name}{error}", "trace": trace}}
    try:
        channel.send(message)
    finally:
        os._exit(1)


def _let_go_of_descriptors(kept: set[int]) -> None:
    """Put /dev/null in the place of every descriptor of the front but the standard ones and `kept`.

    Closing them would free their numbers for the lab's own, and the front's objects, which live on in this copy of
    its memory, would later close those.
    """
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 0)
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        if number > 2 and number != null and number not in kept:
            try:
                os.fstat(number)
            except OSError:
                continue  # the one that listed the directory
            try:
                os.dup2(null, number, inheritable=False)
            except OSError:  # beyond the limit of now: opened by whoever lowered it, and no number of the lab's
                os.close(number)
    os.close(null)


def _unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code

"""The front's side of a bubble: start it, listen to it, hold it, end it; the front itself enters no namespace.

    with Bubble() as bubble:
        value = bubble.run(function, on_event)

`function` runs as a process of its own in fresh mount, PID, network, IPC and UTS namespaces (and a user namespace when
not root), gets a `Conductor`, and returns a JSON value. When this process dies, however it dies, so does everything in
the bubble. While it waits, the front answers `shell` and `exec` (see `registry`). Single-threaded.
"""

from __future__ import annotations

import os
import secrets
import select
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from testbed.lab.channel import Channel
from testbed.lab.errors import HostCannot, LabFailed
from testbed.lab.inside import BubbleEnds, Conductor, make_bubble
from testbed.lab.registry import Registrar

__all__ = ["Bubble", "Conductor"]

_PATIENCE_S = 10.0  # for the kernel to end a PID namespace; then the maker is killed, and init with it


class Bubble:
    """One lab's namespaces and processes, for one `run`."""

    def __init__(self, lab_id: str | None = None) -> None:
        self.lab_id = lab_id or secrets.token_hex(4)
        self._registrar: Registrar | None = None
        self._maker: int | None = None
        self._maker_watch = -1  # becomes readable when the maker ends
        self._lifeline: int | None = None
        self._channel: Channel | None = None

    def __enter__(self) -> Self:
        self._registrar = Registrar(self.lab_id)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(
        self,
        function: Callable[[Conductor], Any],
        on_event: Callable[[Any], None] | None = None,
        *,
        keep: bool = False,
        kept_descriptors: tuple[int, ...] = (),
    ) -> Any:
        """Run `function` in the bubble and return the JSON value that it returns; events go to `on_event` meanwhile.

        With `keep` the bubble outlives the function, until `close`; see `hold`. Of the front's descriptors the function
        has the standard three and `kept_descriptors`.

        Errors: HostCannot; LabFailed if the function raised (its traceback is inside) or its process was killed.
        """
        if self._registrar is None or self._maker is not None:
            raise RuntimeError("a bubble runs one function, inside its with block")
        self._start(function, keep, kept_descriptors)
        for message in self._messages():
            if "event" in message and on_event is not None:
                on_event(message["event"])
            if "result" in message:
                if not keep:
                    self._end()
                return message["result"]
            if "host_cannot" in message:
                raise HostCannot(**message["host_cannot"])
            if "failed" in message:
                raise LabFailed(**message["failed"])
        raise LabFailed(f"the lab ended before its work was done: {self._end(by_itself=True)}")

    def hold(self) -> None:
        """Answer `shell` and `exec` until the lab ends or the caller is interrupted (KeyboardInterrupt)."""
        for _message in self._messages():
            pass

    def close(self) -> None:
        """End everything in the bubble and wait until it is gone."""
        self._end()
        if self._registrar is not None:
            self._registrar.close()
            self._registrar = None

    def _start(self, function: Callable[[Conductor], Any], keep: bool, kept: tuple[int, ...]) -> None:
        ours, theirs = socket.socketpair()
        lifeline, self._lifeline = os.pipe()
        self._channel = Channel(ours)
        self._channel.ask_for_credentials()
        sys.stdout.flush()
        sys.stderr.flush()
        ends = BubbleEnds(self.lab_id, Channel(theirs), lifeline, os.getpid(), keep, kept)
        # A Ctrl-C between the fork and the assignment would leave a child that nobody waits for.
        former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
        try:
            pid = os.fork()
            if pid == 0:
                make_bubble(ends, function)
            self._maker = pid
            self._maker_watch = os.pidfd_open(pid)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, former)
        theirs.close()
        os.close(lifeline)

    def _messages(self) -> Any:
        """Yield the conductor's messages, serving the registry while waiting; end when the lab's end is closed."""
        if self._channel is None or self._registrar is None:
            return
        with selectors.DefaultSelector() as selector:
            selector.register(self._channel, selectors.EVENT_READ)
            selector.register(self._registrar, selectors.EVENT_READ)
            selector.register(self._maker_watch, selectors.EVENT_READ)
            while True:
                for key, _events in selector.select():
                    if key.fileobj is self._registrar:
                        self._registrar.answer()
                        continue
                    if key.fileobj == self._maker_watch:
                        # Killed before its child had armed the parent-death signal, it leaves that child to us.
                        selector.unregister(self._maker_watch)
                        self._cut_lifeline()
                        continue
                    try:
                        messages = self._channel.receive()
                    except ConnectionResetError:
                        messages = None
                    if messages is None:
                        return
                    for message in messages:
                        if "nodes" in message and self._channel.peer_pid:
                            self._registrar.publish(self._channel.peer_pid, message["nodes"])
                        yield message

    def _end(self, by_itself: bool = False) -> str:
        """End the bubble's processes, if any run; return in words how they ended.

        `by_itself`: its conductor is gone, so it is about to end for a reason of its own, which is not to be cut short.
        """
        ending = "it was closed"
        if self._maker:
            if by_itself:
                select.select([self._maker_watch], [], [], _PATIENCE_S)
            self._cut_lifeline()
            if not select.select([self._maker_watch], [], [], _PATIENCE_S)[0]:
                os.kill(self._maker, signal.SIGKILL)
            ending = _ending(os.waitpid(self._maker, 0)[1])
            os.close(self._maker_watch)
            self._maker = 0
        self._cut_lifeline()
        if self._channel is not None:
            self._channel.drain(_PATIENCE_S)  # ends with the last process that holds the other end: the conductor
            self._channel.close()
            self._channel = None
        return ending

    def _cut_lifeline(self) -> None:
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None


def _ending(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    number = -code if code < 0 else code - 128
    if 0 < number < signal.NSIG:
        return f"killed by {signal.Signals(number).name}"
    return f"exit code {code}"

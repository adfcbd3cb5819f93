"""Finding running labs and entering their nodes, without a trace in the host's file system.

The front process of a lab listens on the abstract socket `@testbed/<uid>/<id>`, which vanishes with it; /proc/net/unix
is therefore the list of labs. To enter, a client sends {"node": name} and gets the descriptors of the node's user,
PID, mount and network namespaces. Only root and the lab's own user are answered, and the client checks in turn
that the socket belongs to the user in its name.

`exec_in` enters in a child: PID namespace first, so that what it starts dies with the lab; joining only some of the
namespaces would keep the lab's alive, or outlive them.

Sources: unix(7) (abstract names, SO_PEERCRED), setns(2), user_namespaces(7).
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from testbed.lab import namespaces
from testbed.lab.channel import Channel
from testbed.lab.errors import HostCannot, NoSuchLab

_PREFIX = "testbed"
_PATIENCE_S = 5.0
_KINDS = ("user", "pid", "mnt", "net", "ipc", "uts")  # in this order on the wire
_LISTENING = "00010000"  # flag __SO_ACCEPTCON in /proc/net/unix


@dataclass(frozen=True, slots=True)
class LabRecord:
    """One running lab."""

    lab_id: str
    uid: int


@dataclass(frozen=True, slots=True)
class NodeHandle:
    """Descriptors of one node's namespaces, by kind; the caller closes them."""

    node: str
    descriptors: Mapping[str, int]

    def close(self) -> None:
        for descriptor in self.descriptors.values():
            os.close(descriptor)


class Registrar:
    """The front's side: holds the lab's name, and answers who may enter."""

    def __init__(self, lab_id: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.bind(_address(os.geteuid(), lab_id))
        except OSError as error:
            self._socket.close()
            raise HostCannot(f"a lab called {lab_id} runs already ({error.strerror})", "choose another name") from error
        self._socket.listen(8)
        self._conductor_pid = 0
        self._nodes: dict[str, dict[str, int]] = {}

    def fileno(self) -> int:
        return self._socket.fileno()

    def publish(self, conductor_pid: int, nodes: dict[str, dict[str, int]]) -> None:
        """Remember which descriptors of the conductor are the nodes' namespaces."""
        self._conductor_pid, self._nodes = conductor_pid, nodes

    def answer(self) -> None:
        """Serve one waiting client."""
        connection, _address = self._socket.accept()
        with connection:
            connection.settimeout(_PATIENCE_S)
            channel = Channel(connection)
            with suppress(OSError, ValueError):  # a client that goes away or talks nonsense is its own affair
                _pid, uid = channel.peer()
                if uid not in (0, os.geteuid()):
                    channel.send({"error": "this lab belongs to another user"})
                    return
                for request in channel.receive() or ():
                    self._serve(channel, request)

    def close(self) -> None:
        self._socket.close()

    def _serve(self, channel: Channel, request: Any) -> None:
        node = request.get("node") if isinstance(request, dict) else None
        if node is None:
            channel.send({"nodes": list(self._nodes)})
        elif node not in self._nodes:
            channel.send({"error": f"no node is called {node}; there are {', '.join(self._nodes) or 'none yet'}"})
        else:
            with ExitStack() as opened:
                descriptors = []
                for kind in _KINDS:
                    descriptors.append(os.open(self._path(node, kind), os.O_RDONLY | os.O_CLOEXEC))
                    opened.callback(os.close, descriptors[-1])
                channel.send({"kinds": list(_KINDS)}, descriptors)

    def _path(self, node: str, kind: str) -> str:
        """Name a namespace through the conductor's /proc entry: the front itself holds none, so it pins none."""
        if kind in self._nodes[node]:
            return f"/proc/{self._conductor_pid}/fd/{self._nodes[node][kind]}"
        return f"/proc/{self._conductor_pid}/ns/{kind}"


def list_labs() -> list[LabRecord]:
    """Return the labs that run in this network namespace, whoever's they are."""
    labs = set()
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        words = line.split(maxsplit=7)
        parts = words[7].split("/") if len(words) == 8 else []
        if len(parts) == 3 and parts[0] == f"@{_PREFIX}" and words[3] == _LISTENING and parts[1].isdigit():
            labs.add(LabRecord(parts[2], int(parts[1])))
    return sorted(labs, key=lambda lab: (lab.uid, lab.lab_id))


def list_nodes(lab_id: str) -> list[str]:
    """Return the names of a lab's nodes. Errors: NoSuchLab."""
    answer, _descriptors = _ask(lab_id, {})
    return list(answer["nodes"])


def attach(lab_id: str, node: str) -> NodeHandle:
    """Return descriptors of the namespaces of `node`. Errors: NoSuchLab."""
    answer, descriptors = _ask(lab_id, {"node": node})
    return NodeHandle(node, dict(zip(answer["kinds"], descriptors, strict=True)))


def exec_in(lab_id: str, node: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> int:
    """Run a program in `node` on the caller's terminal and return its exit code, or 128 and the signal's number.

    Errors: NoSuchLab.
    """
    handle = attach(lab_id, node)
    pid = os.fork()
    if pid == 0:
        _enter_and_run(handle, argv, dict(os.environ if env is None else env))
    handle.close()
    former = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGQUIT)}
    try:
        _pid, status = os.waitpid(pid, 0)
    finally:
        for number, action in former.items():
            signal.signal(number, action)
    return _exit_code(status)


def _ask(lab_id: str, request: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
    lab = next(
        (lab for lab in list_labs() if lab.lab_id == lab_id and lab.uid in (os.geteuid(), *_all_if_root())), None
    )
    if lab is None:
        known = ", ".join(lab.lab_id for lab in list_labs()) or "none"
        raise NoSuchLab(f"no lab of yours called {lab_id} runs; there are: {known}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_PATIENCE_S)
        channel = Channel(connection)
        try:
            connection.connect(_address(lab.uid, lab_id))
            if channel.peer()[1] != lab.uid:
                raise NoSuchLab(f"the lab {lab_id} is not what it says: another user answers for it")
            channel.send(request)
            answer = (channel.receive() or [{"error": "it ended"}])[0]
        except OSError as error:
            raise NoSuchLab(f"the lab {lab_id} does not answer: {error}") from error
    if "error" in answer:
        raise NoSuchLab(f"lab {lab_id}: {answer['error']}")
    return answer, channel.descriptors


def _all_if_root() -> tuple[int, ...]:
    return tuple(lab.uid for lab in list_labs()) if os.geteuid() == 0 else ()


def _enter_and_run(handle: NodeHandle, argv: Sequence[str], env: dict[str, str]) -> NoReturn:
    """Enter the lab's user and PID namespaces, and the others in a child, which becomes the program."""
    try:
        home = os.getcwd()
        _join_user_namespace(handle.descriptors["user"])
        namespaces.setns(handle.descriptors["pid"], namespaces.CLONE_NEWPID)
        pid = os.fork()
        if pid == 0:
            for kind in ("ipc", "uts", "net", "mnt"):
                namespaces.setns(handle.descriptors[kind])
            with suppress(OSError):
                os.chdir(home)
            os.execvpe(argv[0], list(argv), env)  # noqa: S606 - the caller's program is the point
        for number in (signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        handle.close()
        _pid, status = os.waitpid(pid, 0)
        os._exit(_exit_code(status))
    except (FileNotFoundError, ValueError):  # an empty name is a ValueError
        _complain(f"{argv[0]}: not found", 127)
    except OSError as error:
        _complain(f"{handle.node}: {error}", 126)


def _join_user_namespace(descriptor: int) -> None:
    mine = os.stat("/proc/self/ns/user")
    theirs = os.fstat(descriptor)
    if (mine.st_dev, mine.st_ino) == (theirs.st_dev, theirs.st_ino):
        return
    if os.geteuid() == 0:
        os.setgroups([])
    namespaces.setns(descriptor, namespaces.CLONE_NEWUSER)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _complain(text: str, code: int) -> NoReturn:
    os.write(2, f"testbed: {text}\n".encode())
    os._exit(code)


def _address(uid: int, lab_id: str) -> str:
    return f"\0{_PREFIX}/{uid}/{lab_id}"


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code

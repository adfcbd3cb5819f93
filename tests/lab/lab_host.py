"""A host of our own: fresh namespaces in which a check of labs runs as if they were the whole machine.

What other programs of the real host do at the same time cannot disturb what is counted there, and the real host stays
untouched whatever the check does to "its" host: shared mounts, decoy sockets, kill -9.

    run_on_own_host("name", *arguments) -> what the function of that name in `lab_checks` returned, as JSON

`Snapshot` holds everything of a host that a lab must leave alone.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CHECKS = Path(__file__).with_name("lab_checks.py")
PATIENCE_SECONDS = 900.0  # two hundred labs take 10 s where nothing else runs


# Changed roots: a directory that is no mount, as debootstrap makes it, and the same `/` mounted at another place.
CHANGED_ROOTS = {
    "a directory": "mkdir /run/root && for e in /*; do if [ -L $e ]; then cp -P $e /run/root; elif [ $e = /run ]; then "
    "mkdir /run/root/run; elif [ -d $e ]; then mkdir /run/root$e && mount --rbind $e /run/root$e; fi; done",
    "a mount": "mkdir /run/root && mount --rbind / /run/root",
}


def run_on_own_host(
    check: str, *arguments: str, as_user: int | None = None, checks: Path = CHECKS, root: str | None = None
) -> Any:
    """Run a function of `lab_checks`, or of a file like it, on a host of its own; returns what it returned.

    `as_user` runs it as that user, with a /dev/net/tun that everybody may open; `root` names one of CHANGED_ROOTS.
    """
    steps = ["mount -t sysfs sysfs /sys", "ip link set lo up"]
    user = ""
    if as_user is not None:
        steps += ["mkdir /run/dev", "mknod -m 666 /run/dev/tun c 10 200", "mount --bind /run/dev/tun /dev/net/tun"]
        user = f"setpriv --reuid {as_user} --regid {as_user} --clear-groups"
    if root is not None:
        steps += [CHANGED_ROOTS[root]]
        user = "chroot /run/root"
    # The shell is PID 1 there: it collects whatever a killed lab leaves to it.
    script = " && ".join(steps) + f' && {user} "$@"; code=$?; exit $code'
    done = run_script_on_own_host(script, sys.executable, str(checks), check, *arguments)
    assert done.returncode == 0, f"{check}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])


def run_script_on_own_host(script: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script as PID 1 of a host of its own; `argv` is its "$@". Every user can reach our code there."""
    apart = ["unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"]
    steps = ["mount -t tmpfs tmpfs /run", *_opening_steps()]
    return subprocess.run(
        [*apart, "sh", "-c", " && ".join(steps) + f" && {script}", "sh", *argv],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def _opening_steps() -> Iterator[str]:
    """Yield commands that show this project and this Python to every user, though they may lie in root's home."""
    paths = sorted({ROOT, Path(sys.prefix), Path(sys.base_prefix)})
    closed = {path: folder for path in paths if (folder := _closed_folder(path)) is not None}
    for number, path in enumerate(closed):
        yield f"mkdir -p /run/open/{number} && mount --rbind {quote(str(path))} /run/open/{number}"
    for folder in sorted(set(closed.values())):
        yield f"mount -t tmpfs -o mode=755 tmpfs {quote(str(folder))}"
    for number, path in enumerate(closed):
        yield f"mkdir -p {quote(str(path))} && mount --rbind /run/open/{number} {quote(str(path))}"


def _closed_folder(path: Path) -> Path | None:
    """Return the topmost folder on the way to `path` that other users may not pass."""
    return next((folder for folder in [*reversed(path.parents), path] if not folder.stat().st_mode & 0o001), None)


@dataclass(frozen=True)
class Snapshot:
    """A host's state, for comparison; `differences` says in words what changed."""

    processes: list[int]
    namespaces: list[str]
    links: str
    routes: str
    firewall: str
    mounts: list[str]
    sysctls: dict[str, str]
    resolver: str
    run: list[str]

    @classmethod
    def take(cls, *own: int) -> Snapshot:
        """Read the state of the host that the caller is on; `own` are processes that the check itself runs."""
        processes = [pid for pid in _processes() if pid not in own]
        return cls(
            processes=processes,
            namespaces=sorted(_namespaces(processes)),
            links=_output("ip", "addr") + _output("ip", "netns", "list"),
            routes=_output("ip", "route", "show", "table", "all")
            + _output("ip", "-6", "route", "show", "table", "all"),
            firewall=_output("nft", "list", "ruleset") if os.geteuid() == 0 else "",  # only root may see it
            mounts=Path("/proc/self/mountinfo").read_text().splitlines(),
            sysctls=dict(_sysctls()),
            resolver="".join(Path("/etc", name).read_text() for name in ("resolv.conf", "hosts", "nsswitch.conf")),
            run=sorted(str(path) for path in Path("/run").rglob("*")),
        )

    def differences(self, later: Snapshot, but: tuple[str, ...] = ()) -> list[str]:
        """Return what is not the same in `later`; the fields in `but` may differ."""
        found = []
        for field in dataclasses.fields(self):
            before, after = getattr(self, field.name), getattr(later, field.name)
            if field.name not in but and before != after:
                found.append(f"{field.name}: {_difference(before, after)}")
        return found

    def awaited(self, limit_s: float = 60.0) -> list[str]:
        """Return what still differs when the kernel had up to `limit_s` seconds to take down what was killed."""
        give_up_at = time.monotonic() + limit_s
        while differences := self.differences(Snapshot.take()):
            if time.monotonic() > give_up_at:
                return differences
        return []


def _difference(before: Any, after: Any) -> str:
    if isinstance(before, str):
        before, after = before.splitlines(), after.splitlines()
    if isinstance(before, dict):
        before, after = list(before.items()), list(after.items())
    gone = [item for item in before if item not in after]
    new = [item for item in after if item not in before]
    return f"gone {gone}, new {new}"


def _processes() -> list[int]:
    return sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit() and _is_alive(entry))


def _is_alive(pid: str) -> bool:
    """Whether a process runs: zombies wait for PID 1, and the tools of this snapshot are gone again."""
    try:
        return "\nState:\tZ" not in Path("/proc", pid, "status").read_text()
    except OSError:
        return False


def _namespaces(processes: list[int]) -> set[str]:
    found = set()
    for pid in processes:
        for kind in ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts"):
            try:
                found.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
            except OSError:
                continue
    return found


def _sysctls() -> Iterator[tuple[str, str]]:
    for folder in ("/proc/sys/net/ipv4", "/proc/sys/net/ipv6", "/proc/sys/kernel", "/proc/sys/net/core"):
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file() and not _VOLATILE.intersection(path.parts) and "random" not in str(path):
                try:
                    yield str(path), path.read_text()
                except OSError:
                    continue  # some can only be written


_VOLATILE = {"ns_last_pid", "perf_event_max_sample_rate", "perf_cpu_time_max_percent", "pty"}


def _output(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

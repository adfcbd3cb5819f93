"""What is done with whole runs on a host of our own (`tests.lab.lab_host`): each function is one check.

Runs as a script: python run_checks.py NAME [ARGUMENT …]; the result is the last line of its output, as JSON.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.lab.lab_host import Snapshot
from tests.scenarios.running import environment, heed_interrupts, run_testbed

PATIENCE_S = 60.0
TINY = """
title: Tiny
sites: {www.example.com: {address: 93.184.216.34, node: web, http: true}}
workload: [{http: http://www.example.com/}]
taps: [isp]
expect: [{variant: only, observer: isp, sees: [http-url]}]
"""
TUNNEL = """
title: Tunnel
sites: {www.example.com: {address: 93.184.216.34, node: web, http: true}}
tunnel: {program: vpn}
workload:
  - dns: {name: www.example.com, timeout: 1}
  - http: {url: http://www.example.com/, timeout: 1}
  - http: {url: http://www.example.com/bytes/500000, timeout: 2}
taps: [isp]
expect:
  - {variant: only, observer: isp, sees: [tunnel]}
  - {variant: only, observer: "server:www.example.com", sees: [http-url]}
"""
MODULES = {
    "tap": "testbed.capture",
    "services": "testbed.services",
    "workload": "testbed.workload",
    "keys": "pki",
    "vpn-server": "server.conf",
    "vpn-client": "client.conf",
}


FOLDERS = contextlib.ExitStack()  # removed when the check has ended


def place(text: str) -> Path:
    """A new directory with the scenario in it."""
    directory = Path(FOLDERS.enter_context(tempfile.TemporaryDirectory(prefix="testbed-check-")))
    directory.chmod(0o755)
    (directory / "scenario.yaml").write_text(text)
    return directory


def start(directory: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "testbed", "run", "scenario.yaml", "--out", "out", *arguments],
        cwd=directory,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=heed_interrupts,
    )


def unchanged_host() -> Any:
    """A whole run on a host with shared mounts, forwarding, a firewall, and ears where name lookups would go."""
    subprocess.run(["mount", "--make-rshared", "/"], check=True)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    subprocess.run(
        ["nft", "add table inet mine; add chain inet mine in { type filter hook input priority 0; }"], check=True
    )
    decoys = [_listen(path) for path in ("/run/nscd/socket", "/run/systemd/resolve/io.systemd.Resolve", "/run/dbus/s")]
    directory = place(TUNNEL)
    before = Snapshot.take()
    process = start(directory)
    during = []
    while process.poll() is None:
        during += before.differences(Snapshot.take(process.pid), but=("processes", "namespaces"))
    after = Snapshot.take()
    return {
        "code": process.returncode,
        "during": during,
        "after": before.differences(after),
        "heard": len(select.select(decoys, [], [], 0)[0]),
    }


def _listen(path: str) -> socket.socket:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen()
    return listener


def killed(role: str, rounds: str, seed: str) -> Any:
    """Kill one role of a run's processes at random moments; the run must end by itself and leave nothing."""
    chance = random.Random(int(seed))
    baseline = Snapshot.take()
    codes, left, words = [], [], []
    for _ in range(int(rounds)):
        process = start(place(TUNNEL))
        victim = _await(functools.partial(_find, role, process.pid), process)
        if victim is not None:
            time.sleep(chance.uniform(0.0, 0.5 if role in ("front", "maker", "init", "conductor") else 0.2))
            _kill(victim)
        said, _ = process.communicate(timeout=PATIENCE_S)
        codes.append(process.returncode)
        words.append(said.decode())
        left += baseline.awaited()
    return {"codes": codes, "left": left, "tracebacks": [text for text in words if "Traceback" in text]}


def _await(find: Callable[[], int | None], process: subprocess.Popen[bytes]) -> int | None:
    """What `find` finds, or None if the run is over before."""
    while (found := find()) is None and process.poll() is None:
        pass
    return found


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it may have ended in time
        os.kill(pid, signal.SIGKILL)


def _find(role: str, front: int) -> int | None:
    chain = ("front", "maker", "init", "conductor")
    pids = [front]
    while len(pids) < len(chain) and (children := _children(pids[-1])):
        pids.append(children[0])
    if role in chain:
        return pids[chain.index(role)] if len(pids) > chain.index(role) else None
    for pid in _children(pids[3]) if len(pids) == len(chain) else ():
        if MODULES[role] in _command_line(pid):
            return pid
    return None


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def in_parallel(count: str) -> Any:
    """Many whole runs at once."""
    before = Snapshot.take()
    runs = [start(place(TUNNEL)) for _ in range(int(count))]
    said = [run.communicate(timeout=600)[0].decode() for run in runs]
    bad = [text for run, text in zip(runs, said, strict=True) if run.returncode != 0]
    return {"codes": [run.returncode for run in runs], "bad": bad, "left": before.awaited()}


def in_a_row(count: str) -> Any:
    """Many whole runs one after the other from one process."""
    from testbed import run as running

    directory = place(TINY)
    prepared = running.prepare(str(directory / "scenario.yaml"), [], [], None)

    def once(number: int) -> bool:
        with running.carried_out(prepared, running.Order(out=directory / f"out{number}", quiet=True)) as finished:
            return finished.result.ok

    once(-1)  # what is loaded once is loaded now
    before, descriptors = Snapshot.take(), len(os.listdir("/proc/self/fd"))
    works = [once(number) for number in range(int(count))]
    return {
        "ok": sum(works),
        "left": before.awaited(),
        "descriptors": [descriptors, len(os.listdir("/proc/self/fd"))],
    }


def nested() -> Any:
    """A whole run started in the client's node of another run's lab."""
    outer = start(place(TINY), "--keep")
    assert outer.stdout is not None
    while b"is held" not in (line := outer.stdout.readline()):
        assert line, "the outer run ended"
    inner = place(TUNNEL)
    command = f"cd {inner} && exec {sys.executable} -m testbed run scenario.yaml --out out"
    exported = f"export PYTHONPATH={environment()['PYTHONPATH']}; {command}"
    ran = run_testbed("exec", "client", "sh", "-c", exported, cwd=inner)
    outer.send_signal(signal.SIGINT)
    outer.communicate(timeout=PATIENCE_S)
    return {"inner": ran.code, "said": ran.stdout + ran.stderr, "outer": outer.returncode}


def as_this_user() -> Any:
    """A whole run as whoever runs this check."""
    process = start(place(TUNNEL))
    said, _ = process.communicate(timeout=PATIENCE_S)
    return {"code": process.returncode, "said": said.decode(), "uid": os.getuid()}


def interrupted() -> Any:
    """A run ended by Ctrl-C while it works."""
    before = Snapshot.take()
    process = start(place(TUNNEL))
    _await(lambda: _find("vpn-server", process.pid), process)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=PATIENCE_S)
    return {"code": process.returncode, "said": said.decode(), "left": before.awaited()}


if __name__ == "__main__":
    with FOLDERS:
        print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))

"""What is done on a host of our own (`lab_host`): each function is one check and returns what the test judges.

Runs as a script: python lab_checks.py NAME [ARGUMENT …]; the result is the last line of its output, as JSON.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from testbed.lab import registry
from testbed.lab.bubble import Bubble, Conductor
from testbed.lab.build import Lab
from testbed.lab.errors import NoSuchLab
from testbed.lab.host import require_tun
from testbed.lab.node import Node
from testbed.lab.plan import LabRequest, TapRequest, plan_lab
from testbed.lab.topology import load_topology
from tests.lab.lab_host import Snapshot

WEB, WEB6 = "93.184.216.34", "2001:db8:4::34"
PATIENCE_SECONDS = 60.0
REQUEST = LabRequest(resolvers={"client": ["192.168.0.1"]}, taps=[TapRequest("isp", "isp")])
SLEEPER = ["sleep", "1000"]


def run_a_lab(work: Callable[[Conductor, Lab], Any], on_event: Callable[[Any], None] | None = None, **how: Any) -> Any:
    """Build the shipped topology in a bubble, have `work` done in it, and return what it returned."""
    plan = plan_lab(load_topology("client-isp-server"), REQUEST)

    def inside(conductor: Conductor) -> Any:
        with Lab.build(plan) as lab:
            conductor.publish(lab.namespace_descriptors())
            return work(conductor, lab)

    with Bubble(how.pop("lab_id", None)) as bubble:
        return bubble.run(inside, on_event, **how)


def output(node: Node, *argv: str) -> str:
    process = node.spawn(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return process.communicate(timeout=PATIENCE_SECONDS)[0].decode()


def reachable(conductor: Conductor, lab: Lab) -> bool:
    """Whether the client reaches the web over both IP versions."""
    return all(" 0% packet loss" in output(lab.node("client"), "ping", "-c1", "-W5", to) for to in (WEB, WEB6))


def unchanged_host() -> Any:
    """A lab on a host whose mounts are shared, that forwards, has a firewall and accepts redirects."""
    subprocess.run(["mount", "--make-rshared", "/"], check=True)
    for name, value in (("ip_forward", "1"), ("conf/all/accept_redirects", "1"), ("conf/all/rp_filter", "1")):
        Path("/proc/sys/net/ipv4", name).write_text(value)
    subprocess.run(
        ["nft", "add table inet mine; add chain inet mine input { type filter hook input priority 0; }"], check=True
    )
    before = Snapshot.take()
    during: list[Snapshot] = []
    pings = run_a_lab(_tell_and_wait, lambda event: during.append(Snapshot.take()))
    after = Snapshot.take()
    new = ("processes", "namespaces")
    return {
        "during": before.differences(during[0], but=new),
        "after": before.differences(after),
        "works": pings,
        "new_while_it_ran": len(during[0].processes) - len(before.processes),
    }


def _tell_and_wait(conductor: Conductor, lab: Lab) -> Any:
    lab.node("web").spawn(SLEEPER)
    conductor.send("running")
    return reachable(conductor, lab)


def deaf_decoys() -> Any:
    """Sockets where a host's name lookups would go must hear nothing of a lab's; a lookup outside shows they listen."""
    decoys = [_listen(path) for path in ("/run/nscd/socket", "/run/systemd/resolve/io.systemd.Resolve", "/run/dbus/s")]
    names = run_a_lab(lambda _conductor, lab: output(lab.node("client"), "getent", "hosts", "www.example.com"))
    heard_inside = _heard(decoys)
    sees = run_a_lab(lambda _conductor, lab: output(lab.node("client"), "ls", "-A", "/run", "/var/run"))
    with subprocess.Popen(["getent", "hosts", "www.example.com"]) as outside:
        heard_outside = len(select.select(decoys, [], [], PATIENCE_SECONDS)[0])
        outside.kill()
    return {"names": names, "heard_inside": heard_inside, "heard_outside": heard_outside, "run": sees}


def _listen(path: str) -> socket.socket:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen()
    return listener


def _heard(decoys: list[socket.socket]) -> int:
    """Count the decoys that somebody has connected to, hanging up on them."""
    ready = select.select(decoys, [], [], 0)[0]
    for decoy in ready:
        decoy.accept()[0].close()
    return len(ready)


def killed(role: str, rounds: str, seed: str) -> Any:
    """Kill one role of a lab's processes at random moments of its life, again and again; nothing may be left."""
    chance = random.Random(int(seed))
    baseline = Snapshot.take()
    left: list[str] = []
    for _round in range(int(rounds)):
        with _front(f"hold-{role}") as front:
            _read_line(front)
            moment = time.monotonic() + chance.uniform(0.0, 0.12)  # a lab is up after about half of that
            victim = _pick(role, front.pid, chance)
            while victim is None or time.monotonic() < moment:
                assert time.monotonic() < moment + PATIENCE_SECONDS, f"there was never a {role}"
                victim = _pick(role, front.pid, chance) or victim
            os.kill(victim, signal.SIGKILL)
            if role != "program":
                front.wait(PATIENCE_SECONDS)  # it notices by itself that its lab is gone
        left += baseline.awaited()
    return {"left": left}


@contextmanager
def _front(lab_id: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of its own that holds a lab and says so when the lab is up."""
    argv = [sys.executable, __file__, "hold", lab_id]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as front:
        try:
            yield front
        finally:
            front.kill()


def _read_line(front: subprocess.Popen[bytes]) -> bytes:
    if front.stdout is None:
        raise RuntimeError("a front is started with a pipe")
    return front.stdout.readline()


def _await_running(front: subprocess.Popen[bytes]) -> None:
    while (line := _read_line(front)) != b"running\n":
        assert line, "the front ended before its lab was up"


def hold(lab_id: str) -> Any:
    """Say that we start, run a lab, say that it is up, and hold it until something ends this process."""
    print("starting", flush=True)

    def work(conductor: Conductor, lab: Lab) -> Any:
        sleepers = [lab.node(name).spawn(SLEEPER) for name in ("client", "web")]
        conductor.send("running")
        sleepers[0].wait()
        return None

    run_a_lab(work, lambda _event: print("running", flush=True), lab_id=lab_id)


def _pick(role: str, front: int, chance: random.Random) -> int | None:
    """Return a process of the lab that has this role at this moment, if there is one yet."""
    chain = [front]  # front, maker, init, conductor
    while len(chain) < 4:
        children = _children(chain[-1])
        if not children:
            break
        chain.append(children[0])
    roles = dict(zip(("front", "maker", "init", "conductor"), chain, strict=False))
    if role == "program":
        programs = _children(roles["conductor"]) if "conductor" in roles else []
        return chance.choice(programs) if programs else None
    return roles.get(role)


def _children(pid: int) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                found.append(int(entry))
    return sorted(found)


def in_parallel(count: str) -> Any:
    """Many labs at once, each from a front process of its own, all of the same topology."""
    before = Snapshot.take()
    argv = [sys.executable, __file__, "one_lab"]
    fronts = [subprocess.Popen(argv, stdout=subprocess.PIPE) for _ in range(int(count))]
    answers = [json.loads(front.communicate(timeout=PATIENCE_SECONDS * 3)[0]) for front in fronts]
    return {"answers": answers, "left": before.awaited()}


def one_lab() -> Any:
    return run_a_lab(reachable)


def in_a_row(count: str) -> Any:
    """Many labs one after the other from one front process."""
    run_a_lab(reachable)  # what is loaded once is loaded now
    before, descriptors = Snapshot.take(), len(os.listdir("/proc/self/fd"))
    works = [run_a_lab(lambda _conductor, lab: len(lab.nodes)) for _ in range(int(count))]
    return {
        "nodes": works,
        "left": before.awaited(),
        "descriptors": [descriptors, len(os.listdir("/proc/self/fd"))],
    }


def rebuilt_in_one_bubble(count: str) -> Any:
    """Many labs one after the other inside one bubble."""
    plan = plan_lab(load_topology("client-isp-server"), REQUEST)

    def inside(_conductor: Conductor) -> Any:
        def state() -> list[int]:
            folders = ("/proc/self/fd", "/run/netns", "/run/testbed/nodes")
            mounts = len(Path("/proc/self/mountinfo").read_text().splitlines())
            return [mounts, len(_children(os.getpid())), *(len(os.listdir(folder)) for folder in folders)]

        Lab.build(plan).close()
        before = state()
        for _ in range(int(count)):
            Lab.build(plan).close()
        return {"before": before, "after": state()}

    with Bubble() as bubble:
        return bubble.run(inside)


def nested() -> Any:
    """A lab started from the shell of another lab's node."""
    with _front("outer") as front:
        _await_running(front)
        read, write = os.pipe()
        os.dup2(write, 9, inheritable=True)  # sh knows descriptors of one digit
        argv = ["sh", "-c", f"exec >&9; {sys.executable} {__file__} one_lab; ip netns list"]
        code = registry.exec_in("outer", "client", argv)
        os.close(write)
        os.close(9)
        with os.fdopen(read) as answer:
            return {"code": code, "answer": answer.read()}


def attached() -> Any:
    """What `ps`, `shell` and `exec` are made of, and that what they start dies with the lab."""
    with _front("mine") as front:
        _await_running(front)
        found = [[lab.lab_id, lab.uid] for lab in registry.list_labs()]
        nodes = registry.list_nodes("mine")
        checks = [
            registry.exec_in("mine", "client", ["grep", "-q", "nameserver 192.168.0.1", "/etc/resolv.conf"]),
            registry.exec_in("mine", "web", ["sh", "-c", "ip -o addr | grep -q 93.184.216.34"]),
            registry.exec_in("mine", "web", ["sh", "-c", "test $(ip netns list | wc -l) = 6"]),
            registry.exec_in("mine", "web", ["sh", "-c", "test -e /proc/1/comm && kill -0 2"]),
            registry.exec_in("mine", "web", ["sh", "-c", "exit 7"]),
            registry.exec_in("mine", "web", ["/no/such/program"]),
        ]
        refused = [_refusal("mine", "nobody"), _refusal("other", "web")]
        pid = os.fork()
        if pid == 0:
            os._exit(registry.exec_in("mine", "web", SLEEPER))
        _await(lambda: _running("sleep") == 3)
        front.kill()
        front.wait()
        died = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    _await(lambda: _running("sleep") == 0)
    return {
        "found": found,
        "nodes": nodes,
        "checks": checks,
        "refused": refused,
        "died": died,
        "labs_after": len(registry.list_labs()),
    }


def _refusal(lab_id: str, node: str) -> str:
    try:
        registry.attach(lab_id, node).close()
    except NoSuchLab as error:
        return str(error)
    return ""


def _running(name: str) -> int:
    count = 0
    for entry in os.listdir("/proc"):
        try:
            count += entry.isdigit() and Path("/proc", entry, "comm").read_text().strip() == name
        except OSError:
            continue
    return count


def _await(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass"


def as_a_user() -> Any:
    """A lab without root: who we are, that the lab works, that tunnels can be made in it, and how it is entered."""

    def work(conductor: Conductor, lab: Lab) -> Any:
        require_tun()
        tun = output(lab.node("client"), "ip", "tuntap", "add", "dev", "tun7", "mode", "tun")
        conductor.send("up")
        _await(Path("/run/entered").exists)
        return {"uid_inside": os.getuid(), "works": reachable(conductor, lab), "tun": tun}

    entered: list[int] = []

    def on_event(_event: Any) -> None:
        pid = os.fork()
        if pid == 0:
            os._exit(
                registry.exec_in(
                    "users", "web", ["sh", "-c", "ip -o addr | grep -q 93.184.216.34 && touch /run/entered; sleep 1000"]
                )
            )
        entered.append(pid)

    before = Snapshot.take()
    result = run_a_lab(work, on_event, lab_id="users")
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in entered]
    return {**result, "uid": os.getuid(), "entered": codes, "left": before.awaited()}


if __name__ == "__main__":
    result = globals()[sys.argv[1]](*sys.argv[2:])
    print(json.dumps(result), flush=True)

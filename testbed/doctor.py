"""What this host can do for a testbed, and the command that mends what it cannot: `testbed doctor`.

Each feature is tried for real in a throw-away child (`doctor_probes`), because version numbers and configuration files
say little about what a container, a security module or a limit forbids. The checks need no privilege, change nothing
on the host, and import no package, so that they answer on a host where nothing is installed yet.

    examine() -> [Check(name, state, found, fix), …] -> render() -> text

Does not repair anything: a fix is a command for the person to read first.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from testbed import doctor_probes as probes

TUN_DEVICE = Path("/dev/net/tun")
PYTHON_AT_LEAST, PYTHON_LOCKED_UP_TO = (3, 11), (3, 14)
DISK_ENOUGH, DISK_LEAST = 1 << 30, 100 << 20  # a run writes some MB; captures of longer scenarios some hundred
SYSTEM_PATHS = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # not on an ordinary user's PATH
AS_ROOT = "sudo testbed run SCENARIO"


class State(StrEnum):
    OK = "ok"
    WARN = "warn"  # the main job works, something beside it does not
    FAIL = "fail"  # the main job cannot work


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried.

    Shape: `found` is a phrase; `fix` a command to type, empty if there is nothing to mend.
    """

    name: str
    state: State
    found: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Peer:
    """A program the project did not write, and what a user lacks without it."""

    program: str
    version: tuple[str, ...]
    package: str
    use: str


PEERS = (
    Peer("openvpn", ("--version",), "openvpn", "tunnels with program: openvpn"),
    Peer("wireguard-go", ("--version",), "wireguard-go", "tunnels with program: wireguard"),
    Peer("tshark", ("--version",), "tshark", "reading captures beside the project's own observer"),
    Peer("curl", ("--version",), "curl", "trying things by hand in a lab's shell"),
    Peer("dig", ("-v",), "bind9-dnsutils", "trying things by hand in a lab's shell"),
    Peer("mn", ("--version",), "mininet", "running a topology file under Mininet itself"),
)


def examine(*, proc: Path = Path("/proc"), tun: Path = TUN_DEVICE, run_directory: Path | None = None) -> list[Check]:
    """Return every check, in the order in which a missing thing hides the next."""
    checks = [_check_system(), _check_python()]
    mode = check_mode(proc)
    checks.append(mode)
    if mode.state is State.OK:
        checks += _check_kernel(tun)
    else:
        checks.append(Check("kernel features", State.FAIL, "not tried: they need a mode that works", mode.fix))
    checks.append(check_disk(run_directory or Path.cwd()))
    checks += [check_peer(peer) for peer in PEERS]
    return checks


def can_run(checks: Sequence[Check]) -> bool:
    """Whether nothing that the main job needs has failed."""
    return all(check.state is not State.FAIL for check in checks)


def render(checks: Sequence[Check]) -> str:
    """The checks as plain text, one line each, with the fix below what needs one."""
    width = max((len(check.name) for check in checks), default=0)
    lines = []
    for check in checks:
        lines.append(f"{check.state.value:<4}  {check.name:<{width}}  {check.found}")
        if check.fix:
            lines.append(f"{'':4}  {'':{width}}  fix: {check.fix}")
    failed = sum(check.state is State.FAIL for check in checks)
    lines.append(f"This host cannot run the testbed: {failed} failed." if failed else "This host can run the testbed.")
    return "\n".join(lines) + "\n"


def _check_system() -> Check:
    if sys.platform != "linux":
        return Check("system", State.FAIL, platform.platform(), "use a Linux machine, real or virtual")
    return Check("system", State.OK, f"Linux {platform.release()}, {platform.machine()}")


def _check_python() -> Check:
    version = platform.python_version()
    if sys.version_info < PYTHON_AT_LEAST:
        return Check("python", State.FAIL, f"{version}, 3.11 is needed", "apt install python3 python3-venv")
    if sys.version_info[:2] > PYTHON_LOCKED_UP_TO:
        return Check("python", State.WARN, f"{version}, newer than the versions that are tested (3.11 to 3.14)")
    return Check("python", State.OK, version)


def check_mode(proc: Path = Path("/proc")) -> Check:
    """Whether labs are built as root or in a user namespace, or why neither works."""
    as_root = os.geteuid() == 0
    try:
        probes.in_fresh_namespaces(probes.try_ipv4_loopback, user_namespace=not as_root)
    except OSError as error:
        if as_root:
            found = f"root, but not allowed to make namespaces ({error.strerror}): a container without the privilege?"
            return Check("mode", State.FAIL, found, _namespace_fix(error) or "docker run --privileged …")
        return Check("mode", State.FAIL, f"no user namespace: {why_no_user_namespace(error, proc)}", AS_ROOT)
    return Check("mode", State.OK, "root" if as_root else f"user namespace (as uid {os.geteuid()}, without root)")


def why_no_user_namespace(error: OSError, proc: Path = Path("/proc")) -> str:
    """The setting of the host that explains why an ordinary user got no namespaces of its own."""
    if _setting(proc, "user/max_user_namespaces") == 0:
        return "user.max_user_namespaces is 0"
    if _setting(proc, "kernel/unprivileged_userns_clone") == 0:
        return "kernel.unprivileged_userns_clone is 0"
    if _setting(proc, "kernel/apparmor_restrict_unprivileged_userns") == 1:
        return (
            "AppArmor restricts them (kernel.apparmor_restrict_unprivileged_userns is 1, the default of Ubuntu 24.04)"
        )
    return error.strerror or str(error)


def _setting(proc: Path, name: str) -> int | None:
    try:
        return int((proc / "sys" / name).read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _namespace_fix(error: OSError) -> str:
    if error.errno == errno.ENOSPC:  # the kernel's answer when a limit on namespaces is reached
        return "sysctl user.max_net_namespaces user.max_mnt_namespaces   # a limit is too low"
    return ""


def _check_kernel(tun: Path) -> Iterator[Check]:
    user_namespace = os.geteuid() != 0
    features = (
        ("namespaces", probes.try_namespaces, "run outside the container, or: docker run --privileged …"),
        ("veth links", probes.try_veth, "sudo modprobe veth"),
        ("IPv6", probes.try_ipv6, "boot without ipv6.disable=1"),
        ("NAT", probes.try_nat, "sudo modprobe -a nf_tables nft_chain_nat nft_nat"),
        ("packet ring", probes.try_packet_ring, "sudo modprobe af_packet"),
        ("TUN", probes.try_tun(tun), _tun_fix(tun)),
    )
    for name, probe, fix in features:
        try:
            yield Check(name, State.OK, probes.in_fresh_namespaces(probe, user_namespace=user_namespace))
        except OSError as error:
            yield Check(name, State.FAIL, f"{error.strerror}", _namespace_fix(error) or fix)


def _tun_fix(tun: Path) -> str:
    if not tun.exists():
        return f"sudo modprobe tun   # and if {tun} is still missing: sudo mknod -m 0666 {tun} c 10 200"
    if not os.access(tun, os.R_OK | os.W_OK):
        return f"sudo chmod 0666 {tun}   # or: {AS_ROOT}"
    return "sudo modprobe tun"


def check_disk(directory: Path) -> Check:
    """Whether there is room for runs in `directory`."""
    fix = "testbed run SCENARIO --out DIR   # DIR where there is room"
    try:
        free = shutil.disk_usage(directory).free
    except OSError as error:
        return Check("disk space", State.FAIL, f"{directory}: {error.strerror}", fix)
    found = f"{free / (1 << 30):.1f} GiB free in {directory}"
    if free < DISK_LEAST:
        return Check("disk space", State.FAIL, found, fix)
    return Check("disk space", State.WARN if free < DISK_ENOUGH else State.OK, found, fix if free < DISK_ENOUGH else "")


def check_peer(peer: Peer) -> Check:
    """Whether an optional program is there and starts."""
    path = shutil.which(peer.program) or shutil.which(peer.program, path=os.pathsep.join(SYSTEM_PATHS))
    fix = f"sudo apt-get install {peer.package}"
    if path is None:
        return Check(peer.program, State.WARN, f"not installed; only for {peer.use}", fix)
    try:
        answer = subprocess.run(
            [path, *peer.version],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check(peer.program, State.WARN, f"{path} does not start: {error}", f"{fix} --reinstall")
    version = re.search(r"\d+(\.\d+)+([-+~\w]+(\.\w+)*)?", answer.stdout + answer.stderr)
    return Check(peer.program, State.OK, f"{version[0] if version else 'version unknown'}, {path}")

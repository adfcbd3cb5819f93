"""The doctor tries the real thing, blames the right setting, names a command, and leaves the host as it was."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed import doctor_probes as probes
from testbed.doctor import (
    Check,
    Peer,
    State,
    can_run,
    check_disk,
    check_mode,
    check_peer,
    examine,
    render,
    why_no_user_namespace,
)
from testbed.lab import namespaces

NOBODY = 65534
_PR_SET_DUMPABLE = 4


def as_nobody(work: Callable[[], str]) -> str:
    """What `work` says in a child that is an ordinary user."""

    def drop_and_work() -> str:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        # A process that changed its user may not write its own /proc files until it says it holds no secret.
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
        return work()

    return probes.in_child(drop_and_work)


def host_state() -> dict[str, object]:
    return {
        "namespaces": {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "mnt", "pid", "user", "uts")},
        "links": sorted(os.listdir("/sys/class/net")),
        "mounts": Path("/proc/self/mountinfo").read_text("utf-8"),
        "descriptors": sorted(os.listdir("/proc/self/fd")),
        "hostname": os.uname().nodename,
    }


def settings(root: Path, **values: str) -> Path:
    for name, value in values.items():
        path = root / "sys" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value + "\n", "utf-8")
    return root


@pytest.mark.root
def test_as_root_every_kernel_feature_of_the_main_job_is_found_and_nothing_is_left_on_the_host() -> None:
    before = host_state()
    checks = examine()
    assert can_run(checks), render(checks)
    assert {check.name: check.found for check in checks}["mode"] == "root"
    assert host_state() == before


@pytest.mark.root
def test_an_ordinary_user_is_told_that_a_user_namespace_will_be_used() -> None:
    assert as_nobody(lambda: check_mode().found) == f"user namespace (as uid {NOBODY}, without root)"


@pytest.mark.root
def test_an_ordinary_user_who_may_not_open_the_tun_device_is_told_how_to_open_it() -> None:
    def with_a_closed_device() -> str:
        namespaces.unshare(namespaces.CLONE_NEWNS)
        namespaces.mount("none", "/", None, namespaces.MS_REC | namespaces.MS_PRIVATE)
        namespaces.mount("tmpfs", "/mnt", "tmpfs")
        os.mknod("/mnt/tun", 0o600 | stat.S_IFCHR, os.makedev(10, 200))
        return as_nobody(verdict)

    def verdict() -> str:
        check = {check.name: check for check in examine(tun=Path("/mnt/tun"))}["TUN"]
        return f"{check.state} | {check.found} | {check.fix}"

    said = probes.in_child(with_a_closed_device)
    assert said == "fail | Permission denied | sudo chmod 0666 /mnt/tun   # or: sudo testbed run SCENARIO"


@pytest.mark.root
def test_a_limit_of_no_user_namespaces_is_named_as_the_reason() -> None:
    def inside_a_host_without_them() -> str:
        namespaces.unshare(namespaces.CLONE_NEWUSER)
        for name, text in (("setgroups", "deny"), ("uid_map", "1000 0 1"), ("gid_map", "1000 0 1")):
            Path("/proc/self", name).write_text(text, "utf-8")
        Path("/proc/sys/user/max_user_namespaces").write_text("0", "utf-8")
        check = check_mode()
        return f"{check.state} | {check.found} | {check.fix}"

    said = probes.in_child(inside_a_host_without_them)
    assert said == "fail | no user namespace: user.max_user_namespaces is 0 | sudo testbed run SCENARIO"


def test_the_restriction_of_ubuntu_is_named_as_the_reason(tmp_path: Path) -> None:
    proc = settings(tmp_path, user__max_user_namespaces="100", kernel__apparmor_restrict_unprivileged_userns="1")
    reason = why_no_user_namespace(OSError(errno.EPERM, "Operation not permitted"), proc)
    assert "kernel.apparmor_restrict_unprivileged_userns" in reason
    assert "Ubuntu 24.04" in reason


def test_the_older_switch_of_debian_is_named_as_the_reason(tmp_path: Path) -> None:
    proc = settings(tmp_path, user__max_user_namespaces="100", kernel__unprivileged_userns_clone="0")
    assert why_no_user_namespace(OSError(errno.EPERM, "x"), proc) == "kernel.unprivileged_userns_clone is 0"


def test_without_a_known_setting_the_reason_is_the_kernels_own_word(tmp_path: Path) -> None:
    assert why_no_user_namespace(OSError(errno.EPERM, "Operation not permitted"), tmp_path) == "Operation not permitted"


@pytest.mark.root
def test_a_missing_tun_device_fails_with_the_command_that_makes_it(tmp_path: Path) -> None:
    checks = {check.name: check for check in examine(tun=tmp_path / "tun")}
    assert checks["TUN"].state is State.FAIL
    assert checks["TUN"].found == "No such file or directory"
    assert checks["TUN"].fix.startswith("sudo modprobe tun")
    assert not can_run(list(checks.values()))


def test_a_probe_that_dies_is_an_error_and_not_an_answer() -> None:
    def die() -> str:
        os._exit(7)

    with pytest.raises(OSError, match="ended with 7"):
        probes.in_child(die)


def test_a_probe_that_raises_something_unforeseen_is_an_error_that_names_it() -> None:
    def stumble() -> str:
        return os.environ["NO SUCH NAME"]

    with pytest.raises(OSError, match="KeyError"):
        probes.in_child(stumble)


@pytest.mark.root
def test_a_refusal_by_the_kernel_is_read_from_its_netlink_answer() -> None:
    def twice() -> str:
        probes.try_veth()
        return probes.try_veth()

    with pytest.raises(OSError, match="File exists") as caught:
        probes.in_fresh_namespaces(twice, user_namespace=False)
    assert caught.value.errno == errno.EEXIST


def test_a_missing_program_is_a_warning_with_its_package_and_no_failure() -> None:
    check = check_peer(Peer("no-such-program", ("--version",), "its-package", "an example"))
    assert check.state is State.WARN
    assert check.fix == "sudo apt-get install its-package"
    assert can_run([check])


def test_a_program_that_is_there_is_shown_with_its_version_and_place(tmp_path: Path) -> None:
    program = tmp_path / "peer"
    program.write_text("#!/bin/sh\necho 'Peer v4.5.6-rc1. Built today' >&2\nexit 3\n", "utf-8")
    program.chmod(0o755)
    check = check_peer(Peer(str(program), ("--version",), "peer", "an example"))
    assert (check.state, check.found) == (State.OK, f"4.5.6-rc1, {program}")


def test_free_disk_space_is_told_of_the_directory_that_runs_go_to(tmp_path: Path) -> None:
    check = check_disk(tmp_path)
    assert str(tmp_path) in check.found
    assert check.state is State.OK


def test_a_directory_that_cannot_be_looked_at_is_a_failure_and_no_crash(tmp_path: Path) -> None:
    check = check_disk(tmp_path / "absent")
    assert check.state is State.FAIL
    assert check.found == f"{tmp_path}/absent: No such file or directory"


def test_rendering_puts_each_fix_below_its_check_and_ends_with_the_verdict() -> None:
    checks = [Check("mode", State.OK, "root"), Check("TUN", State.FAIL, "No such file", "sudo modprobe tun")]
    assert render(checks).splitlines() == [
        "ok    mode  root",
        "fail  TUN   No such file",
        "            fix: sudo modprobe tun",
        "This host cannot run the testbed: 1 failed.",
    ]

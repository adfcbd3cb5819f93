"""A host that does not let a lab be built: one clear sentence with the fix, not a traceback of the kernel's numbers."""

from __future__ import annotations

import json
import os
import sys

import pytest

from testbed.lab.bubble import Bubble
from testbed.lab.errors import HostCannot
from tests.lab.lab_host import run_script_on_own_host

pytestmark = pytest.mark.root

TRY = """
import json
from testbed.lab.bubble import Bubble
from testbed.lab.errors import HostCannot
from testbed.lab.host import require_tun
try:
    require_tun()
    with Bubble() as bubble:
        bubble.run(lambda conductor: None)
except HostCannot as error:
    print(json.dumps([error.reason, error.fix]))
else:
    print(json.dumps(None))
"""
# Runs a program as an ordinary user in a user namespace of all users whose limit of further ones is 0.
LIMITED = """
import os, sys
from testbed.lab import namespaces
made, mapped = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    namespaces.unshare(namespaces.CLONE_NEWUSER)
    os.write(made[1], b'.')
    os.read(mapped[0], 1)
    open('/proc/sys/user/max_user_namespaces', 'w').write('0')
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    os.execv(sys.argv[1], sys.argv[1:])
os.read(made[0], 1)
for name in ('uid_map', 'gid_map'):
    open(f'/proc/{child}/{name}', 'w').write('0 0 70000')
os.write(mapped[1], b'.')
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
AS_NOBODY = "setpriv --reuid 65534 --regid 65534 --clear-groups"
OPEN_TUN = "mknod -m 666 /run/tun c 10 200 && mount --bind /run/tun /dev/net/tun"


def said_on_a_host(script: str) -> list[str] | None:
    """Return what a lab says on a host of its own that `script` sets up; "$@" in it tries to run one."""
    done = run_script_on_own_host(script, sys.executable, "-c", TRY)
    assert done.returncode == 0, done.stderr
    said: list[str] | None = json.loads(done.stdout)
    return said


def test_an_ordinary_user_who_may_make_namespaces_is_told_nothing() -> None:
    assert said_on_a_host(f'{OPEN_TUN} && {AS_NOBODY} "$@"') is None


def test_a_host_that_allows_no_further_user_namespace_is_named_with_the_fix() -> None:
    said = said_on_a_host(f'{OPEN_TUN} && {sys.executable} -c "$(cat <<EOF\n{LIMITED}\nEOF\n)" "$@"')
    assert said is not None
    assert said[0] == "no further user namespace is allowed here (user.max_user_namespaces)"
    assert "sudo testbed" in said[1]


def test_a_user_whom_the_kernel_refuses_is_told_to_use_root() -> None:
    # In a changed root directory the kernel makes no user namespace for an ordinary user.
    changed_root = "mkdir /run/root && mount --rbind / /run/root && exec chroot --userspec 65534:65534 /run/root"
    said = said_on_a_host(f'{OPEN_TUN} && {changed_root} "$@"')
    assert said is not None
    assert "an ordinary user may not make a lab's namespaces here" in said[0]
    assert "sudo testbed" in said[1]


@pytest.mark.parametrize(
    ("device", "words", "fix"),
    [
        ("mount -t tmpfs tmpfs /dev/net", "there is no /dev/net/tun", "modprobe tun"),
        (OPEN_TUN.replace("666", "600"), "may not be opened by this user", "chmod 0666 /dev/net/tun"),
    ],
)
def test_a_host_without_a_tunnel_device_is_named_with_the_fix(device: str, words: str, fix: str) -> None:
    said = said_on_a_host(f'{device} && {AS_NOBODY} "$@"')
    assert said is not None
    assert words in said[0]
    assert fix in said[1]


def test_two_labs_of_one_name_are_refused() -> None:
    name = f"twice-{os.getpid()}"
    with Bubble(name), pytest.raises(HostCannot, match="runs already"), Bubble(name):
        pass

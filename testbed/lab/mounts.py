"""The file system as a lab sees it: the host's, less everything through which names or state of the host come in.

In a bubble `/` is recursively private, /proc and /run are fresh, and /etc is a tmpfs full of symbolic links to the
host's entries, so that `resolv.conf`, `hosts` and `nsswitch.conf` can be the lab's own whatever they are on the host
(regular file, link into /run, or missing). A fresh /run also hides the path sockets that name lookups would go to:
nscd, systemd-resolved, D-Bus; path sockets cross network namespaces.

    /run/testbed/host-etc          the host's /etc
    /run/testbed/nodes/<node>/…    each node's resolv.conf and hosts; bound over /etc in the node
    /run/netns/<node>              link to the node's namespace: what `ip netns` reads

Every function here changes the calling thread's mount namespace, which must not be the host's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from testbed.lab.namespaces import (
    CLONE_NEWNS,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    mount,
    open_namespace,
    setns,
)

NODE_FILES = ("resolv.conf", "hosts")  # nsswitch.conf is the bubble's in every node
_OWN_FILES = (*NODE_FILES, "nsswitch.conf")
RUN = "/run/testbed"
HOST_ETC = f"{RUN}/host-etc"
NETNS = "/run/netns"
HOSTNAME = "testbed"
_SYSFS_FLAGS = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC
# Nothing but files and DNS may answer: other modules ask daemons of the host.
NSSWITCH = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\nservices: files\n"


def furnish_bubble() -> None:
    """Set up the mounts of a fresh mount and PID namespace, as its PID 1."""
    _make_this_the_root()
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    _protect_kernel_settings()
    mount("sysfs", "/sys", "sysfs", _SYSFS_FLAGS)
    # In a lab inside a lab, /etc is already full of links into the outer lab's /run, which is about to be covered.
    host_etc = os.open(HOST_ETC if os.path.isdir(HOST_ETC) else "/etc", os.O_PATH | os.O_DIRECTORY)
    mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    if not os.path.islink("/var/run") and os.path.isdir("/var/run"):
        mount("/run", "/var/run", None, MS_BIND)
    for folder in (RUN, HOST_ETC, NETNS, f"{RUN}/nodes", "/run/lock"):
        os.mkdir(folder)
    mount(f"/proc/self/fd/{host_etc}", HOST_ETC, None, MS_BIND | MS_REC)
    os.close(host_etc)
    _replace_etc()
    write_node_files("/etc", HOSTNAME, (), ())
    Path("/etc/nsswitch.conf").write_text(NSSWITCH)


def _make_this_the_root() -> None:
    """In a chroot, make its root the mount namespace's: whoever enters a mount namespace comes out at that one.

    Nothing changes where the two are the same already.
    """
    here, home, folder = os.open("/", os.O_PATH), open_namespace("mnt"), os.open(".", os.O_PATH)
    try:
        path = os.getcwd()
    except FileNotFoundError:  # removed meanwhile: nothing of a lab is looked for there
        path = "/"
    setns(home, CLONE_NEWNS)
    there = os.open("/", os.O_PATH)
    if _mount_of(here) == _mount_of(there):
        os.fchdir(folder)
    else:
        mount("none", "/", None, MS_REC | MS_PRIVATE)
        os.fchdir(here)
        mount(".", "/", None, MS_BIND | MS_REC)
        os.chdir("/..")  # unlike "/", this passes on to what has been mounted there
        os.chroot(".")
        os.chdir(path)
    for descriptor in (here, home, folder, there):
        os.close(descriptor)


def _mount_of(descriptor: int) -> tuple[str, int, int]:
    """Return which mount a directory lies in, and which directory it is."""
    told = Path(f"/proc/thread-self/fdinfo/{descriptor}").read_text()
    status = os.fstat(descriptor)
    return told.partition("mnt_id:")[2].split()[0], status.st_dev, status.st_ino


def write_node_files(folder: str, hostname: str, resolvers: Iterable[str], hosts: Sequence[tuple[str, str]]) -> None:
    """Write the files of name lookup into `folder`; `hosts` are (address, name)."""
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    lines += [f"{address}\t{name}" for address, name in hosts]
    if not any(name == hostname for _address, name in hosts):
        lines.append(f"127.0.1.1\t{hostname}")
    Path(folder, "hosts").write_text("\n".join(lines) + "\n")
    Path(folder, "resolv.conf").write_text(resolv_conf(resolvers))


def resolv_conf(resolvers: Iterable[str]) -> str:
    """Return the text of a resolv.conf that asks `resolvers`, in order."""
    return "".join(f"nameserver {address}\n" for address in resolvers) or "# this node has no resolver\n"


def node_folder(node: str) -> str:
    """Return where the files of `node` lie, in the bubble and in every node."""
    return f"{RUN}/nodes/{node}"


def furnish_node(node: str) -> None:
    """Give the calling thread's fresh mount and network namespaces the node's own name-lookup files and /sys."""
    folder = node_folder(node)
    for name in NODE_FILES:
        mount(f"{folder}/{name}", f"/etc/{name}", None, MS_BIND)
    mount("sysfs", "/sys", "sysfs", _SYSFS_FLAGS)


def _protect_kernel_settings() -> None:
    """Let settings that all namespaces share be read and not written: a root's lab would change the host's.

    Those of the network are each node's own, and stay as they are.
    """
    network = os.open("/proc/sys/net", os.O_PATH | os.O_DIRECTORY)
    mount("/proc/sys", "/proc/sys", None, MS_BIND)
    mount("none", "/proc/sys", None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount(f"/proc/self/fd/{network}", "/proc/sys/net", None, MS_BIND)
    os.close(network)


def _replace_etc() -> None:
    mount("tmpfs", "/etc", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    with os.scandir(HOST_ETC) as entries:
        for entry in entries:
            if entry.name not in _OWN_FILES:
                # A link is copied, not linked to: a relative one would otherwise be read from the wrong place.
                target = os.readlink(entry.path) if entry.is_symlink() else f"{HOST_ETC}/{entry.name}"
                os.symlink(target, f"/etc/{entry.name}")

"""What this host allows: why the kernel refused a namespace or a device, and what its owner can do about it.

Source: user_namespaces(7); Ubuntu 24.04 release notes (AppArmor restricts unprivileged user namespaces).
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from testbed.lab.errors import HostCannot

_AS_ROOT = "run it as root: sudo testbed …"
TUN = "/dev/net/tun"


def explain_refusal(error: OSError) -> HostCannot:
    """Return what the host's owner should know about a namespace or mount that the kernel refused."""
    what = error.strerror or str(error)
    if os.path.exists("/proc/self/uid_map") and _is_real_root():
        return HostCannot(
            f"root may not make namespaces here ({what})",
            "outside a container, or in one with the capability SYS_ADMIN (docker run --privileged)",
        )
    if _setting("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return HostCannot(
            f"AppArmor keeps ordinary users from using user namespaces ({what})",
            f"{_AS_ROOT}; or allow them: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        )
    if _setting("kernel/unprivileged_userns_clone") == "0":
        return HostCannot(
            "ordinary users may not make user namespaces here (kernel.unprivileged_userns_clone is 0)",
            f"{_AS_ROOT}; or allow them: sudo sysctl kernel.unprivileged_userns_clone=1",
        )
    if _setting("user/max_user_namespaces") == "0" or error.errno == errno.ENOSPC:
        return HostCannot(
            "no further user namespace is allowed here (user.max_user_namespaces)",
            f"{_AS_ROOT}; or allow more: sudo sysctl user.max_user_namespaces=10000",
        )
    return HostCannot(f"an ordinary user may not make a lab's namespaces here ({what})", _AS_ROOT)


def require_tun() -> None:
    """Make sure that tunnel devices can be made. Errors: HostCannot."""
    try:
        os.close(os.open(TUN, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        raise HostCannot(
            f"there is no {TUN}",
            "load the driver: sudo modprobe tun; where that does not make it, as in a container: "
            f"sudo mkdir -p {os.path.dirname(TUN)} && sudo mknod -m 0666 {TUN} c 10 200",
        ) from None
    except PermissionError:
        raise HostCannot(
            f"{TUN} may not be opened by this user", f"{_AS_ROOT}; or allow it: sudo chmod 0666 {TUN}"
        ) from None
    except OSError as error:
        raise HostCannot(f"{TUN} cannot be opened ({error.strerror})", "load the driver: sudo modprobe tun") from None


def fair_congestion_control() -> str:
    """Return TCP's congestion control for every node: cubic, as most hosts have it, where a lab may choose it.

    A namespace may only choose what the host allows for everybody; reno is always among those.
    """
    allowed = (_setting("net/ipv4/tcp_allowed_congestion_control") or "reno").split()
    return "cubic" if "cubic" in allowed else "reno"


def _is_real_root() -> bool:
    """Whether user id 0 here is the host's: an ordinary user's namespace maps a single id."""
    words = Path("/proc/self/uid_map").read_text().split()
    return os.geteuid() == 0 and words[2] != "1"


def _setting(name: str) -> str | None:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return None

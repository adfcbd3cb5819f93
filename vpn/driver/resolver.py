"""The resolver's configuration: the tunnel's servers written into /etc/resolv.conf, and the old content put back.

The file is rewritten in place, never replaced: it may be a bind mount of one namespace, or a link. At the end the old
content comes back only if the file still holds what was written here; another program's later change is left alone.

The search list keeps no domain of the old file: names of the place one is at are not to be asked through the tunnel.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from vpn.driver.errors import HostError
from vpn.driver.routes import IpAddress

RESOLV_CONF = Path("/etc/resolv.conf")
NAMESERVERS_MAXIMUM = 3  # glibc's MAXNS: it ignores further ones
_MARK = "# Written by the VPN client on {}; the previous content comes back when the tunnel ends.\n"


class ResolverFile:
    """One resolv.conf, changed for as long as a tunnel stands."""

    def __init__(self, path: Path = RESOLV_CONF) -> None:
        self.path = path
        self._before: bytes | None = None
        self._written: bytes | None = None

    def nameservers(self) -> tuple[IpAddress, ...]:
        """The servers the file names now."""
        found: list[IpAddress] = []
        for line in (_read(self.path) or b"").decode("utf-8", "replace").splitlines():
            words = line.split()
            if len(words) >= 2 and words[0] == "nameserver":
                try:
                    found.append(ip_address(words[1]))
                except ValueError:
                    continue
        return tuple(found)

    def plan(self, servers: Sequence[IpAddress], search: Sequence[str], device: str) -> tuple[bytes | None, bytes]:
        """The content as it was before any change (None: no file), and the one that makes `servers` the only ones."""
        lines = [_MARK.format(device)]
        if search:
            lines.append(f"search {' '.join(search)}\n")
        lines += [f"nameserver {server}\n" for server in servers[:NAMESERVERS_MAXIMUM]]
        before = _read(self.path) if self._written is None else self._before
        return before, "".join(lines).encode()

    def apply(self, before: bytes | None, content: bytes) -> None:
        """Makes a `plan` true. Errors: HostError; the file is then as it was, or as the disk let it be."""
        self._before, self._written = before, content
        _write(self.path, content)

    def restore(self) -> bool:
        """Puts the old content back. False if the file was changed by somebody else meanwhile and was left alone."""
        written, self._written = self._written, None
        return written is None or put_back(self.path, self._before, written)


def put_back(path: Path, before: bytes | None, written: bytes) -> bool:
    """Restores `before`, unless the file holds neither `written` nor a part of it that a killed process came to write.

    Errors: HostError
    """
    now = _read(path)
    if now == before:
        return True
    if now is None or not written.startswith(now):
        return False
    if before is None:
        path.unlink(missing_ok=True)
    else:
        _write(path, before)
    return True


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostError(f"read {path}", error.errno or 0) from error


def _write(path: Path, content: bytes) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except OSError as error:
        raise HostError(f"write {path}", error.errno or 0) from error

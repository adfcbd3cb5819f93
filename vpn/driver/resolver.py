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
        self._path = path
        self._before: bytes | None = None
        self._written = b""

    def nameservers(self) -> tuple[IpAddress, ...]:
        """The servers the file names now."""
        found: list[IpAddress] = []
        for line in self._read().decode("utf-8", "replace").splitlines():
            words = line.split()
            if len(words) >= 2 and words[0] == "nameserver":
                try:
                    found.append(ip_address(words[1]))
                except ValueError:
                    continue
        return tuple(found)

    def apply(self, servers: Sequence[IpAddress], search: Sequence[str], device: str) -> None:
        """Makes `servers` the only ones. Errors: HostError; the file is then as it was, or as the disk let it be."""
        lines = [_MARK.format(device)]
        if search:
            lines.append(f"search {' '.join(search)}\n")
        lines += [f"nameserver {server}\n" for server in servers[:NAMESERVERS_MAXIMUM]]
        if self._before is None:
            self._before = self._read()
        self._written = "".join(lines).encode()
        self._write(self._written)

    def restore(self) -> bool:
        """Puts the old content back. False if the file was changed by somebody else meanwhile and was left alone."""
        before, self._before = self._before, None
        if before is None:
            return True
        if self._read() != self._written:
            return False
        self._write(before)
        return True

    def _read(self) -> bytes:
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise HostError(f"read {self._path}", error.errno or 0) from error

    def _write(self, content: bytes) -> None:
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
        except OSError as error:
            raise HostError(f"write {self._path}", error.errno or 0) from error

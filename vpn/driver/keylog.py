"""The TLS key log: lines that let Wireshark read a capture's control channel. Secrets: the file is for the owner alone.

`tls-keylog FILE` is an option of ours; the format is that of SSLKEYLOGFILE in browsers.
"""

from __future__ import annotations

import os
from pathlib import Path

from vpn.driver.errors import HostError

_MODE = 0o600


class KeyLog:
    """Appends lines to a file that nobody else can read, and that is no link."""

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._descriptor = os.open(path, flags, _MODE)
            os.fchmod(self._descriptor, _MODE)
        except OSError as error:
            raise HostError(f"open the key log {path}", error.errno or 0) from error

    def write(self, line: bytes) -> None:
        os.write(self._descriptor, line + b"\n")

    def close(self) -> None:
        os.close(self._descriptor)

"""Errors of the host: what was tried, on what, what the kernel answered, and what most likely mends it."""

from __future__ import annotations

import errno
import os

_CAUSES = {
    errno.EPERM: "this needs root, or CAP_NET_ADMIN in the network namespace",
    errno.EACCES: "this needs root, or CAP_NET_ADMIN in the network namespace",
    errno.EADDRINUSE: "another program uses this address and port",
    errno.EADDRNOTAVAIL: "no interface has this address",
    errno.ENETUNREACH: "there is no route there",
    errno.EBUSY: "another program uses the device",
}


class HostError(Exception):
    """The host refused something. `number` is the errno, 0 if there was none."""

    def __init__(self, operation: str, number: int = 0, cause: str = "") -> None:
        self.operation = operation
        self.number = number
        self.cause = cause or _CAUSES.get(number, "")
        answer = f": {os.strerror(number)}" if number else ""
        hint = f" ({self.cause})" if self.cause else ""
        super().__init__(f"{operation}{answer}{hint}")

"""The control tap's way over a tunnel that ends and begins again: its device is then another one, and is tapped anew.

A tap hears the device it was bound to and ends with it. So while events may end a tunnel, the conductor looks now and
then whether the device's number has changed, and opens a further tap at once; packets of the moments between (a few
milliseconds, in which a program usually still sets its addresses) are missing. In the end the files become one: a
capture of several sections, which every reader of pcapng knows.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from typing import Any

from testbed.lab.node import Node

_SIOCGIFINDEX = 0x8933
_REQUEST = struct.Struct("16si20x")  # an interface's name and number, as ioctl has them
_CHUNK = 1 << 20


class DeviceWatch:
    """Says when the device of a name is another one than before."""

    def __init__(self, node: Node, device: str) -> None:
        self._socket = node.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._request = _REQUEST.pack(device.encode(), 0)
        self._last = self._number()

    def is_new(self) -> bool:
        """Whether there is a device that was not there when this was asked before."""
        number = self._number()
        if number in (0, self._last):
            return False
        self._last = number
        return True

    def close(self) -> None:
        self._socket.close()

    def _number(self) -> int:
        """The device's number, which no later device of this name gets; 0 if there is none."""
        try:
            answer = fcntl.ioctl(self._socket, _SIOCGIFINDEX, self._request)
        except OSError:
            return 0
        return int(_REQUEST.unpack(answer)[1])


def append(directory_fd: int, file: str, later: str) -> None:
    """Put the capture `later` behind `file` as a section of its own, and remove it. Names are below the directory."""
    whole = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory_fd)
    part = os.open(later, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory_fd)
    with os.fdopen(whole, "wb") as out, os.fdopen(part, "rb") as section:
        while chunk := section.read(_CHUNK):
            out.write(chunk)
    os.unlink(later, dir_fd=directory_fd)


def summed(counts: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """What two taps counted, together."""
    return {key: int(counts[key]) + int(more.get(key, 0)) for key in counts}

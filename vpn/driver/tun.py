"""The tun device: bare IP packets in and out of the kernel, a batch per call.

`dev tun` takes the next free number, `dev tun3` that very device, which may exist already (a persistent one, made by
`ip tuntap add` for this user). The device node is opened at the start, so that a missing permission shows before any
packet is sent; the device itself appears with `attach`.

Source: linux/Documentation/networking/tuntap.rst
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from vpn.driver.errors import HostError

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_REQUEST = struct.Struct("16sH22x")
_NUMBER_REQUEST = struct.Struct("16si20x")
_SIOCGIFFLAGS, _SIOCGIFMTU, _SIOCGIFTXQLEN = 0x8913, 0x8921, 0x8942
_IFF_UP = 0x1
BATCH_PACKETS = 32  # read before anything else is looked at: bounds how long a flood from one side delays the other


class TunDevice:
    """An open tun device, or its opened node before `attach`."""

    def __init__(self, node: Path) -> None:
        try:
            self._descriptor = os.open(node, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise HostError(f"open {node}", error.errno or 0, _hint(error.errno)) from error
        self.name = ""
        self._largest_packet = 0
        self.octets_read = 0
        self.octets_written = 0
        self.refused_by_kernel = 0  # packets the kernel did not take: the interface is down, or the packet malformed

    def attach(self, name: str, mtu: int) -> None:
        """Makes or takes the device. Shape: `name` "tun" stands for the next free number."""
        wanted = "tun%d" if name == "tun" else name
        request = _REQUEST.pack(wanted.encode(), _IFF_TUN | _IFF_NO_PI)
        try:
            answer = fcntl.ioctl(self._descriptor, _TUNSETIFF, request)
        except OSError as error:
            cause = (
                "a device of this name exists and is not a tun device of this user"
                if error.errno == errno.EINVAL
                else ""
            )
            raise HostError(f"make the tun device {name}", error.errno or 0, cause) from error
        self.name = _REQUEST.unpack(answer)[0].rstrip(b"\0").decode()
        self._largest_packet = mtu

    def fileno(self) -> int:
        return self._descriptor

    def read_packets(self) -> list[bytes]:
        """What the kernel has to send, up to a batch; empty if there is nothing."""
        packets: list[bytes] = []
        try:
            while len(packets) < BATCH_PACKETS:
                packet = os.read(self._descriptor, self._largest_packet)
                packets.append(packet)
                self.octets_read += len(packet)
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.EIO:  # EIO: the interface is down at the moment
                raise HostError(f"read from {self.name}", error.errno or 0) from error
        return packets

    def write_packets(self, packets: list[bytes]) -> None:
        """Hands packets to the kernel; those it refuses are counted."""
        for packet in packets:
            try:
                os.write(self._descriptor, packet)
                self.octets_written += len(packet)
            except OSError:
                self.refused_by_kernel += 1

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@dataclass(frozen=True, slots=True)
class InterfaceState:
    """What a tunnel changes of an interface that was there before."""

    is_up: bool
    mtu: int
    queue_length: int


def interface_state(name: str) -> InterfaceState | None:
    """The state of the interface; None if there is none of that name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:

        def ask(question: int) -> int:
            answer = fcntl.ioctl(probe.fileno(), question, _NUMBER_REQUEST.pack(name.encode(), 0))
            return int(_NUMBER_REQUEST.unpack(answer)[1])

        try:
            return InterfaceState(bool(ask(_SIOCGIFFLAGS) & _IFF_UP), ask(_SIOCGIFMTU), ask(_SIOCGIFTXQLEN))
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise HostError(f"look at the interface {name}", error.errno or 0) from error


def _hint(number: int | None) -> str:
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return "the kernel's tun module is missing: modprobe tun"
    if number in (errno.EACCES, errno.EPERM):
        return "this needs root, or a device node this user may open"
    return ""

"""What a network interface is asked by ioctl: to come up, and which work to leave to software (offloads).

Offload features are named bits whose numbers differ between kernels; the names are the same for every interface, so
they are read once. Every segmenting and checksumming feature of the sending side goes off, so that a frame on a link
is a frame as on a wire.

Source: kernel include/uapi/linux/ethtool.h (ETHTOOL_GSTRINGS, ETHTOOL_SFEATURES), net/ethtool/common.c.
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct

_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_SIOCETHTOOL = 0x8946
_IFF_UP = 1
_ETHTOOL_GSSET_INFO = 0x37
_ETHTOOL_GSTRINGS = 0x1B
_ETHTOOL_GFEATURES = 0x3A
_ETHTOOL_SFEATURES = 0x3B
_SS_FEATURES = 4
_NAME_OCTETS = 32
_RECEIVE = ("rx-gro", "rx-gro-list", "rx-udp-gro-forwarding")


def bring_up(interface: str, control: socket.socket) -> None:
    """Set `interface` up; `control` is any socket of its network namespace."""
    request = struct.pack("16sh14x", interface.encode(), 0)
    flags = struct.unpack_from("h", fcntl.ioctl(control, _SIOCGIFFLAGS, request), 16)[0]
    fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", interface.encode(), flags | _IFF_UP))


def feature_names(control: socket.socket) -> tuple[str, ...]:
    """Return the kernel's names of the offload features; a name's index is its bit."""
    answer = _ethtool("lo", control, struct.pack("=IIQI", _ETHTOOL_GSSET_INFO, 0, 1 << _SS_FEATURES, 0))
    count = struct.unpack_from("=I", answer, 16)[0]
    answer = _ethtool(
        "lo", control, struct.pack("=III", _ETHTOOL_GSTRINGS, _SS_FEATURES, count) + bytes(_NAME_OCTETS * count)
    )
    return tuple(
        answer[start : start + _NAME_OCTETS].split(b"\0", 1)[0].decode()
        for start in range(12, 12 + _NAME_OCTETS * count, _NAME_OCTETS)
    )


def set_offloads(interface: str, gro: bool, names: tuple[str, ...], control: socket.socket) -> None:
    """Turn every segmenting and checksumming offload of `interface` off, and GRO on or off."""
    blocks = [[0, 0] for _ in range((len(names) + 31) // 32)]  # (valid, requested) per 32 features
    for bit, name in enumerate(names):
        if name in _RECEIVE or _is_sending_offload(name):
            blocks[bit // 32][0] |= 1 << bit % 32
            blocks[bit // 32][1] |= (gro and name == "rx-gro") << bit % 32
    body = b"".join(struct.pack("=II", *block) for block in blocks)
    _ethtool(interface, control, struct.pack("=II", _ETHTOOL_SFEATURES, len(blocks)) + body)


def active_features(interface: str, names: tuple[str, ...], control: socket.socket) -> dict[str, bool]:
    """Return which features of `interface` are on, as the kernel answers."""
    count = (len(names) + 31) // 32
    answer = _ethtool(interface, control, struct.pack("=II", _ETHTOOL_GFEATURES, count) + bytes(16 * count))
    active = [struct.unpack_from("=I", answer, 8 + 16 * block + 8)[0] for block in range(count)]
    return {name: bool(active[bit // 32] >> bit % 32 & 1) for bit, name in enumerate(names)}


def _is_sending_offload(name: str) -> bool:
    return name.startswith("tx-checksum-") or (name.startswith("tx-") and ("segmentation" in name or "gso" in name))


def _ethtool(interface: str, control: socket.socket, command: bytes) -> bytes:
    """Run one ethtool command and return its buffer as the kernel left it."""
    buffer = array.array("B", command)
    address, _length = buffer.buffer_info()
    fcntl.ioctl(control, _SIOCETHTOOL, struct.pack("16sP8x", interface.encode(), address))
    return buffer.tobytes()

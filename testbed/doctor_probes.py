"""The kernel features a lab needs, each tried for real where nothing can be left behind.

A probe runs in a throw-away child: `in_fresh_namespaces` forks, enters new namespaces there (a new user namespace first
when not root), calls the probe and reads back one line of text or an `OSError`. What the probe made goes with the
child, so a probe never tidies up, and the host's namespaces, links, rules and mounts stay as they are.

Netlink messages are written out by hand: the doctor must work, and say what is wrong, before any package is trusted.

Sources: rtnetlink(7), linux/if_link.h, linux/netfilter/nf_tables.h, packet(7), linux/if_tun.h, user_namespaces(7).
"""

from __future__ import annotations

import errno
import fcntl
import json
import mmap
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from testbed.lab import namespaces

_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_CREATE, _NLM_F_EXCL = 0x1, 0x4, 0x400, 0x200
_NLMSG_ERROR = 2
_RTM_NEWLINK = 16
_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_INFO_KIND = 3, 18, 1
_IFF_UP = 1
_NETLINK_ROUTE, _NETLINK_NETFILTER = 0, 12
_NFNL_BATCH_BEGIN, _NFNL_BATCH_END = 16, 17
_NFNL_SUBSYS_NFTABLES = 10 << 8
_NFT_NEWTABLE, _NFT_NEWCHAIN = 0, 3
_NF_INET_POST_ROUTING, _SRCNAT_PRIORITY = 4, 100
_NESTED = 0x8000

_SOL_PACKET, _PACKET_RX_RING, _PACKET_VERSION, _TPACKET_V3 = 263, 5, 10, 2
_ETH_P_ALL = 3
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x400454CA, 0x1, 0x1000, 0x4000

Probe = Callable[[], str]


def in_fresh_namespaces(probe: Probe, *, user_namespace: bool) -> str:
    """Return what `probe` says when run in a child with mount, network and host name namespaces of its own.

    Errors: OSError as the probe or the making of the namespaces raised it
    """

    def enter_and_probe() -> str:
        if user_namespace:
            become_root_of_a_user_namespace()
        namespaces.unshare(namespaces.CLONE_NEWNS | namespaces.CLONE_NEWNET | namespaces.CLONE_NEWUTS)
        namespaces.mount("none", "/", None, namespaces.MS_REC | namespaces.MS_PRIVATE)
        return probe()

    return in_child(enter_and_probe)


def in_child(work: Probe) -> str:
    """Return what `work` says in a forked child; an OSError there is raised here, a crash is one as well."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _report_and_exit(work, writing)
    os.close(writing)
    with open(reading, "rb") as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    if not text:
        raise OSError(errno.EIO, f"the trial process ended with {os.waitstatus_to_exitcode(status)}")
    number, said = json.loads(text)
    if number:
        raise OSError(number, said)
    return str(said)


def _report_and_exit(work: Probe, writing: int) -> None:
    """In the child: never returns, so that nothing of the caller's runs twice."""
    try:
        answer: tuple[int, str] = (0, work())
    except OSError as error:
        answer = (error.errno or errno.EIO, error.strerror or str(error))
    except BaseException as error:
        answer = (errno.EIO, f"{type(error).__name__}: {error}")
    try:
        os.write(writing, json.dumps(answer).encode())
    finally:
        os._exit(0)


def become_root_of_a_user_namespace() -> None:
    """Move this single-threaded process into a new user namespace, in which its own uid is root."""
    uid, gid = os.geteuid(), os.getegid()
    namespaces.unshare(namespaces.CLONE_NEWUSER)
    # The kernel takes a group map from an ordinary user only after setgroups is given up.
    Path("/proc/self/setgroups").write_text("deny", "utf-8")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1", "utf-8")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1", "utf-8")


def try_ipv4_loopback() -> str:
    """The least that a namespace of one's own must allow: to administer the network in it.

    Making a user namespace is not enough to go by. Where AppArmor restricts them, it is made and is worth nothing.
    """
    _set_up("lo")
    return "lo is up"


def try_namespaces() -> str:
    """A PID namespace, and a /proc of its own in it: containers often forbid the second."""
    namespaces.unshare(namespaces.CLONE_NEWPID | namespaces.CLONE_NEWIPC)

    def first_process() -> str:
        namespaces.mount("proc", "/proc", "proc", namespaces.MS_NOSUID | namespaces.MS_NODEV | namespaces.MS_NOEXEC)
        namespaces.mount("tmpfs", "/run", "tmpfs", namespaces.MS_NOSUID | namespaces.MS_NODEV)
        return os.readlink("/proc/self")

    seen_as = in_child(first_process)
    if seen_as != "1":
        raise OSError(errno.EPERM, f"the first process of a PID namespace sees itself as {seen_as}")
    return "mount, PID, network, host name and IPC"


def try_veth() -> str:
    _set_up("lo")
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE) as netlink:
        name = _attribute(_IFLA_IFNAME, b"doctor0\0")
        kind = _attribute(_IFLA_LINKINFO | _NESTED, _attribute(_IFLA_INFO_KIND, b"veth"))
        header = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, 0, 0, 0)
        flags = _NLM_F_REQUEST | _NLM_F_ACK | _NLM_F_CREATE | _NLM_F_EXCL
        netlink.send(_message(_RTM_NEWLINK, flags, header + name + kind))
        _expect_acknowledgement(netlink)
    socket.if_nametoindex("doctor0")
    return "a pair of interfaces was created"


def try_nat() -> str:
    """Source NAT of both families, as the VPN server's node needs it."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
            netlink.bind((0, 0))
            netlink.send(_nat_chain_batch(family))
            _expect_acknowledgement(netlink)
    return "chains of type nat for IPv4 and IPv6"


def _nat_chain_batch(family: int) -> bytes:
    """One nf_tables transaction: a table, and in it a chain of type nat. Only the chain asks for an answer."""
    create = _NLM_F_REQUEST | _NLM_F_CREATE
    generation = struct.pack("!BBH", socket.AF_UNSPEC, 0, 10)
    header = struct.pack("!BBH", family, 0, 0)
    hook = _attribute(1, struct.pack("!I", _NF_INET_POST_ROUTING)) + _attribute(2, struct.pack("!i", _SRCNAT_PRIORITY))
    chain = (
        _attribute(1, b"doctor\0") + _attribute(3, b"out\0") + _attribute(4 | _NESTED, hook) + _attribute(7, b"nat\0")
    )
    return b"".join(
        (
            _message(_NFNL_BATCH_BEGIN, _NLM_F_REQUEST, generation),
            _message(_NFNL_SUBSYS_NFTABLES | _NFT_NEWTABLE, create, header + _attribute(1, b"doctor\0")),
            _message(_NFNL_SUBSYS_NFTABLES | _NFT_NEWCHAIN, create | _NLM_F_ACK, header + chain),
            _message(_NFNL_BATCH_END, _NLM_F_REQUEST, generation),
        )
    )


def try_packet_ring() -> str:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)) as tap:
        tap.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
        block, blocks, frame = 1 << 16, 4, 1 << 11
        request = struct.pack("=7I", block, blocks, frame, block * blocks // frame, 10, 0, 0)
        tap.setsockopt(_SOL_PACKET, _PACKET_RX_RING, request)
        mmap.mmap(tap.fileno(), block * blocks).close()
    return "TPACKET_V3, mapped"


def try_tun(device: Path) -> Probe:
    """The probe that makes a TUN interface through `device`."""

    def make_interface() -> str:
        clone = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        wanted = struct.pack("=16sH22x", b"doctor1", _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR)
        fcntl.ioctl(clone, _TUNSETIFF, wanted)
        socket.if_nametoindex("doctor1")
        return f"an interface was created through {device}"

    return make_interface


def try_ipv6() -> str:
    _set_up("lo")
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as plain:
        plain.bind(("::1", 0))
    return "an IPv6 socket was bound"


def _set_up(interface: str) -> None:
    index = socket.if_nametoindex(interface)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE) as netlink:
        body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, _IFF_UP, _IFF_UP)
        netlink.send(_message(_RTM_NEWLINK, _NLM_F_REQUEST | _NLM_F_ACK, body))
        _expect_acknowledgement(netlink)


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _expect_acknowledgement(netlink: socket.socket) -> None:
    """Read one answer; the kernel answers a request at once or, to a missing module, not at all."""
    netlink.settimeout(2)
    answer = netlink.recv(1 << 16)
    _, kind, _, _, _ = struct.unpack_from("=IHHII", answer)
    if kind == _NLMSG_ERROR:
        number = -struct.unpack_from("=i", answer, 16)[0]
        if number:
            raise OSError(number, os.strerror(number))

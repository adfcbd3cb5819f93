"""Netlink: messages by pyroute2, sent many at a time and acknowledged once.

A call of pyroute2 per object costs milliseconds; here its message classes only encode and decode, and a batch goes to
the kernel in one send. Every message but the last asks for no acknowledgement; an error comes back nonetheless, with
the number of the message it is about. This is the only module of the testbed that imports pyroute2.

Sources: netlink(7), rtnetlink(7), kernel include/uapi/linux/{if_link,rtnetlink,netfilter/nf_tables}.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_interface, ip_network
from typing import Any

from pyroute2.netlink.nfnetlink.nftsocket import nft_chain_msg, nft_rule_msg, nft_table_msg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from testbed.lab.errors import LabBuildError
from testbed.lab.namespaces import entered_network
from testbed.lab.nat import Chain, Expression

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
_REQUEST, _ACK, _DUMP, _EXCL, _CREATE = 1, 4, 0x300, 0x200, 0x400
_ERROR, _DONE = 2, 3
_NEWLINK, _GETLINK, _NEWADDR, _GETADDR, _NEWROUTE, _GETROUTE = 16, 18, 20, 22, 24, 26
_NFT = 10 << 8
_NFT_NEWTABLE, _NFT_NEWCHAIN, _NFT_NEWRULE = _NFT | 0, _NFT | 3, _NFT | 6
_NFT_BATCH_BEGIN, _NFT_BATCH_END = 16, 17
_NETLINK_NETFILTER = 12
_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_ERROR_TEXT = 1  # NLMSGERR_ATTR_MSG
_BATCH_OCTETS = 48 * 1024  # below the socket's send buffer on every kernel
_RECEIVE_OCTETS = 1 << 18
_IFF_UP = 1
_IFINFO_OCTETS = 16
_OPERSTATE, _OPERSTATE_UP = 16, 6
_TABLE_MAIN, _PROTO_STATIC, _SCOPE_LINK, _UNICAST = 254, 4, 253, 1
_TENTATIVE, _DAD_FAILED = 0x40, 0x08
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_VERSIONS = {int(socket.AF_INET): 4, int(socket.AF_INET6): 6}


@dataclass(frozen=True, slots=True)
class Message:
    """One request without its header, and in words what it is for."""

    kind: int
    flags: int
    body: bytes
    purpose: str


@dataclass(frozen=True, slots=True)
class VethEnd:
    """One end of a link to be: its namespace by descriptor, its index there, and its name."""

    netns_fd: int
    index: int
    name: str
    mac: str


class Netlink:
    """A netlink socket of the network namespace that the calling thread is in."""

    def __init__(self, protocol: int = socket.NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        self._sequence = 0

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def control(self) -> socket.socket:
        """The socket itself: any socket of a namespace serves for an ioctl on its interfaces."""
        return self._socket

    def close(self) -> None:
        self._socket.close()

    def send(self, messages: Sequence[Message]) -> None:
        """Have the kernel carry out all of `messages`. Errors: LabBuildError names those it refused."""
        batch: list[Message] = []
        size = 0
        for message in messages:
            if size + len(message.body) > _BATCH_OCTETS:
                self._send_batch(batch)
                batch, size = [], 0
            batch.append(message)
            size += _HEADER.size + len(message.body)
        if batch:
            self._send_batch(batch)

    def send_transaction(self, messages: Sequence[Message]) -> None:
        """Have nf_tables carry out all of `messages` or none. Errors: LabBuildError."""
        begin, end = (
            Message(kind, 0, struct.pack("=BBH", 0, 0, socket.htons(_NFT >> 8)), "transaction")
            for kind in (_NFT_BATCH_BEGIN, _NFT_BATCH_END)
        )
        # nf_tables answers per message after the whole transaction; the one before the end carries the acknowledgement.
        self._send_batch([begin, *messages, end], acknowledged=len(messages))

    def ask(self, kind: int, message: Any, dump: bool) -> Iterator[bytes]:
        """Yield the bodies of the kernel's answers. Errors: OSError as the kernel says it."""
        self._sequence += 1
        body = _encode(message)
        header = _HEADER.pack(16 + len(body), kind, _REQUEST | (_DUMP if dump else 0), self._sequence, 0)
        self._socket.send(header + body)
        while True:
            for answer_kind, sequence, answer in self._receive():
                if sequence != self._sequence:
                    continue
                if answer_kind == _DONE:
                    return
                if answer_kind == _ERROR:
                    number = -struct.unpack_from("=i", answer)[0]
                    if number:
                        raise OSError(number, os.strerror(number))
                    return
                yield answer
                if not dump:
                    return

    def _send_batch(self, batch: Sequence[Message], acknowledged: int | None = None) -> None:
        acknowledged = len(batch) - 1 if acknowledged is None else acknowledged
        first = self._sequence + 1
        parts = []
        for place, message in enumerate(batch):
            self._sequence += 1
            flags = _REQUEST | message.flags | (_ACK if place == acknowledged else 0)
            parts += [_HEADER.pack(16 + len(message.body), message.kind, flags, self._sequence, 0), message.body]
        self._socket.send(b"".join(parts))
        refused = []
        waiting = True
        while waiting:
            for kind, sequence, answer in self._receive():
                if kind != _ERROR or not first <= sequence <= self._sequence:
                    continue
                number = -struct.unpack_from("=i", answer)[0]
                if number:
                    refused.append(f"{batch[sequence - first].purpose}: {_refusal(number, answer)}")
                # A transaction is refused as a whole: then the acknowledged message is an error like the others.
                waiting = waiting and sequence != first + acknowledged
        if refused:
            raise LabBuildError("the kernel refused " + "; ".join(refused))

    def _receive(self) -> Iterator[tuple[int, int, bytes]]:
        data = self._socket.recv(_RECEIVE_OCTETS)
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, _flags, sequence, _port = _HEADER.unpack_from(data, offset)
            yield kind, sequence, data[offset + _HEADER.size : offset + length]
            offset += (length + 3) & ~3


def netfilter_socket(netns_fd: int) -> Netlink:
    """Return a socket that speaks to nf_tables in the network namespace behind `netns_fd`."""
    with entered_network(netns_fd):
        return Netlink(_NETLINK_NETFILTER)


def new_veth(end1: VethEnd, end2: VethEnd, mtu_octets: int) -> Message:
    """Create a link with each end in its namespace from the start; both ends are down."""
    peer = ifinfmsg()
    peer["index"] = end2.index
    peer["attrs"] = _link_attributes(end2, mtu_octets)
    info = {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", peer)]})]}
    message = ifinfmsg()
    message["index"] = end1.index
    message["attrs"] = [*_link_attributes(end1, mtu_octets), ("IFLA_LINKINFO", info)]
    return Message(_NEWLINK, _CREATE | _EXCL, _encode(message), f"link {end1.name} - {end2.name}")


def set_up(index: int, name: str) -> Message:
    message = ifinfmsg()
    message["index"] = index
    message["flags"] = message["change"] = _IFF_UP
    return Message(_NEWLINK, 0, _encode(message), f"setting {name} up")


def new_address(index: int, name: str, text: str) -> Message:
    address = ip_interface(text)
    message = ifaddrmsg()
    message["family"] = _FAMILIES[address.version]
    message["prefixlen"] = address.network.prefixlen
    message["index"] = index
    message["attrs"] = [("IFA_LOCAL", str(address.ip)), ("IFA_ADDRESS", str(address.ip))]
    if address.version == 4 and address.network.prefixlen < 31:
        message["attrs"].append(("IFA_BROADCAST", str(address.network.broadcast_address)))
    return Message(_NEWADDR, _CREATE | _EXCL, _encode(message), f"address {text} of {name}")


def new_route(index: int, name: str, destination: str, gateway: str | None) -> Message:
    network = ip_network(destination)
    message = rtmsg()
    message["family"] = _FAMILIES[network.version]
    message["dst_len"] = network.prefixlen
    message["table"] = _TABLE_MAIN
    message["proto"] = _PROTO_STATIC
    message["scope"] = 0 if gateway else _SCOPE_LINK
    message["type"] = _UNICAST
    message["attrs"] = [("RTA_OIF", index)]
    if network.prefixlen:
        message["attrs"].append(("RTA_DST", str(network.network_address)))
    if gateway:
        message["attrs"].append(("RTA_GATEWAY", gateway))
    return Message(_NEWROUTE, _CREATE | _EXCL, _encode(message), f"route {destination} via {gateway or name}")


def new_table(name: str) -> Message:
    return Message(_NFT_NEWTABLE, _CREATE, _encode(_nft(nft_table_msg, NFTA_TABLE_NAME=name)), f"table {name}")


def new_chain(table: str, chain: Chain) -> Message:
    hook = {"attrs": [("NFTA_HOOK_HOOKNUM", chain.hook), ("NFTA_HOOK_PRIORITY", chain.priority)]}
    message = _nft(
        nft_chain_msg,
        NFTA_CHAIN_TABLE=table,
        NFTA_CHAIN_NAME=chain.name,
        NFTA_CHAIN_HOOK=hook,
        NFTA_CHAIN_TYPE=chain.kind,
    )
    return Message(_NFT_NEWCHAIN, _CREATE, _encode(message), f"chain {chain.name}")


def new_rule(table: str, chain: Chain, expressions: Sequence[Expression]) -> Message:
    written = [
        {"attrs": [("NFTA_EXPR_NAME", name), ("NFTA_EXPR_DATA", {"attrs": _nested(attributes)})]}
        for name, attributes in expressions
    ]
    message = _nft(nft_rule_msg, NFTA_RULE_TABLE=table, NFTA_RULE_CHAIN=chain.name, NFTA_RULE_EXPRESSIONS=written)
    return Message(_NFT_NEWRULE, _CREATE | 0x800, _encode(message), f"rule of {chain.name}")  # appended


def links(netlink: Netlink) -> Iterator[dict[str, Any]]:
    """Yield each interface: {index, name, state, mtu, mac}."""
    for body in netlink.ask(_GETLINK, ifinfmsg(), dump=True):
        yield _link(body)


def has_carrier(netlink: Netlink, index: int) -> bool:
    """Whether an interface can send. Newer kernels bring the answer up to date before they give it."""
    message = ifinfmsg()
    message["index"] = index
    body = next(iter(netlink.ask(_GETLINK, message, dump=False)))
    # Without pyroute2's decoder, which takes a third of a millisecond for a link.
    return _attribute(body, _IFINFO_OCTETS, _OPERSTATE) == bytes([_OPERSTATE_UP])


def addresses(netlink: Netlink) -> Iterator[dict[str, Any]]:
    """Yield each address: {index, address, usable}; usable is false while duplicates are being looked for."""
    for body in netlink.ask(_GETADDR, ifaddrmsg(), dump=True):
        message = _decode(ifaddrmsg, body)
        text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        usable = not message["flags"] & (_TENTATIVE | _DAD_FAILED)
        yield {"index": message["index"], "address": f"{text}/{message['prefixlen']}", "usable": usable}


def all_addresses_usable(netlink: Netlink) -> bool:
    """Whether no address of the namespace waits for duplicate address detection; as `addresses`, but fast."""
    # struct ifaddrmsg: family, prefix length, flags, …
    flags = [body[2] for body in netlink.ask(_GETADDR, ifaddrmsg(), dump=True)]
    return not any(flag & (_TENTATIVE | _DAD_FAILED) for flag in flags)


def routes(netlink: Netlink) -> Iterator[dict[str, Any]]:
    """Yield the unicast routes of the main table: {family, destination, gateway, index, metric, static}."""
    for message in _all_routes(netlink):
        version = _VERSIONS.get(message["family"])
        table = message.get_attr("RTA_TABLE") or message["table"]
        if version is None or table != _TABLE_MAIN or message["type"] != _UNICAST:
            continue
        anywhere = "0.0.0.0" if version == 4 else "::"  # noqa: S104 - a destination, nothing is bound
        yield {
            "family": version,
            "destination": f"{message.get_attr('RTA_DST') or anywhere}/{message['dst_len']}",
            "gateway": message.get_attr("RTA_GATEWAY"),
            "index": message.get_attr("RTA_OIF"),
            "metric": message.get_attr("RTA_PRIORITY") or 0,
            "static": message["proto"] == _PROTO_STATIC,
        }


def _all_routes(netlink: Netlink) -> Iterator[Any]:
    for family in _FAMILIES.values():
        question = rtmsg()
        question["family"] = family
        for body in netlink.ask(_GETROUTE, question, dump=True):
            yield _decode(rtmsg, body)


def lookup(netlink: Netlink, text: str) -> dict[str, Any]:
    """Return which way the kernel would send to an address: {index, gateway, source}. Errors: OSError if none."""
    address = ip_interface(text)
    message = rtmsg()
    message["family"] = _FAMILIES[address.version]
    message["dst_len"] = address.max_prefixlen
    message["attrs"] = [("RTA_DST", str(address.ip))]
    answer = _decode(rtmsg, next(iter(netlink.ask(_GETROUTE, message, dump=False))))
    return {
        "index": answer.get_attr("RTA_OIF"),
        "gateway": answer.get_attr("RTA_GATEWAY"),
        "source": answer.get_attr("RTA_PREFSRC"),
    }


def _link_attributes(end: VethEnd, mtu_octets: int) -> list[tuple[str, Any]]:
    return [
        ("IFLA_IFNAME", end.name),
        ("IFLA_NET_NS_FD", end.netns_fd),
        ("IFLA_MTU", mtu_octets),
        ("IFLA_ADDRESS", end.mac),
    ]


def _attribute(body: bytes, offset: int, wanted: int) -> bytes | None:
    """Return the value of the first attribute of kind `wanted` from `offset` on."""
    while offset + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, offset)
        if kind == wanted:
            return body[offset + 4 : offset + length]
        offset += max(4, (length + 3) & ~3)
    return None


def _link(body: bytes) -> dict[str, Any]:
    message = _decode(ifinfmsg, body)
    return {
        "index": message["index"],
        "name": message.get_attr("IFLA_IFNAME"),
        "state": str(message.get_attr("IFLA_OPERSTATE") or "unknown").lower(),
        "up": bool(message["flags"] & _IFF_UP),
        "mtu": message.get_attr("IFLA_MTU"),
        "mac": message.get_attr("IFLA_ADDRESS"),
    }


def _nft(kind: Any, **attributes: Any) -> Any:
    message = kind()
    message["nfgen_family"] = 1  # NFPROTO_INET: one table for both IP versions
    message["attrs"] = list(attributes.items())
    return message


def _nested(attributes: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    return [(name, {"attrs": _nested(value)} if isinstance(value, tuple) else value) for name, value in attributes]


def _encode(message: Any) -> bytes:
    message.encode()
    return bytes(message.data)[_HEADER.size :]


def _decode(kind: Any, body: bytes) -> Any:
    message = kind(_HEADER.pack(_HEADER.size + len(body), 0, 0, 0, 0) + body)
    message.decode()
    return message


def _refusal(number: int, answer: bytes) -> str:
    """Return the kernel's own words where it has any, else the error's."""
    text = _attribute(answer, 4 + _HEADER.size, _ERROR_TEXT)
    if text is not None:
        return text.rstrip(b"\0").decode(errors="replace")
    return os.strerror(number)

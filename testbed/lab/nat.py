"""What a node does to packets that it forwards: translate their source, refuse them; as nf_tables expressions.

Pure: a rule is a list of expressions, each (name, attributes), in nf_tables' own terms; `netlink` encodes them. One
table `testbed` of the family inet holds both IP versions:

    chain postrouting (nat)   saddr in a tunnel's prefix, leaving by a link:  masquerade
    chain forward (filter)    coming in by an outer link, daddr in a protected prefix:  reject, "prohibited"

Refusing with an answer, not by silence, so that a client learns at once that there is no way.

Sources: nft(8); kernel include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from testbed.lab.model import NodePlan

TABLE = "testbed"
Expression = tuple[str, tuple[tuple[str, Any], ...]]

_REGISTER = 1
_META_IIFNAME, _META_OIFNAME, _META_NFPROTO = 6, 7, 15
_NFPROTO = {4: 2, 6: 10}
_NETWORK_HEADER = 1
_SOURCE_OFFSET = {4: 12, 6: 8}
_DESTINATION_OFFSET = {4: 16, 6: 24}
_EQUAL = 0
_NAME_OCTETS = 16
_ICMPX_UNREACHABLE, _ADMIN_PROHIBITED = 2, 3


@dataclass(frozen=True, slots=True)
class Chain:
    name: str
    kind: str
    hook: int
    priority: int


POSTROUTING = Chain("postrouting", "nat", 4, 100)
FORWARD = Chain("forward", "filter", 2, 0)


def node_rules(node: NodePlan) -> Iterator[tuple[Chain, list[Expression]]]:
    """Yield every rule of `node` with its chain, in order."""
    if node.nat:
        for interface in node.nat.interfaces:
            for prefix in node.nat.prefixes:
                match = [*_interface_is(_META_OIFNAME, interface), *_address_in(prefix, _SOURCE_OFFSET)]
                yield POSTROUTING, [*match, ("masq", ())]
    if node.protects:
        refuse = ("reject", (("NFTA_REJECT_TYPE", _ICMPX_UNREACHABLE), ("NFTA_REJECT_ICMP_CODE", _ADMIN_PROHIBITED)))
        for interface in node.protects.refused_from:
            for prefix in node.protects.prefixes:
                match = [*_interface_is(_META_IIFNAME, interface), *_address_in(prefix, _DESTINATION_OFFSET)]
                yield FORWARD, [*match, refuse]


def _interface_is(key: int, name: str) -> list[Expression]:
    return [_load_meta(key), _equals(name.encode().ljust(_NAME_OCTETS, b"\0"))]


def _address_in(prefix: str, offsets: dict[int, int]) -> list[Expression]:
    network = ip_network(prefix)
    octets = network.max_prefixlen // 8
    load: Expression = (
        "payload",
        (
            ("NFTA_PAYLOAD_DREG", _REGISTER),
            ("NFTA_PAYLOAD_BASE", _NETWORK_HEADER),
            ("NFTA_PAYLOAD_OFFSET", offsets[network.version]),
            ("NFTA_PAYLOAD_LEN", octets),
        ),
    )
    mask: Expression = (
        "bitwise",
        (
            ("NFTA_BITWISE_SREG", _REGISTER),
            ("NFTA_BITWISE_DREG", _REGISTER),
            ("NFTA_BITWISE_LEN", octets),
            ("NFTA_BITWISE_MASK", (("NFTA_DATA_VALUE", network.netmask.packed),)),
            ("NFTA_BITWISE_XOR", (("NFTA_DATA_VALUE", bytes(octets)),)),
        ),
    )
    family = [_load_meta(_META_NFPROTO), _equals(bytes([_NFPROTO[network.version]]))]
    return [*family, load, mask, _equals(network.network_address.packed)]


def _load_meta(key: int) -> Expression:
    return "meta", (("NFTA_META_KEY", key), ("NFTA_META_DREG", _REGISTER))


def _equals(value: bytes) -> Expression:
    return (
        "cmp",
        (("NFTA_CMP_SREG", _REGISTER), ("NFTA_CMP_OP", _EQUAL), ("NFTA_CMP_DATA", (("NFTA_DATA_VALUE", value),))),
    )

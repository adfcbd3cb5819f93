"""What a node does to packets that it forwards: translate their source, refuse them; as nf_tables expressions.

Pure: a rule is a list of expressions, each (name, attributes), in nf_tables' own terms; `netlink` sends them. One
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

from testbed.lab.attributes import Attributes, network32
from testbed.lab.model import NodePlan

TABLE = "testbed"
Expression = tuple[str, Attributes]

_REGISTER = 1
_META_IIFNAME, _META_OIFNAME, _META_NFPROTO = 6, 7, 15
_NFPROTO = {4: 2, 6: 10}
_NETWORK_HEADER = 1
_SOURCE_OFFSET = {4: 12, 6: 8}
_DESTINATION_OFFSET = {4: 16, 6: 24}
_EQUAL = 0
_NAME_OCTETS = 16
_ICMPX_UNREACHABLE, _ADMIN_PROHIBITED = 2, 3
_DATA_VALUE = 1  # attribute numbers from here on
_META_DREG, _META_KEY = 1, 2
_CMP_SREG, _CMP_OP, _CMP_DATA = 1, 2, 3
_PAYLOAD_DREG, _PAYLOAD_BASE, _PAYLOAD_OFFSET, _PAYLOAD_LEN = 1, 2, 3, 4
_BITWISE_SREG, _BITWISE_DREG, _BITWISE_LEN, _BITWISE_MASK, _BITWISE_XOR = 1, 2, 3, 4, 5
_REJECT_TYPE, _REJECT_CODE = 1, 2


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
        refuse = _expression("reject", {_REJECT_TYPE: _ICMPX_UNREACHABLE, _REJECT_CODE: bytes([_ADMIN_PROHIBITED])})
        for interface in node.protects.refused_from:
            for prefix in node.protects.prefixes:
                match = [*_interface_is(_META_IIFNAME, interface), *_address_in(prefix, _DESTINATION_OFFSET)]
                yield FORWARD, [*match, refuse]


def _interface_is(key: int, name: str) -> list[Expression]:
    return [_load_meta(key), _equals(name.encode().ljust(_NAME_OCTETS, b"\0"))]


def _address_in(prefix: str, offsets: dict[int, int]) -> list[Expression]:
    network = ip_network(prefix)
    octets = network.max_prefixlen // 8
    load = _expression(
        "payload",
        {
            _PAYLOAD_DREG: _REGISTER,
            _PAYLOAD_BASE: _NETWORK_HEADER,
            _PAYLOAD_OFFSET: offsets[network.version],
            _PAYLOAD_LEN: octets,
        },
    )
    mask = _expression(
        "bitwise",
        {
            _BITWISE_SREG: _REGISTER,
            _BITWISE_DREG: _REGISTER,
            _BITWISE_LEN: octets,
            _BITWISE_MASK: ((_DATA_VALUE, network.netmask.packed),),
            _BITWISE_XOR: ((_DATA_VALUE, bytes(octets)),),
        },
    )
    family = [_load_meta(_META_NFPROTO), _equals(bytes([_NFPROTO[network.version]]))]
    return [*family, load, mask, _equals(network.network_address.packed)]


def _load_meta(key: int) -> Expression:
    return _expression("meta", {_META_KEY: key, _META_DREG: _REGISTER})


def _equals(value: bytes) -> Expression:
    return _expression("cmp", {_CMP_SREG: _REGISTER, _CMP_OP: _EQUAL, _CMP_DATA: ((_DATA_VALUE, value),)})


def _expression(name: str, attributes: dict[int, int | bytes | Attributes]) -> Expression:
    """Numbers are of four octets, in the network's order."""
    return name, tuple(
        (kind, network32(value) if isinstance(value, int) else value) for kind, value in attributes.items()
    )

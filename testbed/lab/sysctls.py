"""The kernel settings that a node's behaviour depends on, so that none is left to the host.

A new network namespace copies many IPv4 settings, the congestion control and TCP's buffer sizes from the host's, so
that forwarding, redirects or path filtering would differ from machine to machine. Each is therefore written for every
node, in this order: `ip_forward` comes first because writing it resets other settings of its family.

Source: kernel Documentation/networking/ip-sysctl.rst; net/ipv4/devinet.c (devconf_inherit_init_net).
"""

from __future__ import annotations

from dataclasses import replace

from testbed.lab.model import LabPlan

FORWARDING = "net.ipv4.ip_forward"
CONGESTION_CONTROL = "net.ipv4.tcp_congestion_control"

_IPV4_EACH = {
    "accept_local": "0",
    "accept_redirects": "0",
    "accept_source_route": "0",
    "arp_announce": "0",
    "arp_filter": "0",
    "arp_ignore": "0",
    "disable_xfrm": "0",
    "log_martians": "0",
    "proxy_arp": "0",
    "route_localnet": "0",
    "rp_filter": "0",  # a tunnel's answers may come in by another interface than the question left by
    "secure_redirects": "0",
    "send_redirects": "0",
    "src_valid_mark": "0",
}
_IPV6_EACH = {
    "disable_ipv6": "0",
    "accept_dad": "0",  # addresses are usable at once; both "all" and the interface have to say so
    "dad_transmits": "0",
    "accept_ra": "0",
    "accept_redirects": "0",
    "autoconf": "0",
    "addr_gen_mode": "0",  # link-local addresses follow from the MAC address, as the plan says
    "keep_addr_on_down": "0",
    "use_tempaddr": "0",
}
_NO_ALL = {"dad_transmits", "addr_gen_mode"}  # "all" is not read for these, and writing it does other things
_TCP = {
    CONGESTION_CONTROL: "cubic",
    "net.ipv4.tcp_rmem": "4096\t131072\t6291456",
    "net.ipv4.tcp_wmem": "4096\t16384\t4194304",
}


def node_sysctls(forwards: bool) -> tuple[tuple[str, str], ...]:
    """Return every setting of a node, as (dotted name, value), in the order in which they are to be written."""
    forwarding = "1" if forwards else "0"
    settings = [(FORWARDING, forwarding)]
    settings += [(f"net.ipv6.conf.{scope}.forwarding", forwarding) for scope in ("all", "default")]
    for family, values in (("ipv4", _IPV4_EACH), ("ipv6", _IPV6_EACH)):
        for key, value in values.items():
            settings += [
                (f"net.{family}.conf.{scope}.{key}", value)
                for scope in ("all", "default")
                if scope == "default" or key not in _NO_ALL
            ]
    return (*settings, *_TCP.items())


def with_congestion_control(plan: LabPlan, name: str) -> LabPlan:
    """Return `plan` with TCP's congestion control `name` in every node."""
    nodes = tuple(
        replace(node, sysctls=tuple((key, name if key == CONGESTION_CONTROL else value) for key, value in node.sysctls))
        for node in plan.nodes
    )
    return replace(plan, nodes=nodes)

"""Which of the client's addresses is which: the one on its own network, the ISP's, the one inside the tunnel.

From the result alone: the addresses that the client's kernel names for each interface, and which is the tunnel's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_address, ip_network

from testbed.result import VariantResult

HOMES = ("on the LAN", "from the ISP", "in the tunnel")  # words behind `your address`, in the order of reports
_TUNNEL_DEVICES = ("tun", "tap", "wg", "utun", "ppp", "ovpn")
# Not `is_private` of ipaddress: to it the addresses of documentation, which a lab's Internet is made of, are private.
_PRIVATE = tuple(ip_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"))


def client_addresses(variant: VariantResult) -> frozenset[str]:
    """The client's own addresses, those of its tunnel device among them: what comes from them goes up."""
    return frozenset(address for row in variant.interfaces for address in _addresses(row))


def addresses_in_tunnel(variant: VariantResult) -> frozenset[str]:
    """The client's addresses on the tunnel's device."""
    rows = [row for row in variant.interfaces if is_tunnel_interface(variant, str(row.get("name", "")))]
    return frozenset(address for row in rows for address in _addresses(row))


def is_tunnel_interface(variant: VariantResult, interface: str | None) -> bool:
    """Whether the kernel's choice of interface is the tunnel's device in this variant."""
    if variant.tunnel is None or not interface:
        return False
    named = variant.tunnel.get("interface") or variant.tunnel.get("device")
    return interface == named if isinstance(named, str) else interface.startswith(_TUNNEL_DEVICES)


def is_private(address: str) -> bool:
    """Whether an address has a meaning only inside a private network. Total: what is no address is not private."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in _PRIVATE if network.version == parsed.version)


def home_of(address: str, inside: frozenset[str]) -> str:
    """Where an address of the client's is at home, one of `HOMES`."""
    lan, isp, tunnel = HOMES
    if address in inside:
        return tunnel
    return lan if is_private(address) else isp


def families_of(addresses: Iterable[str]) -> str:
    """`(IPv4)`, `(IPv6)`, or nothing where both are among them."""
    found = {"(IPv6)" if ":" in address else "(IPv4)" for address in addresses}
    return found.pop() if len(found) == 1 else ""


def _addresses(interface: dict[str, object]) -> Iterator[str]:
    listed = interface.get("addresses") or ()
    return (str(address).partition("/")[0] for address in (listed if isinstance(listed, (list, tuple)) else ()))

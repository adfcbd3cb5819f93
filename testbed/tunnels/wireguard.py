"""WireGuard at one end of a tunnel: keys, and a script that does with wireguard-go and wg(8) what wg-quick(8) does.

Always wireguard-go, the implementation in user space: a run then is the same whether or not the kernel has WireGuard.
A kernel with it speaks the same protocol, faster.

The client keeps the tunnel alive, so that the handshake takes place at once: an end says `tunnel up` when it has
happened at the client, when the device is configured at the server. SIGTERM ends an end in good order.

Sources: wg(8), wg-quick(8), the WireGuard paper; wireguard-go's README.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address

from testbed.tunnels.ends import End
from testbed.tunnels.openvpn_config import INNER_V4, INNER_V6, RESOLVER_V4, RESOLVER_V6

Prefix = IPv4Network | IPv6Network

PORT = 51820
MTU_OCTETS = 1420  # what wg-quick takes for a path of 1500: 60 octets of headers and tag over IPv4, 80 over IPv6
SERVER_DEVICE = "wgs0"  # both ends' control sockets lie in one directory, so their devices need different names
KEEPALIVE_SECONDS = 25
READY = "tunnel up"
PACKAGES = {"wireguard-go": "wireguard-go", "wg": "wireguard-tools", "ip": "iproute2"}


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An X25519 key pair in the base64 that wg(8) reads."""

    private: str = field(repr=False)
    public: str


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end. Shape: `endpoint` is an address, empty if the peer calls; `allowed` is what it may be sent."""

    public: str
    allowed: tuple[str, ...]
    endpoint: str = ""


@dataclass(frozen=True, slots=True)
class Interface:
    """An end's own side. Shape: `routes` and `resolvers` are set while it is up, `around` is the way to the endpoint
    beside them: (gateway, interface)."""

    device: str
    private: str = field(repr=False)
    addresses: tuple[str, ...]
    routes: tuple[str, ...] = ()
    resolvers: tuple[str, ...] = ()
    around: tuple[str | None, str] | None = None


def make_key_pair() -> KeyPair:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    private = X25519PrivateKey.generate()
    octets = private.private_bytes_raw(), private.public_key().public_bytes_raw()
    return KeyPair(base64.b64encode(octets[0]).decode(), base64.b64encode(octets[1]).decode())


def server_end(own: KeyPair, client: KeyPair) -> End:
    """The server, which lets the client have its own addresses and no others."""
    interface = Interface(SERVER_DEVICE, own.private, _inner(1))
    return _end(interface, Peer(client.public, (f"{INNER_V4[2]}/32", f"{INNER_V6[2]}/128")))


def client_end(
    own: KeyPair,
    server: KeyPair,
    *,
    device: str,
    endpoint: str,
    prefixes: Sequence[Prefix],
    dns_in_tunnel: bool,
    around: tuple[str | None, str],
) -> End:
    """The client, which sends what goes to `prefixes` into the tunnel, and to its server `around` it."""
    inner: tuple[Prefix, ...] = (INNER_V4, INNER_V6)
    interface = Interface(
        device,
        own.private,
        _inner(2),
        routes=tuple(_routes(prefixes)),
        resolvers=(RESOLVER_V4, RESOLVER_V6) if dns_in_tunnel else (),
        around=around if any(_holds(prefix, endpoint) for prefix in prefixes) else None,
    )
    allowed = dict.fromkeys(str(prefix) for prefix in (*inner, *prefixes))
    return _end(interface, Peer(server.public, tuple(allowed), endpoint))


def _inner(host: int) -> tuple[str, str]:
    return f"{INNER_V4[host]}/{INNER_V4.prefixlen}", f"{INNER_V6[host]}/{INNER_V6.prefixlen}"


def _routes(prefixes: Iterable[Prefix]) -> Iterable[str]:
    """A default route as its two halves, which win over the one that there is and leave it in place."""
    for prefix in prefixes:
        halves = prefix.subnets() if prefix.prefixlen == 0 else [prefix]
        yield from (str(half) for half in halves)


def _holds(prefix: Prefix, address: str) -> bool:
    target = ip_address(address)
    return prefix.version == target.version and target in prefix


def _end(interface: Interface, peer: Peer) -> End:
    script = _script(interface, peer)
    return End(("sh", "{dir}/start.sh"), {"start.sh": script, "private": interface.private + "\n"})


def _script(interface: Interface, peer: Peer) -> str:
    device, allowed = interface.device, ",".join(peer.allowed)
    endpoint = f"[{peer.endpoint}]" if ":" in peer.endpoint else peer.endpoint
    calls = f" endpoint {endpoint}:{PORT} persistent-keepalive {KEEPALIVE_SECONDS}" if endpoint else ""
    listens = "" if endpoint else f" listen-port {PORT}"
    up = [
        f"wg set {device}{listens} private-key {{dir}}/private peer {peer.public} allowed-ips {allowed}{calls}",
        f"ip link set {device} mtu {MTU_OCTETS}",
        *(f"ip address add {address} dev {device}{_no_dad(address)}" for address in interface.addresses),
        f"ip link set {device} up",
        *_way_around(interface, peer.endpoint),
        *(f"ip route add {route} dev {device}" for route in interface.routes),
        *_set_resolvers(interface.resolvers),
    ]
    if endpoint:
        up.append(f"until wg show {device} latest-handshakes | grep -qv '\\t0$'; do sleep 0.01; done")
    down = [*_way_back(interface, peer.endpoint), *_restore_resolvers(interface.resolvers)]
    return _SCRIPT.format(device=device, up="\n".join(up), down="\n".join(down) or ":", ready=READY)


_SCRIPT = """\
#!/bin/sh
set -e
down() {{
kill $vpn || :
{down}
}}
wireguard-go -f {device} &
vpn=$!
trap 'trap : TERM; down; wait $vpn; exit $?' TERM
until wg show {device} >/dev/null 2>&1; do kill -0 $vpn; sleep 0.005; done
{up}
echo '{ready}'
wait $vpn
"""


def _no_dad(address: str) -> str:
    return " nodad" if ":" in address else ""


def _way_around(interface: Interface, endpoint: str) -> Iterable[str]:
    if interface.around is not None:
        gateway, way = interface.around
        via = f" via {gateway}" if gateway else ""
        yield f"ip route replace {endpoint}{via} dev {way}"


def _way_back(interface: Interface, endpoint: str) -> Iterable[str]:
    if interface.around is not None:
        yield f"ip route del {endpoint} || :"


def _set_resolvers(resolvers: Sequence[str]) -> Iterable[str]:
    """In place: the node's resolv.conf is a bind mount. One that is saved already is left by an end that was killed."""
    if resolvers:
        lines = "".join(f"nameserver {resolver}\\n" for resolver in resolvers)
        yield "[ -e {dir}/resolv.conf ] || cp /etc/resolv.conf {dir}/resolv.conf"
        yield f"printf '{lines}' > /etc/resolv.conf"


def _restore_resolvers(resolvers: Sequence[str]) -> Iterable[str]:
    if resolvers:
        yield "cat {dir}/resolv.conf > /etc/resolv.conf; rm {dir}/resolv.conf"

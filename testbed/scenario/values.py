"""What a scenario says, as frozen values: the output of `load_scenario` and the input of a run.

Everything is resolved: variants are merged, defaults are filled in, addresses and prefixes are in canonical text, and
every value has been checked. The values know nothing of YAML, files or pydantic.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Literal

from testbed.scenario.bounds import Bound, OneOf
from testbed.scenario.lesson_values import Step

Relation = Literal[
    "sees",
    "hides",
    "leaks",
    "first_leak_after",
    "tunnel_detected_at_packet",
    "volume",
    "packets",
    "overhead",
    "client-address",
]
MEASURES: tuple[Relation, ...] = (
    "leaks",
    "first_leak_after",
    "tunnel_detected_at_packet",
    "volume",
    "packets",
    "overhead",
)
ALL_ROUTES: Literal["all"] = "all"
TUNNEL_ACTION = "tunnel"  # the action id of what the tunnel itself shows: its use, its server's address
SESSION_ACTION = "session"  # the action id of what the whole variant shows: volume and timing
SERVER_OBSERVER = "server:"  # an observer "server:<site>" is what that site's own log recorded
CLIENT_TUN = "client-tun"  # the control tap on the client's tun device; no tap of a scenario may take the name


@dataclass(frozen=True, slots=True)
class TopologyRef:
    """Which topology to build: a name in `topologies/` or `file.py:Class` (path resolved), and its parameters."""

    name: str
    params: dict[str, str | int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """What a scenario changes about one link, in Mininet's words. None leaves the topology's own value.

    Units: `bw` in Mbit/s; `delay` and `jitter` in seconds; `loss`, `duplicate` and `reorder` in percent.
    """

    a: str
    b: str
    bw: float | None = None
    delay: float | None = None
    jitter: float | None = None
    loss: float | None = None
    duplicate: float | None = None
    reorder: float | None = None
    mtu_octets: int | None = None
    max_queue_packets: int | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """One name of the lab's Internet, the addresses it resolves to and what is served there."""

    name: str
    node: str
    addresses: tuple[str, ...]
    http: bool = False
    https: bool = False
    http3: bool = False
    private: bool = False  # only the resolver behind the VPN knows the name
    dns: bool = False  # a resolver for everybody: over UDP and TCP, over TLS, over HTTPS
    dot: bool = False
    doh: bool = False

    @property
    def resolves(self) -> bool:
        return self.dns or self.dot or self.doh

    @property
    def served(self) -> bool:
        """Whether anything is served there, so that the site keeps a log."""
        return self.http or self.https or self.http3 or self.resolves

    @property
    def ipv4(self) -> tuple[str, ...]:
        return tuple(address for address in self.addresses if ":" not in address)

    @property
    def ipv6(self) -> tuple[str, ...]:
        return tuple(address for address in self.addresses if ":" in address)


@dataclass(frozen=True, slots=True)
class PerEnd:
    """Something that each end of a tunnel has: lines of configuration, words of a command line, what it says."""

    client: tuple[str, ...] = ()
    server: tuple[str, ...] = ()

    def of(self, role: str) -> tuple[str, ...]:
        return self.client if role == "client" else self.server


@dataclass(frozen=True, slots=True)
class Command:
    """A VPN of the user's own, as command lines.

    Shape: `files` are (end, name, text); `ready` has one text per end or none; `address` answers inside the tunnel;
        `folder` is the scenario file's, where the programs run
    """

    argv: PerEnd
    files: tuple[tuple[str, str, str], ...] = field(default=(), repr=False)  # there may be keys in them
    ready: PerEnd = PerEnd()
    address: str | None = None
    folder: str = "/"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens while the client works.

    Shape: `verb` is kill, start, link, lease or run; `target` the end, the link, the node or the command line it
        concerns. A link is as planned but for `link`, or carries nothing if it is `down`; where `sender` names one of
        its ends, only what that end sends is concerned. A lease brings `routes`, each a prefix and its router, and
        `resolvers`.
    Units: `at` in seconds after the start of the workload
    """

    at: float
    verb: str
    target: str
    signal: str = "KILL"
    node: str = "client"
    argv: tuple[str, ...] = ()
    link: LinkOptions | None = None
    down: bool = False
    sender: str = ""
    routes: tuple[tuple[str, str], ...] = ()
    resolvers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TunnelSpec:
    """The tunnel of a variant: who runs at each end and how they are set up.

    Shape: `routes` is "all" or the prefixes that go through the tunnel; an empty tuple sets no route at all.
    """

    client: str  # vpn | openvpn | wireguard | command
    server: str
    mode: str  # tls | static-key | wireguard | command
    transport: str  # udp | tcp; of a command empty, as cipher and control: nobody knows
    cipher: str
    control: str  # none | tls-auth | tls-crypt | tls-crypt-v2
    routes: Literal["all"] | tuple[str, ...]
    dns: str  # tunnel | isp
    device: str = "tun0"  # the client's
    options: PerEnd = PerEnd()  # further lines of OpenVPN's configuration
    command: Command | None = None

    @property
    def prefixes(self) -> tuple[IPv4Network | IPv6Network, ...]:
        routes = ("0.0.0.0/0", "::/0") if isinstance(self.routes, str) else self.routes
        return tuple(ip_network(route) for route in routes)

    def carries(self, address: str) -> bool:
        """Whether the tunnel is meant to carry traffic to `address`."""
        target = ip_address(address)
        return any(target in prefix for prefix in self.prefixes if prefix.version == target.version)


@dataclass(frozen=True, slots=True)
class Lookup:
    """How the client asks for names.

    Shape: `server` is a name, an address, or both as `address#name`; None is the resolver that the client's node has.
    """

    over: str = "udp"  # udp | tcp | dot | doh
    server: str | None = None


@dataclass(frozen=True, slots=True)
class Action:
    """One thing the client does.

    Shape: `id` is the 1-based place in the workload and the verb, such as `2-http`. `target` is the host name, the URL
        or the command line as written. Options that do not belong to the verb keep their defaults.
    Units: `timeout` and `interval` in seconds.
    """

    id: str
    verb: str  # dns | http | https | ping | run
    target: str
    site: str | None = None  # name of the scenario's site it concerns, if it is one
    family: Literal["any", "ipv4", "ipv6"] = "any"  # http, https, ping: the address family to use
    types: tuple[str, ...] = ()  # dns: record types asked for
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    body: str | None = None
    argv: tuple[str, ...] = ()
    count: int = 1  # ping: echo requests
    interval: float = 0.2  # ping: between two of them
    timeout: float = 5.0
    version: str = "1.1"  # http, https: 1.1 | 2 | 3
    over: str = "udp"  # dns, http, https, ping: how names are asked for, see Lookup
    server: str | None = None
    at: float | None = None  # when it starts, in seconds after the start of the workload; None: after the one before it


@dataclass(frozen=True, slots=True)
class TapSpec:
    """Where somebody listens. `interface` None is the node's end of its link towards the client.

    Units: `ring_octets` and `snap_octets` None leave the tap's own defaults.
    """

    name: str
    node: str
    interface: str | None = None
    ring_octets: int | None = None
    snap_octets: int | None = None


@dataclass(frozen=True, slots=True)
class Selector:
    """Which facts an expectation speaks of: those of a kind, narrowed by site, action or value."""

    kind: str
    site: str | None = None
    action: str | None = None
    value: str | None = None
    count: Bound | None = None  # how many different facts it must be

    def __str__(self) -> str:
        narrowed = [
            f"{key} {value}" for key in ("site", "action", "value") if (value := getattr(self, key)) is not None
        ]
        counted = [f"count {self.count}"] if self.count is not None else []
        return f"{self.kind} ({', '.join(narrowed + counted)})" if narrowed or counted else self.kind


@dataclass(frozen=True, slots=True)
class Expectation:
    """One claim about what an observer learned in a variant.

    Shape: `sees` (at least one of) and `hides` (every one of) go with a `Selector`; `client-address` with `OneOf`; all
        the others, which are measured, with a `Bound`
    """

    variant: str
    observer: str  # a tap's name, or "server:<site>"
    relation: Relation
    selector: Selector | Bound | OneOf
    line: int = 0  # where the scenario file says so; 0 if it did not come from a file


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run the workload: everything the lab needs, with the overrides of the variant merged in."""

    name: str
    title: str
    topology: TopologyRef
    sites: dict[str, Site]
    tunnel: TunnelSpec | None
    workload: tuple[Action, ...]
    taps: tuple[TapSpec, ...]
    links: tuple[LinkOptions, ...] = ()
    events: tuple[Event, ...] = ()
    dns: Lookup = Lookup()


@dataclass(frozen=True, slots=True)
class Scenario:
    """A checked scenario file: its variants, resolved and in order, and what is expected of them."""

    name: str  # the file's name without its ending
    title: str
    description: str
    file: str
    seed: int
    variants: dict[str, Variant]
    expectations: tuple[Expectation, ...]
    lesson: tuple[Step, ...] = ()

    def resolved_yaml(self) -> str:
        """The scenario as it runs, as YAML text that loads to the same variants."""
        from testbed.scenario.dump import dump_scenario  # YAML only for who writes it

        return dump_scenario(self)

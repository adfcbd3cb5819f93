"""What the services process is asked to serve: frozen values, and the JSON they travel in.

The conductor writes one JSON object to the process's stdin and closes it; the keys are the field names below:

    {"nodes": {"web": 5, "isp": 6},                      inherited descriptors of the nodes' network namespaces
     "sites": [{"name": "www.example.com", "node": "web", "addresses": ["93.184.216.34", "2001:db8:4::34"],
                "http": true, "https": true, "http3": true,
                "dns": true, "dot": true, "doh": true,          a resolver: these three, and where it asks
                "forwards": {".": ["93.184.216.53"]}, "freebind": false}],
     "authorities": [{"node": "web", "addresses": ["93.184.216.53"],
                      "zones": [{"origin": "example.com",
                                 "records": [{"name": "www.example.com", "type": "A", "value": "93.184.216.34",
                                              "ttl": 60}]}]}],
     "resolvers": [{"node": "isp", "addresses": ["192.168.0.1"], "forwards": {".": ["93.184.216.53"]},
                    "freebind": false, "cache": false}],
     "log_directory": "/path" or an inherited descriptor,
     "ca_certificate": "/path/ca.pem"}                   written before the ready line; the key never leaves the process

The process answers with one JSON line on stdout, one of

    {"ready": true, "sockets": 14, "ca_certificate": "/path/ca.pem"}
    {"ready": false, "error": "...", "node": "web", "address": "93.184.216.34", "port": 80, "transport": "tcp"}

(the last four keys only where a socket is at fault; exit code 1). It ends with exit code 0 on SIGTERM, and with its
parent. Logs: `<site>.jsonl`, one record per HTTP request (see `web_log`), and `dns-<node>.jsonl`, one per DNS query
(see `dns_server`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from ipaddress import ip_address
from typing import Any, TypeVar

NAME_OCTETS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")


class RequestError(ValueError):
    """The request is not what this module describes. The message begins with the key's path."""


@dataclass(frozen=True, slots=True)
class Site:
    """One web site, or resolver with a name of its own, or both.

    Shape: `name` is a host name in lower case; it also names the log file. `forwards` and `freebind` are those of
        `Resolver`.
    """

    name: str
    node: str
    addresses: tuple[str, ...]
    http: bool = True
    https: bool = True
    http3: bool = False
    dns: bool = False
    dot: bool = False
    doh: bool = False
    forwards: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    freebind: bool = False

    @property
    def resolves(self) -> bool:
        return self.dns or self.dot or self.doh


@dataclass(frozen=True, slots=True)
class Record:
    """One resource record in presentation form. Shape: `name` may begin with `*.`; a SOA value has seven parts."""

    name: str
    type: str  # A | AAAA | CNAME | HTTPS | NS | SOA | TXT
    value: str
    ttl: int = 60


@dataclass(frozen=True, slots=True)
class Zone:
    """Shape: `origin` "." is the root; a zone without a SOA record gets one."""

    origin: str
    records: tuple[Record, ...] = ()


@dataclass(frozen=True, slots=True)
class Authority:
    """An authoritative server: its addresses in its node and the zones it answers for."""

    node: str
    addresses: tuple[str, ...]
    zones: tuple[Zone, ...]


@dataclass(frozen=True, slots=True)
class Resolver:
    """A forwarding resolver.

    Shape: `forwards` maps a zone ("." for all the rest) to the addresses of the servers to ask, tried in order.
    `freebind` lets it listen on an address that the node does not have yet (the inside of a tunnel).
    """

    node: str
    addresses: tuple[str, ...]
    forwards: Mapping[str, tuple[str, ...]]
    freebind: bool = False
    cache: bool = False


@dataclass(frozen=True, slots=True)
class ServicesRequest:
    """Everything one services process serves."""

    nodes: Mapping[str, int]
    log_directory: str | int
    ca_certificate: str
    sites: tuple[Site, ...] = ()
    authorities: tuple[Authority, ...] = ()
    resolvers: tuple[Resolver, ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> ServicesRequest:
        """The request in `text`, checked. Errors: RequestError names the key at fault."""
        try:
            untrusted = json.loads(text)
        except ValueError as error:
            raise RequestError(f"request: not JSON: {error}") from None
        request = _parse_request(_Keys(untrusted, "request"))
        _check_nodes(request)
        return request


Parsed = TypeVar("Parsed")


@dataclass(slots=True)
class _Keys:
    """Takes the keys of one JSON object, each with its type, and refuses those nobody took."""

    untrusted: Any
    path: str
    taken: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        if not isinstance(self.untrusted, dict):
            raise RequestError(f"{self.path}: must be an object")

    def take(self, key: str, kinds: type | tuple[type, ...], default: Any = None) -> Any:
        self.taken.add(key)
        value = self.untrusted.get(key, default)
        wanted = kinds if isinstance(kinds, tuple) else (kinds,)
        if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
            raise RequestError(f"{self.path}.{key}: must be {' or '.join(kind.__name__ for kind in wanted)}")
        return value

    def name(self, key: str) -> str:
        value: str = self.take(key, str)
        if not value or not set(value) <= NAME_OCTETS or value.startswith(".") or len(value) > 253:
            raise RequestError(f"{self.path}.{key}: {value!r} is not a name in lower case")
        return value

    def addresses(self, key: str) -> tuple[str, ...]:
        return parse_addresses(self.take(key, list), f"{self.path}.{key}")

    def forwards(self, default: Mapping[str, Any] | None = None) -> dict[str, tuple[str, ...]]:
        servers = self.take("forwards", dict, default)
        return {zone: parse_addresses(value, f"{self.path}.forwards.{zone}") for zone, value in servers.items()}

    def items(self, key: str, parse: Callable[[_Keys], Parsed]) -> tuple[Parsed, ...]:
        values: Sequence[Any] = self.take(key, list, [])
        return tuple(self._item(parse, value, f"{key}[{number}]") for number, value in enumerate(values))

    def _item(self, parse: Callable[[_Keys], Parsed], value: Any, key: str) -> Parsed:
        keys = _Keys(value, f"{self.path}.{key}")
        parsed = parse(keys)
        keys.refuse_rest()
        return parsed

    def refuse_rest(self) -> None:
        for key in self.untrusted:
            if key not in self.taken:
                raise RequestError(f"{self.path}.{key}: unknown key")


def parse_addresses(untrusted: Sequence[Any], path: str) -> tuple[str, ...]:
    """Canonical text of each address. Errors: RequestError for what is no address, and for an empty list."""
    if not untrusted:
        raise RequestError(f"{path}: needs at least one address")
    try:
        return tuple(str(ip_address(address)) for address in untrusted)
    except ValueError as error:
        raise RequestError(f"{path}: {error}") from None


def _parse_request(keys: _Keys) -> ServicesRequest:
    nodes = keys.take("nodes", dict)
    for name, descriptor in nodes.items():
        if not isinstance(descriptor, int) or isinstance(descriptor, bool) or descriptor < 0:
            raise RequestError(f"request.nodes.{name}: must be a descriptor number")
    request = ServicesRequest(
        nodes=nodes,
        log_directory=keys.take("log_directory", (str, int)),
        ca_certificate=keys.take("ca_certificate", str),
        sites=keys.items("sites", _parse_site),
        authorities=keys.items("authorities", _parse_authority),
        resolvers=keys.items("resolvers", _parse_resolver),
    )
    keys.refuse_rest()
    return request


def _parse_site(keys: _Keys) -> Site:
    return Site(
        name=keys.name("name"),
        node=keys.take("node", str),
        addresses=keys.addresses("addresses"),
        http=keys.take("http", bool, True),
        https=keys.take("https", bool, True),
        http3=keys.take("http3", bool, False),
        dns=keys.take("dns", bool, False),
        dot=keys.take("dot", bool, False),
        doh=keys.take("doh", bool, False),
        forwards=keys.forwards(default={}),
        freebind=keys.take("freebind", bool, False),
    )


def _parse_authority(keys: _Keys) -> Authority:
    return Authority(keys.take("node", str), keys.addresses("addresses"), keys.items("zones", _parse_zone))


def _parse_zone(keys: _Keys) -> Zone:
    return Zone(keys.take("origin", str), keys.items("records", _parse_record))


def _parse_record(keys: _Keys) -> Record:
    return Record(keys.take("name", str), keys.take("type", str), keys.take("value", str), keys.take("ttl", int, 60))


def _parse_resolver(keys: _Keys) -> Resolver:
    return Resolver(
        node=keys.take("node", str),
        addresses=keys.addresses("addresses"),
        forwards=keys.forwards(),
        freebind=keys.take("freebind", bool, False),
        cache=keys.take("cache", bool, False),
    )


def _check_nodes(request: ServicesRequest) -> None:
    for key in ("sites", "authorities", "resolvers"):
        for number, serving in enumerate(getattr(request, key)):
            if serving.node not in request.nodes:
                raise RequestError(f"request.{key}[{number}].node: {serving.node!r} is not in request.nodes")

"""Pushed options: from the text of PUSH_REPLY messages to `PushedOptions`, and back into messages.

An option is words in the syntax of the configuration file; options are separated by commas. What a 2.6 client does
not know or may not be pushed is kept as `ignored`. What it knows but cannot read is told and left out, as it does: to
come again would bring the same reply. Only where the two ends would not understand each other's packets any more is it
the end of the connection. Pure.

Source: openvpn-protocol.md section 8.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
)

from vpn.push import (
    GATEWAY_WORDS,
    DnsServer,
    NamedRoute,
    PushedOptions,
    RedirectGateway,
    Route,
    is_address4,
    is_host_name,
)
from vpn.settings import Cipher, Compression, PullFilter, Topology
from vpn.wire.message import MAX_MESSAGE_OCTETS, PUSH_REPLY

_CONTINUES = "push-continuation 2"
_LAST = "push-continuation 1"
# route-nopull: everything that makes routes or changes the resolver
_NOPULL = frozenset({"route", "route-ipv6", "redirect-gateway", "redirect-private", "dhcp-option", "dns", "block-ipv6"})
_REDIRECT_FLAGS = frozenset({"def1", "local", "autolocal", "bypass-dhcp", "bypass-dns", "block-local", "ipv6", "!ipv4"})
MAX_OPTIONS = 4096
_SECRET = frozenset({"auth-token", "auth-token-user"})
_NEEDED = frozenset({"peer-id", "cipher", "key-derivation", "protocol-flags"})  # for each other's packets


class BadPush(ValueError):
    """A pushed option that cannot be used. The text quotes the option's name, not its value (it may be a token)."""


@dataclass(slots=True)
class PushCollector:
    """Gathers the options of one reply, which may come in several messages."""

    options: list[str] = field(repr=False)  # there may be a token among them
    is_complete: bool = False

    @classmethod
    def empty(cls) -> PushCollector:
        return cls([])

    def add(self, message: str) -> None:
        """Take one PUSH_REPLY message. Errors: BadPush if the reply grows without end."""
        options = [option for option in message.split(",")[1:] if option]
        continuation = [option for option in options if option in (_CONTINUES, _LAST)]
        self.options += [option for option in options if option not in (_CONTINUES, _LAST)]
        if len(self.options) > MAX_OPTIONS:
            raise BadPush("more options than anyone needs")
        self.is_complete = _CONTINUES not in continuation


def build_push_replies(options: Sequence[str]) -> list[str]:
    """The messages that carry `options`; several if one would be too long."""
    room = MAX_MESSAGE_OCTETS - len(PUSH_REPLY) - len(_CONTINUES) - 3
    groups: list[list[str]] = [[]]
    used = 0
    for option in options:
        size = len(option.encode()) + 1
        if used + size > room and groups[-1]:
            groups.append([])
            used = 0
        groups[-1].append(option)
        used += size
    if len(groups) == 1:
        return [",".join([PUSH_REPLY, *groups[0]])]
    marks = [_CONTINUES] * (len(groups) - 1) + [_LAST]
    return [",".join([PUSH_REPLY, *group, mark]) for group, mark in zip(groups, marks, strict=True)]


def filter_options(options: Iterable[str], filters: Sequence[PullFilter], *, nopull: bool) -> list[str]:
    """What is left after pull-filter and route-nopull. Errors: BadPush for a rejected option."""
    kept = []
    for option in options:
        rule = next((rule for rule in filters if option.startswith(rule.prefix)), None)
        if rule is not None and rule.action == "reject":
            raise BadPush(f"pull-filter rejects {option.split(' ')[0]}")
        if rule is not None and rule.action == "ignore":
            continue
        if nopull and option.split(" ")[0] in _NOPULL:
            continue
        kept.append(option)
    return kept


def parse_options(options: Iterable[str]) -> PushedOptions:
    """The value of all options, in order. Errors: BadPush for what the data channel cannot do without."""
    words_of_options = [split_words(option) for option in options]
    # topology decides how ifconfig is read, wherever it stands
    words_of_options.sort(key=lambda words: words[:1] != ["topology"])
    pushed = PushedOptions()
    for words in filter(None, words_of_options):
        reader = _READERS.get(words[0])
        if reader is None:
            pushed = replace(pushed, ignored=(*pushed.ignored, " ".join(words)))
            continue
        try:
            pushed = reader(pushed, words[1:])
        except (ValueError, IndexError):
            if words[0] in _NEEDED:
                raise BadPush(f"cannot read pushed option {words[0]!r}") from None
            shown = " ".join(words) if words[0] not in _SECRET else words[0]
            pushed = replace(pushed, errors=(*pushed.errors, f"Options error: cannot read pushed option {shown!r}"))
    return _merge_dns(pushed)


def split_words(option: str) -> list[str]:
    """The words of an option: blanks separate, quotes hold together, a backslash takes the next character as it is."""
    words: list[str] = []
    word: list[str] | None = None
    quote = ""
    characters = iter(option)
    for character in characters:
        if character == "\\" and quote != "'":
            word = word or []
            word.append(next(characters, ""))
        elif quote:
            if character == quote:
                quote = ""
            else:
                word = word or []
                word.append(character)
        elif character in "\"'":
            quote, word = character, word or []
        elif character.isspace():
            if word is not None:
                words.append("".join(word))
            word = None
        else:
            word = word or []
            word.append(character)
    return words if word is None else [*words, "".join(word)]


def without_names(options: PushedOptions) -> PushedOptions:
    """Routes with host names left out, and told: the server must not make the client ask for names unless it may."""
    kept = tuple(route for route in options.named_routes if not route.has_name)
    errors = tuple(
        f"Options error: pushed route {route.network!r} {route.gateway!r}: host names need allow-pull-fqdn"
        for route in options.named_routes
        if route.has_name
    )
    return replace(options, named_routes=kept, errors=(*options.errors, *errors))


Reader = Callable[[PushedOptions, list[str]], PushedOptions]


def _topology(pushed: PushedOptions, words: list[str]) -> PushedOptions:
    return replace(pushed, topology=Topology(words[0]))


def _ifconfig(pushed: PushedOptions, words: list[str]) -> PushedOptions:
    if pushed.topology is Topology.SUBNET:
        return replace(pushed, ifconfig=IPv4Interface(f"{words[0]}/{words[1]}"), ifconfig_peer=None)
    return replace(pushed, ifconfig=IPv4Interface(f"{words[0]}/32"), ifconfig_peer=IPv4Address(words[1]))


def _ifconfig_ipv6(pushed: PushedOptions, words: list[str]) -> PushedOptions:
    peer = IPv6Address(words[1]) if len(words) > 1 else None
    return replace(pushed, ifconfig_ipv6=IPv6Interface(words[0]), ifconfig_ipv6_peer=peer)


def _route(pushed: PushedOptions, words: list[str]) -> PushedOptions:
    mask = words[1] if len(words) > 1 and words[1] != "default" else "255.255.255.255"
    gateway = words[2] if len(words) > 2 else ""
    named = [text for text in (words[0], gateway) if _is_named(text)]
    if words[0] in GATEWAY_WORDS or named:
        IPv4Network(f"0.0.0.0/{mask}")
        metric = None if len(words) < 4 or words[3] == "default" else _number(words[3])
        gateway = "" if gateway == "default" else gateway
        return replace(
            pushed, named_routes=(*pushed.named_routes, NamedRoute(words[0], IPv4Address(mask), gateway, metric))
        )
    # strict=False: with host bits set the real client asks its kernel for what no kernel takes, and has no route
    route = Route(IPv4Network(f"{words[0]}/{mask}", strict=False), *_gateway_and_metric(words[2:]))
    return replace(pushed, routes=(*pushed.routes, route))


def _is_named(text: str) -> bool:
    """Whether it is a host name: neither an address, nor a word, nor left open, nor four numbers that are too large."""
    if text in ("", "default", *GATEWAY_WORDS) or is_address4(text) or text.replace(".", "").isdigit():
        return False
    return is_host_name(text)


def _route_ipv6(pushed: PushedOptions, words: list[str]) -> PushedOptions:
    route = Route(IPv6Network(words[0], strict=False), *_gateway_and_metric(words[1:]))
    return replace(pushed, routes=(*pushed.routes, route))


def _gateway_and_metric(words: list[str]) -> tuple[str, int | None]:
    gateway = words[0] if words and words[0] not in ("default", "vpn_gateway") else ""
    if gateway not in ("", "net_gateway", "remote_host"):
        ip_address(gateway)
    metric = words[1] if len(words) > 1 else "default"
    return gateway, None if metric == "default" else _number(metric)


def _redirect(private: bool) -> Reader:
    def read(pushed: PushedOptions, words: list[str]) -> PushedOptions:
        before = pushed.redirect_gateway.flags if pushed.redirect_gateway else frozenset()
        known, unknown = _REDIRECT_FLAGS.intersection(words), [word for word in words if word not in _REDIRECT_FLAGS]
        # with a flag that nobody knows the traffic still goes into the tunnel, as with the real client: safer than not
        errors = [f"Options error: unknown flag of pushed redirect-gateway: {word!r}" for word in unknown]
        redirect = RedirectGateway(before.union(known), private)
        return replace(pushed, redirect_gateway=redirect, errors=(*pushed.errors, *errors))

    return read


def _dhcp_option(pushed: PushedOptions, words: list[str]) -> PushedOptions:
    kind, value = words[0].upper(), words[1] if len(words) > 1 else ""
    pushed = replace(pushed, dhcp_options=(*pushed.dhcp_options, (kind, value)))
    if kind in ("DNS", "DNS6"):
        return replace(pushed, dns_addresses=(*pushed.dns_addresses, ip_address(value)))
    if kind == "DOMAIN":
        return replace(pushed, dns_domain=value)
    if kind == "DOMAIN-SEARCH":
        return replace(pushed, dns_search=(*pushed.dns_search, value))
    return pushed


def _dns(pushed: PushedOptions, words: list[str]) -> PushedOptions:
    if words[0] == "search-domains":
        return replace(pushed, dns_search=(*pushed.dns_search, *words[1:]))
    if words[0] != "server":
        raise ValueError("unknown part of dns")
    priority, part, values = int(words[1]), words[2], words[3:]
    if not 0 <= priority <= 127:
        raise ValueError("server number out of range")
    server = DnsServer(priority, ())
    if part == "address":
        server = replace(server, addresses=tuple(map(_address_and_port, values)))
    elif part == "resolve-domains":
        server = replace(server, resolve_domains=tuple(values))
    elif part in ("dnssec", "transport", "sni"):
        server = replace(server, **{part: values[0]})  # type: ignore[arg-type]  # the three are text
    else:
        raise ValueError("unknown part of dns server")
    return replace(pushed, dns_servers=(*pushed.dns_servers, server))


def _address_and_port(text: str) -> tuple[IPv4Address | IPv6Address, int | None]:
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        return ip_address(host), _number(port[1:]) if port else None
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return ip_address(host), _number(port)
    return ip_address(text), None


def _merge_dns(pushed: PushedOptions) -> PushedOptions:
    """One value for each server number, best (lowest) first."""
    merged: dict[int, DnsServer] = {}
    for part in pushed.dns_servers:
        known = merged.get(part.priority, DnsServer(part.priority, ()))
        merged[part.priority] = DnsServer(
            part.priority,
            (*known.addresses, *part.addresses),
            (*known.resolve_domains, *part.resolve_domains),
            part.dnssec or known.dnssec,
            part.transport or known.transport,
            part.sni or known.sni,
        )
    return replace(pushed, dns_servers=tuple(merged[number] for number in sorted(merged)))


def _flags(pushed: PushedOptions, words: list[str]) -> PushedOptions:
    return replace(pushed, protocol_flags=pushed.protocol_flags.union(words))


def _key_derivation(pushed: PushedOptions, words: list[str]) -> PushedOptions:
    if words != ["tls-ekm"]:
        raise ValueError("unknown key derivation")
    return _flags(pushed, words)


def _peer_id(pushed: PushedOptions, words: list[str]) -> PushedOptions:
    number = _number(words[0])
    if number > 0xFFFFFF:
        raise ValueError("peer id out of range")
    return replace(pushed, peer_id=number)


def _compress(pushed: PushedOptions, words: list[str]) -> PushedOptions:
    framing = Compression.STUB_V2 if words[:1] in (["stub-v2"], ["lz4-v2"]) else Compression.STUB
    return replace(pushed, compression=None if words[:1] == ["migrate"] else framing)


def _comp_lzo(pushed: PushedOptions, words: list[str]) -> PushedOptions:
    return replace(pushed, compression=Compression.COMP_LZO)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise ValueError("not a number")
    return int(text)


def _integer(name: str) -> Reader:
    return lambda pushed, words: replace(pushed, **{name: _number(words[0])})  # type: ignore[arg-type]


def _tun_mtu(pushed: PushedOptions, words: list[str]) -> PushedOptions:
    octets = _number(words[0])
    if not 100 <= octets <= 65535:
        raise ValueError("no interface has such an MTU")
    return replace(pushed, tun_mtu=octets)


def _inactive(pushed: PushedOptions, words: list[str]) -> PushedOptions:
    octets = _number(words[1]) if len(words) > 1 else 0
    return replace(pushed, inactive=_number(words[0]), inactive_octets=octets)


def _text(name: str) -> Reader:
    return lambda pushed, words: replace(pushed, **{name: words[0]})  # type: ignore[arg-type]


def _flag(name: str) -> Reader:
    return lambda pushed, _words: replace(pushed, **{name: True})  # type: ignore[arg-type]


def _nothing(pushed: PushedOptions, words: list[str]) -> PushedOptions:
    return pushed


_READERS: dict[str, Reader] = {
    "topology": _topology,
    "ifconfig": _ifconfig,
    "ifconfig-ipv6": _ifconfig_ipv6,
    "tun-ipv6": _nothing,
    "route": _route,
    "route-ipv6": _route_ipv6,
    "route-gateway": lambda pushed, words: replace(pushed, route_gateway=IPv4Address(words[0])),
    "route-ipv6-gateway": lambda pushed, words: replace(pushed, route_ipv6_gateway=IPv6Address(words[0])),
    "route-metric": _integer("route_metric"),
    "redirect-gateway": _redirect(private=False),
    "redirect-private": _redirect(private=True),
    "dhcp-option": _dhcp_option,
    "dns": _dns,
    "block-ipv6": _flag("block_ipv6"),
    "block-outside-dns": _flag("block_outside_dns"),
    "ping": _integer("ping"),
    "ping-restart": _integer("ping_restart"),
    "ping-exit": _integer("ping_exit"),
    "inactive": _inactive,
    "session-timeout": _integer("session_timeout"),
    "peer-id": _peer_id,
    "cipher": lambda pushed, words: replace(pushed, cipher=Cipher(words[0].upper())),
    "protocol-flags": _flags,
    "key-derivation": _key_derivation,
    "tun-mtu": _tun_mtu,
    "comp-lzo": _comp_lzo,
    "compress": _compress,
    "explicit-exit-notify": lambda pushed, words: replace(
        pushed, explicit_exit_notify=_number(words[0]) if words else 1
    ),
    "auth-token": _text("auth_token"),
    "auth-token-user": _text("auth_token_user"),
}

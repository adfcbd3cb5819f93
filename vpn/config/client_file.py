"""One client's file of `client-config-dir`: what this client gets beside or instead of the others.

Pure: the driver finds the file (it is named after the common name) and reads it.

Source: openvpn(8), "--client-config-dir"
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from vpn.config.directives import parse_text
from vpn.config.errors import ConfigurationError
from vpn.config.network import parse_network4
from vpn.config.option import Role, Scope
from vpn.config.options import Options, check_directives
from vpn.settings import ClientOverrides


def parse_client_file(text: str, name: str) -> ClientOverrides:
    """What the file says. Errors: ConfigurationError with all mistakes."""
    directives, problems = parse_text(text, name)
    options = check_directives(directives, Role.SERVER, Scope.CLIENT_CONFIG)
    overrides = ClientOverrides(
        ifconfig=options.value("ifconfig-push"),
        ifconfig_ipv6=_address6(options),
        iroutes=_iroutes(options),
        push=tuple(entry.values[0] for entry in options.all("push")),
        push_reset=options.has("push-reset"),
        disable=options.has("disable"),
    )
    problems += options.problems
    if problems:
        raise ConfigurationError(problems)
    return overrides


def _address6(options: Options) -> IPv6Address | None:
    entry = options.last("ifconfig-ipv6-push")
    if entry is None:
        return None
    try:
        return IPv6Interface(entry.values[0]).ip
    except ValueError:
        options.refuse(entry, f"{entry.values[0]!r}: an IPv6 address with prefix length is needed")
        return None


def _iroutes(options: Options) -> tuple[IPv4Network | IPv6Network, ...]:
    networks: list[IPv4Network | IPv6Network] = []
    for entry in options.entries:
        if entry.option.name == "iroute-ipv6":
            networks.append(IPv6Network(entry.values[0], strict=False))
        elif entry.option.name == "iroute":
            mask = entry.values[1]
            try:
                networks.append(parse_network4(str(entry.values[0]), str(mask) if mask else None))
            except ValueError as error:
                options.refuse(entry, str(error))
    return tuple(networks)

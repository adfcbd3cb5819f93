"""The tunnel's network on this host: device, addresses, routes and resolver, set up together and taken back together.

Every change that may outlive the device goes through `Changes`, which journals it and undoes it; routes, rules and
addresses go to the kernel in one batch each. A start first undoes what a killed predecessor left behind.

What is already there is left alone and not taken away at the end (a host route that an administrator set).
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from typing import Protocol

from vpn.config.model import DeviceSettings, DriverSettings, ServerAddresses
from vpn.driver.changes import Change, Changes
from vpn.driver.errors import HostError
from vpn.driver.journal import Journal
from vpn.driver.log import BRIEF, NORMAL, Log
from vpn.driver.named_routes import with_named_routes
from vpn.driver.netlink import (
    Netlink,
    add_address,
    add_route,
    add_rule,
    delete_address,
    delete_route,
    delete_rule,
    device_index,
    set_link,
)
from vpn.driver.resolver import ResolverFile
from vpn.driver.restore import restore_stale
from vpn.driver.routes import IpAddress, KernelRoute, Policy, RoutePlan, Underlay, host_route, plan_routes
from vpn.driver.tun import InterfaceState, TunDevice, interface_state
from vpn.push import PushedOptions

LOCAL_PATIENCE_SECONDS, _LOCAL_PAUSE_SECONDS = 1.0, 0.001
_DOMAIN_KINDS = frozenset({"DOMAIN", "DOMAIN-SEARCH", "ADAPTER_DOMAIN_SUFFIX"})


_STRICT = 1  # rp_filter, RFC 3704; the greater of `all` and the interface's own value counts


class TunnelNetwork:
    """The host's side of one tunnel. Make it early: what the host will not allow shows then."""

    def __init__(self, settings: DriverSettings, log: Log) -> None:
        self._settings = settings
        self._log = log
        self._netlink = Netlink()
        self._resolver = ResolverFile()
        self._node: TunDevice | None = TunDevice(settings.device.node)
        restore_stale(settings.journal_directory, lambda line: log.write(f"RESTORE: {line}", BRIEF))
        self._journal = Journal(settings.journal_directory)
        self._changes = Changes(self._netlink, self._journal, log)
        self._device_before: InterfaceState | None = None
        self._underlay: Underlay | None = None
        self._bypassed: set[IpAddress] = set()
        self.tun: TunDevice | None = None
        self.has_errors = False  # something of the last set-up could not be done; the log says what

    @property
    def device_settings(self) -> DeviceSettings:
        return self._settings.device

    @property
    def _policy(self) -> Policy | None:
        outer = self._settings.socket
        if outer.policy_table is None or outer.mark is None:
            return None
        return Policy(outer.policy_table, outer.mark)

    def look_at_underlay(self, server: IpAddress | None) -> None:
        """Remembers the ways outside of the tunnel; to be called while none of its routes are set.

        Errors: HostError if there is no route to the server
        """
        mark = self._settings.socket.mark
        default4, default6 = self._netlink.default_route(4), self._netlink.default_route(6)
        local = tuple(net for path in (default4, default6) if path for net in self._netlink.networks_of(path.device))
        to_server = self._netlink.path_to(server, mark) if server is not None else None
        self._underlay = Underlay(to_server, default4, default6, local, self._resolver.nameservers())

    def keep_outside(self, server: IpAddress | None) -> None:
        """With a tunnel still up (persist-tun): makes sure that the way to another server does not lead into it."""
        if self._policy is not None:  # the mark does it
            return
        if server is None or self._underlay is None or not self._bypassed or server in self._bypassed:
            return
        path = self._underlay.default4 if server.version == 4 else self._underlay.default6
        if path is not None:
            self._add_routes(RoutePlan((host_route(server, path),)))
            self._bypassed.add(server)

    def set_up_client(self, options: PushedOptions, server: IpAddress | None, mtu: int) -> None:
        """Device, addresses, routes and resolver as the server and the file say. Errors: HostError."""
        if self._settings.set_routes:
            options = self._with_named_routes(options, server)
        device = self._open_device(mtu)
        own = _client_addresses(options) if self._settings.set_addresses else []
        if own:
            self._add_addresses(device, own)
        self._bring_up(device, mtu)
        self._await_local(own)
        if self._settings.set_routes:
            if self._underlay is None:
                self.look_at_underlay(server)
            underlay = self._underlay or Underlay(None)
            plan = plan_routes(options, server, underlay, device, self._policy)
            for note in plan.notes:
                self._log.write(note, NORMAL)
            self._add_routes(plan)
            if server is not None:
                self._bypassed.add(server)
            self._warn_of_strict_filter(underlay)
        self._set_resolver(options)

    def set_up_server(self, addresses: ServerAddresses, options: PushedOptions, mtu: int) -> None:
        """Device, the server's own addresses, and its `route` lines. Errors: HostError."""
        if self._settings.set_routes and options.named_routes:
            gateway = options.route_gateway or addresses.ipv4_peer
            options = self._with_named_routes(replace(options, route_gateway=gateway), None)
        device = self._open_device(mtu)
        own: list[tuple[IPv4Interface | IPv6Interface, IpAddress | None]] = []
        if self._settings.set_addresses:
            if addresses.ipv4 is not None:
                own.append((addresses.ipv4, addresses.ipv4_peer))
            if addresses.ipv6 is not None:
                own.append((addresses.ipv6, None))
            self._add_addresses(device, own)
        self._bring_up(device, mtu)
        self._await_local(own)
        if self._settings.set_routes:
            self._add_routes(RoutePlan(tuple(_server_routes(addresses, options, device))))

    def _with_named_routes(self, options: PushedOptions, server: IpAddress | None) -> PushedOptions:
        if not options.named_routes:
            return options
        if self._underlay is None:
            self.look_at_underlay(server)
        options, problems = with_named_routes(options, server, self._underlay or Underlay(None))
        for problem in problems:
            self._log.write(problem, BRIEF)
        return options

    def close(self) -> None:
        """Takes everything back, and the device with it. What fails is logged; the rest is still done."""
        self.take_down()
        if self._node is not None:
            self._node.close()
        self._journal.close()
        self._netlink.close()

    def take_down(self) -> None:
        """Like `close`, but ready for another `set_up_…`."""
        self._changes.undo()
        self._underlay = None
        self._bypassed.clear()
        if self.tun is not None:
            self._log.write("Closing TUN/TAP interface", NORMAL)
            self.tun.close()
            self.tun = None

    def _open_device(self, mtu: int) -> int:
        self.has_errors = False
        node = self._node or TunDevice(self._settings.device.node)
        self._node = None
        self._device_before = interface_state(self._settings.device.name)
        try:
            node.attach(self._settings.device.name, mtu)
        except HostError:
            node.close()
            raise
        self.tun = node
        self._log.write(f"TUN/TAP device {node.name} opened", BRIEF)
        return device_index(node.name)

    def _bring_up(self, device: int, mtu: int) -> None:
        queue = self._settings.device.queue_length
        size = self.tun.superpacket_octets if self.tun else None
        wanted, before = set_link(device, mtu=mtu, queue_length=queue, superpacket_octets=size), self._device_before
        if before is None:  # it goes with this process
            self._netlink.require([wanted])
        else:
            kept = set_link(device, mtu=before.mtu, queue_length=before.queue_length, up=before.is_up)
            (answer,) = self._changes.make([Change(wanted, kept)])
            if answer is not None:
                raise answer
        name = self.tun.name if self.tun else ""
        self._log.write(f"net_iface_mtu_set: mtu {mtu} for {name}", NORMAL)
        self._log.write(f"net_iface_up: set {name} up", NORMAL)

    def _await_local(self, addresses: Sequence[tuple[IPv4Interface | IPv6Interface, IpAddress | None]]) -> None:
        """Until then packets for them would be lost: the first answers through the tunnel."""
        for late in await_local(self._netlink, [own.ip for own, _ in addresses]):
            self._log.write(f"NOTE: {late} is not in use yet: the first packets for it may be lost", NORMAL)

    def _add_addresses(
        self, device: int, addresses: list[tuple[IPv4Interface | IPv6Interface, IpAddress | None]]
    ) -> None:
        self._batch([Change(add_address(device, *pair), delete_address(device, *pair)) for pair in addresses])
        name = self.tun.name if self.tun else ""
        for own, peer in addresses:
            words = f"net_addr_v{own.version}_add" if peer is None else f"net_addr_ptp_v{own.version}_add"
            shown = f"{own}" if peer is None else f"{own.ip} peer {peer}"
            self._log.write(f"{words}: {shown} dev {name}", NORMAL)

    def _add_routes(self, plan: RoutePlan) -> None:
        self._batch([Change(delete_route(route), add_route(route)) for route in plan.remove])
        added = self._batch([Change(add_route(route), delete_route(route)) for route in plan.add])
        for route, fresh in zip(plan.add, added, strict=True):
            if fresh:
                self._log.write(f"net_route_v{route.network.version}_add: {route}", NORMAL)
        # After the routes: a rule that points to an empty table would let packets by.
        ruled = self._batch([Change(add_rule(rule), delete_rule(rule)) for rule in plan.rules])
        for rule, fresh in zip(plan.rules, ruled, strict=True):
            if fresh:
                self._log.write(f"net_rule_v{rule.version}_add: {rule}", NORMAL)

    def _batch(self, changes: list[Change]) -> list[bool]:
        """Applies all; True for what was done, False for what was there before or could not be done."""
        results: list[bool] = []
        failures: list[HostError] = []
        for answer in self._changes.make(changes):
            results.append(answer is None)
            if answer is not None and answer.number != errno.EEXIST:
                failures.append(answer)
        for failure in failures:
            self.has_errors = True
            self._log.write(f"ERROR: {failure}", BRIEF)
        return results

    def _warn_of_strict_filter(self, underlay: Underlay) -> None:
        """Answers of the server carry no mark: a strict check of their source looks into the tunnel's table for it."""
        if self._policy is None or underlay.to_server is None or underlay.to_server.network.version == 6:
            return
        name = socket.if_indextoname(underlay.to_server.device)
        values = [_read_number(Path(f"/proc/sys/net/ipv4/conf/{scope}/rp_filter")) for scope in ("all", name)]
        if max(values) == _STRICT:
            self._log.write(
                f"WARNING: policy-routing: rp_filter is strict on {name}; the kernel will drop the server's packets "
                f"(sysctl net.ipv4.conf.{name}.rp_filter=2)",
                BRIEF,
            )

    def _set_resolver(self, options: PushedOptions) -> None:
        servers = resolvers_of(options)
        if not servers or self.tun is None:
            return
        try:
            plan = self._resolver.plan(servers, search_domains_of(options), self.tun.name)
            self._changes.rewrite(self._resolver, *plan)
        except HostError as error:
            self.has_errors = True
            self._log.write(f"ERROR: {error}", BRIEF)
            return
        self._log.write(f"DNS servers set: {', '.join(str(server) for server in servers)}", NORMAL)


class Paths(Protocol):
    """What knows how the kernel would send a packet."""

    def path_to(self, address: IpAddress) -> object | None: ...


def await_local(
    paths: Paths, addresses: Sequence[IpAddress], patience: float = LOCAL_PATIENCE_SECONDS
) -> list[IpAddress]:
    """Waits until the kernel takes packets for these addresses as its own; returns those that it does not in time.

    An IPv6 address becomes local in a worker of the kernel, after the call that sets it and the one that brings its
    device up: mostly at once, 8 ms later where other namespaces keep the kernel's lock, more on a busy machine.
    Units: seconds. Source: Linux, addrconf_dad_work
    """
    until, waiting = time.monotonic() + patience, list(addresses)
    while waiting := [address for address in waiting if not _is_local(paths, address)]:
        if time.monotonic() >= until:
            break
        time.sleep(_LOCAL_PAUSE_SECONDS)
    return waiting


def _is_local(paths: Paths, address: IpAddress) -> bool:
    try:
        return paths.path_to(address) is None
    except HostError:
        return False  # there is no way to it at all yet


def _read_number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def resolvers_of(options: PushedOptions) -> list[IpAddress]:
    """The DNS servers to ask for everything: those of `dns server` by priority, else those of dhcp-option.

    Servers for single domains (`resolve-domains`) count only where there are no others: resolv.conf cannot tell names
    apart, and openvpn hands them to its scripts as ordinary ones too. A port other than 53 has no place in it either.
    """
    ranked = sorted(options.dns_servers, key=lambda server: server.priority)
    general = [server for server in ranked if not server.resolve_domains] or ranked
    modern = [address for server in general for address, port in server.addresses if port in (None, 53)]
    return list(dict.fromkeys(modern if options.dns_servers else options.dns_addresses))


def search_domains_of(options: PushedOptions) -> list[str]:
    """The search list: `dns search-domains` and all forms of it that dhcp-option has, in this order."""
    words = [word for kind, text in options.dhcp_options if kind in _DOMAIN_KINDS for word in text.split()]
    return list(dict.fromkeys([*options.dns_search, *([options.dns_domain] if options.dns_domain else []), *words]))


def _client_addresses(options: PushedOptions) -> list[tuple[IPv4Interface | IPv6Interface, IpAddress | None]]:
    addresses: list[tuple[IPv4Interface | IPv6Interface, IpAddress | None]] = []
    if options.ifconfig is not None:
        addresses.append((options.ifconfig, options.ifconfig_peer))
    if options.ifconfig_ipv6 is not None:
        addresses.append((options.ifconfig_ipv6, None))
    return addresses


def _server_routes(addresses: ServerAddresses, options: PushedOptions, device: int) -> list[KernelRoute]:
    """The pool's network in net30 and p2p, where no address brings it along, and the file's `route` lines."""
    return [
        KernelRoute(route.network, device, addresses.ipv4_peer if route.network.version == 4 else None, route.metric)
        for route in options.routes
    ]

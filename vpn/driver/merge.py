"""Options of the file and options the server pushed, as one value. Pure.

Lists add up, the file's first; of single values the pushed one counts, as in openvpn, where a pushed option acts like a
line at the end of the file.
"""

from __future__ import annotations

from dataclasses import replace

from vpn.push import PushedOptions, RedirectGateway


def merge_options(local: PushedOptions, pushed: PushedOptions) -> PushedOptions:
    """What holds for the interface, the routes and the resolver."""
    return replace(
        pushed,
        ifconfig=pushed.ifconfig or local.ifconfig,
        ifconfig_peer=pushed.ifconfig_peer if pushed.ifconfig else local.ifconfig_peer,
        ifconfig_ipv6=pushed.ifconfig_ipv6 or local.ifconfig_ipv6,
        ifconfig_ipv6_peer=pushed.ifconfig_ipv6_peer if pushed.ifconfig_ipv6 else local.ifconfig_ipv6_peer,
        route_gateway=pushed.route_gateway or local.route_gateway,
        route_ipv6_gateway=pushed.route_ipv6_gateway or local.route_ipv6_gateway,
        route_metric=local.route_metric if pushed.route_metric is None else pushed.route_metric,
        routes=local.routes + pushed.routes,
        named_routes=local.named_routes + pushed.named_routes,
        redirect_gateway=_merge_redirect(local.redirect_gateway, pushed.redirect_gateway),
        dns_addresses=local.dns_addresses + pushed.dns_addresses,
        dns_domain=pushed.dns_domain or local.dns_domain,
        dns_search=local.dns_search + pushed.dns_search,
        dns_servers=local.dns_servers + pushed.dns_servers,
        dhcp_options=local.dhcp_options + pushed.dhcp_options,
        block_ipv6=local.block_ipv6 or pushed.block_ipv6,
        block_outside_dns=local.block_outside_dns or pushed.block_outside_dns,
    )


def _merge_redirect(local: RedirectGateway | None, pushed: RedirectGateway | None) -> RedirectGateway | None:
    if local is None or pushed is None:
        return local or pushed
    return RedirectGateway(local.flags | pushed.flags, local.private and pushed.private)

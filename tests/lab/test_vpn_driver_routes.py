"""Which routes a client plans: pure, from pushed options and the host's present routes."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network, ip_network

import pytest

from vpn.driver.merge import merge_options
from vpn.driver.routes import KernelRoute, Policy, Underlay, plan_routes
from vpn.push import PushedOptions, RedirectGateway, Route
from vpn.settings import Topology

TUN, LINK = 9, 3
SERVER, SERVER6 = IPv4Address("198.51.100.10"), IPv6Address("2001:db8:3::10")
GATEWAY, GATEWAY6 = IPv4Address("192.168.0.1"), IPv6Address("2001:db8:1::1")
VPN_GATEWAY = IPv4Address("10.8.0.1")
DEFAULT = KernelRoute(ip_network("0.0.0.0/0"), LINK, GATEWAY)
DEFAULT6 = KernelRoute(ip_network("::/0"), LINK, GATEWAY6)
UNDERLAY = Underlay(
    KernelRoute(ip_network("198.51.100.10/32"), LINK, GATEWAY),
    DEFAULT,
    DEFAULT6,
    (ip_network("192.168.0.0/24"), ip_network("2001:db8:1::/64")),
    (IPv4Address("192.0.2.53"), IPv4Address("127.0.0.53")),
)
UNDERLAY6 = Underlay(KernelRoute(ip_network("2001:db8:3::10/128"), LINK, GATEWAY6), DEFAULT, DEFAULT6)
UNICAST6 = ["2000::/4", "3000::/4", "::/3", "fc00::/7"]


def options(*flags: str, routes: tuple[Route, ...] = (), private: bool = False, **more: object) -> PushedOptions:
    redirect = RedirectGateway(frozenset(flags), private) if flags else None
    return PushedOptions(
        topology=Topology.SUBNET,
        ifconfig=IPv4Interface("10.8.0.2/24"),
        ifconfig_ipv6=IPv6Interface("2001:db8:8::1000/64"),
        route_gateway=VPN_GATEWAY,
        routes=routes,
        redirect_gateway=redirect,
        **more,  # type: ignore[arg-type]
    )


def planned(pushed: PushedOptions, underlay: Underlay = UNDERLAY, server: object = SERVER) -> dict[str, KernelRoute]:
    plan = plan_routes(pushed, server, underlay, TUN)  # type: ignore[arg-type]
    return {str(route.network): route for route in plan.add}


def test_def1_covers_all_of_ipv4_and_leaves_the_default_route() -> None:
    plan = plan_routes(options("def1"), SERVER, UNDERLAY, TUN)
    assert plan.add == (
        KernelRoute(ip_network("198.51.100.10/32"), LINK, GATEWAY),
        KernelRoute(ip_network("0.0.0.0/1"), TUN, VPN_GATEWAY),
        KernelRoute(ip_network("128.0.0.0/1"), TUN, VPN_GATEWAY),
    )
    assert plan.remove == ()


def test_without_def1_the_default_route_is_replaced() -> None:
    plan = plan_routes(options("autolocal"), SERVER, UNDERLAY, TUN)
    assert plan.remove == (DEFAULT,)
    assert KernelRoute(ip_network("0.0.0.0/0"), TUN, VPN_GATEWAY) in plan.add


def test_ipv6_takes_all_unicast_addresses() -> None:
    assert set(UNICAST6) < set(planned(options("def1", "ipv6")))


def test_not_ipv4_leaves_ipv4_alone() -> None:
    assert set(planned(options("def1", "ipv6", "!ipv4"))) == set(UNICAST6)


def test_a_server_reached_over_ipv6_keeps_its_way_outside() -> None:
    found = planned(options("def1", "ipv6"), UNDERLAY6, SERVER6)
    assert found["2001:db8:3::10/128"] == KernelRoute(ip_network("2001:db8:3::10/128"), LINK, GATEWAY6)


def test_redirect_private_sets_no_default() -> None:
    assert list(planned(options("def1", private=True))) == ["198.51.100.10/32"]


@pytest.mark.parametrize(
    ("flags", "kept"), [(("def1",), True), (("def1", "autolocal"), False), (("def1", "local"), False)]
)
def test_a_server_on_the_same_link_needs_a_host_route_unless_a_flag_says_no(flags: tuple[str, ...], kept: bool) -> None:
    on_link = Underlay(KernelRoute(ip_network("192.168.0.9/32"), LINK), DEFAULT)
    found = planned(options(*flags), on_link, IPv4Address("192.168.0.9"))
    assert ("192.168.0.9/32" in found) is kept


def test_split_routes_take_only_what_they_name() -> None:
    routes = (Route(IPv4Network("10.20.0.0/24")), Route(IPv6Network("2001:db8:20::/64"), "", 5))
    assert planned(options(routes=routes)) == {
        "10.20.0.0/24": KernelRoute(ip_network("10.20.0.0/24"), TUN, VPN_GATEWAY),
        "2001:db8:20::/64": KernelRoute(ip_network("2001:db8:20::/64"), TUN, None, 5),
    }


def test_a_split_route_that_covers_the_server_does_not_cut_the_tunnels_own_way() -> None:
    found = planned(options(routes=(Route(IPv4Network("198.51.100.0/24")),)))
    assert found["198.51.100.10/32"].device == LINK


def test_net_gateway_excludes_a_network_from_the_tunnel() -> None:
    found = planned(options("def1", routes=(Route(IPv4Network("203.0.113.0/24"), "net_gateway"),)))
    assert found["203.0.113.0/24"] == KernelRoute(ip_network("203.0.113.0/24"), LINK, GATEWAY)


def test_net_gateway_without_a_default_route_is_noted_and_not_set() -> None:
    lonely = Underlay(UNDERLAY.to_server)
    plan = plan_routes(options(routes=(Route(IPv4Network("203.0.113.0/24"), "net_gateway"),)), SERVER, lonely, TUN)
    assert plan.add == ()
    assert "no net_gateway" in plan.notes[0]


def test_route_metric_holds_for_routes_without_one_of_their_own() -> None:
    routes = (Route(IPv4Network("10.1.0.0/16")), Route(IPv4Network("10.2.0.0/16"), "", 3))
    found = planned(options(routes=routes, route_metric=50))
    assert (found["10.1.0.0/16"].metric, found["10.2.0.0/16"].metric) == (50, 3)


def test_block_ipv6_makes_unreachable_what_would_go_into_the_tunnel() -> None:
    found = planned(options("def1", "ipv6", block_ipv6=True))
    assert all(found[network].unreachable for network in UNICAST6)
    assert not found["0.0.0.0/1"].unreachable


def test_block_local_takes_the_local_network_and_leaves_the_gateway() -> None:
    found = planned(options("def1", "block-local"))
    assert found["192.168.0.0/25"].device == found["192.168.0.128/25"].device == TUN
    assert found["2001:db8:1::/65"].device == found["2001:db8:1:0:8000::/65"].device == TUN
    assert found["192.168.0.1/32"] == KernelRoute(ip_network("192.168.0.1/32"), LINK, GATEWAY)


def test_bypass_dns_keeps_the_present_resolvers_outside() -> None:
    found = planned(options("def1", "bypass-dns"))
    assert found["192.0.2.53/32"] == KernelRoute(ip_network("192.0.2.53/32"), LINK, GATEWAY)
    assert "127.0.0.53/32" not in found


def test_a_point_to_point_tunnel_routes_through_its_peer() -> None:
    pushed = PushedOptions(
        topology=Topology.NET30,
        ifconfig=IPv4Interface("10.8.0.6/32"),
        ifconfig_peer=IPv4Address("10.8.0.5"),
        routes=(Route(IPv4Network("10.20.0.0/24")),),
    )
    assert planned(pushed)["10.20.0.0/24"].gateway == IPv4Address("10.8.0.5")


def test_options_of_the_file_and_pushed_ones_add_up() -> None:
    local = PushedOptions(
        routes=(Route(IPv4Network("10.1.0.0/16")),),
        redirect_gateway=RedirectGateway(frozenset({"def1"}), private=True),
        dns_addresses=(IPv4Address("192.0.2.1"),),
        route_metric=7,
    )
    pushed = options("ipv6", routes=(Route(IPv4Network("10.2.0.0/16")),), dns_addresses=(VPN_GATEWAY,))
    merged = merge_options(local, pushed)
    assert [str(route.network) for route in merged.routes] == ["10.1.0.0/16", "10.2.0.0/16"]
    assert merged.redirect_gateway == RedirectGateway(frozenset({"def1", "ipv6"}), private=False)
    assert merged.dns_addresses == (IPv4Address("192.0.2.1"), VPN_GATEWAY)
    assert (merged.route_metric, merged.ifconfig) == (7, IPv4Interface("10.8.0.2/24"))


def test_policy_routing_puts_all_routes_into_its_table_and_leaves_main_alone() -> None:
    pushed = options("autolocal", "ipv6", routes=(Route(IPv4Network("203.0.113.0/24"), "net_gateway"),))
    plan = plan_routes(pushed, SERVER, UNDERLAY, TUN, Policy(1000, 7))
    assert {(str(route.network), route.device, route.table) for route in plan.add} == {
        ("203.0.113.0/24", LINK, 1000),
        ("0.0.0.0/0", TUN, 1000),
        ("::/0", TUN, 1000),
    }
    assert plan.remove == ()
    assert [str(rule) for rule in plan.rules if rule.version == 6] == [
        "32761: not fwmark 0x7 lookup 1000 suppress_prefixlength 0 (IPv6)",
        "32762: lookup 254 suppress_prefixlength 0 (IPv6)",
        "32763: not fwmark 0x7 lookup 1000 (IPv6)",
    ]


def test_policy_routing_makes_no_rules_for_an_ip_version_without_routes() -> None:
    plan = plan_routes(options("def1"), SERVER, UNDERLAY, TUN, Policy(1000, 7))
    assert {rule.version for rule in plan.rules} == {4}

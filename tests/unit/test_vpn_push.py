"""Pushed options: what a client makes of each form, and what it refuses."""

from __future__ import annotations

from dataclasses import fields, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

from vpn.push import DnsServer, NamedRoute, PushedOptions, RedirectGateway, Route
from vpn.push_parser import BadPush, PushCollector, filter_options, parse_options, split_words, without_names
from vpn.settings import Cipher, Compression, PullFilter

HOST, NET24 = IPv4Address("255.255.255.255"), IPv4Address("255.255.255.0")


def test_the_real_servers_default_reply_is_understood_completely() -> None:
    text = (
        "route 192.168.55.0 255.255.255.0,dhcp-option DNS 10.99.0.1,tun-ipv6,route-gateway 10.99.0.1,topology subnet,"
        "ping 5,ping-restart 30,ifconfig-ipv6 fd00:99::1000/64 fd00:99::1,ifconfig 10.99.0.2 255.255.255.0,peer-id 0,"
        "cipher AES-256-GCM,protocol-flags cc-exit tls-ekm dyn-tls-crypt,tun-mtu 1500"
    )
    options = parse_options(text.split(","))
    assert str(options.ifconfig) == "10.99.0.2/24"
    assert str(options.ifconfig_ipv6) == "fd00:99::1000/64"
    assert options.ifconfig_ipv6_peer == IPv6Address("fd00:99::1")
    assert options.routes == (Route(IPv4Network("192.168.55.0/24")),)
    assert (options.ping, options.ping_restart, options.peer_id, options.tun_mtu) == (5, 30, 0, 1500)
    assert options.cipher is Cipher.AES_256_GCM
    assert options.ignored == ()


def test_ifconfig_is_read_by_the_topology_wherever_that_stands() -> None:
    assert str(parse_options(["ifconfig 10.8.0.2 255.255.255.0", "topology subnet"]).ifconfig) == "10.8.0.2/24"
    point = parse_options(["ifconfig 10.8.0.6 10.8.0.5"])
    assert (str(point.ifconfig), point.ifconfig_peer) == ("10.8.0.6/32", IPv4Address("10.8.0.5"))


@pytest.mark.parametrize(
    ("option", "route"),
    [
        ("route 10.1.2.3", Route(IPv4Network("10.1.2.3/32"))),
        ("route 10.1.0.0 255.255.0.0 net_gateway", Route(IPv4Network("10.1.0.0/16"), "net_gateway")),
        ("route 10.1.0.0 255.255.0.0 vpn_gateway 50", Route(IPv4Network("10.1.0.0/16"), "", 50)),
        ("route 10.1.2.3 255.255.0.0 10.8.0.9 7", Route(IPv4Network("10.1.0.0/16"), "10.8.0.9", 7)),
        ("route-ipv6 2001:db8:20::/64", Route(IPv6Network("2001:db8:20::/64"))),
        ("route-ipv6 2001:db8:20::/64 default 9", Route(IPv6Network("2001:db8:20::/64"), "", 9)),
    ],
)
def test_routes_are_read_in_every_form(option: str, route: Route) -> None:
    assert parse_options([option]).routes == (route,)


def test_redirect_gateway_gathers_the_flags_of_all_its_lines() -> None:
    redirect = parse_options(["redirect-gateway def1", "redirect-gateway ipv6 bypass-dns"]).redirect_gateway
    assert redirect is not None
    assert redirect.flags == {"def1", "ipv6", "bypass-dns"}
    assert not redirect.private


def test_dns_options_of_both_generations_are_read() -> None:
    options = parse_options(
        [
            "dhcp-option DNS 10.8.0.1",
            "dhcp-option DNS6 2001:db8:8::1",
            "dhcp-option DOMAIN example.com",
            "dhcp-option DOMAIN-SEARCH a.example",
            "dns server 2 address 192.0.2.1:5353",
            "dns server 1 address 192.0.2.2 [2001:db8::2]:53",
            "dns server 1 resolve-domains b.example c.example",
            "dns server 1 sni resolver.example",
            "dns search-domains d.example",
        ]
    )
    assert options.dns_addresses == (IPv4Address("10.8.0.1"), IPv6Address("2001:db8:8::1"))
    assert (options.dns_domain, options.dns_search) == ("example.com", ("a.example", "d.example"))
    first = DnsServer(
        1,
        ((IPv4Address("192.0.2.2"), None), (IPv6Address("2001:db8::2"), 53)),
        ("b.example", "c.example"),
        sni="resolver.example",
    )
    assert options.dns_servers == (first, DnsServer(2, ((IPv4Address("192.0.2.1"), 5353),)))


@pytest.mark.parametrize(
    ("option", "framing"),
    [
        ("comp-lzo no", Compression.COMP_LZO),
        ("compress", Compression.STUB),
        ("compress lz4", Compression.STUB),
        ("compress stub-v2", Compression.STUB_V2),
        ("compress lz4-v2", Compression.STUB_V2),
        ("compress migrate", None),
    ],
)
def test_compression_options_mean_a_framing(option: str, framing: Compression | None) -> None:
    assert parse_options([option]).compression is framing


@pytest.mark.parametrize(
    "option",
    [
        "ifconfig 10.8.0.2",
        "ifconfig ten eleven",
        "ifconfig-ipv6",
        "route 300.1.1.1",
        "route 10.0.0.0 255.0.255.0",
        "route 10.0.0.0 255.0.0.0 10.8.0.1 far",
        "route some/where",
        "route web.example 255.0.255.0",
        "route web.example 255.255.255.255 default far",
        "route-ipv6 six.example/64",
        "dns server 200 address 192.0.2.1",
        "dns server x",
        "ping soon",
        "topology ring",
        "tun-mtu",
    ],
)
def test_an_option_that_cannot_be_read_is_told_and_left_out_and_the_others_hold(option: str) -> None:
    options = parse_options([option, "route 10.20.0.0 255.255.0.0"])
    assert options.errors == (f"Options error: cannot read pushed option {option!r}",)
    assert replace(options, errors=()) == parse_options(["route 10.20.0.0 255.255.0.0"])


@pytest.mark.parametrize("option", ["peer-id 16777216", "peer-id -1", "cipher ROT13", "key-derivation magic"])
def test_an_option_that_the_ends_need_to_understand_each_other_is_refused_if_it_cannot_be_read(option: str) -> None:
    with pytest.raises(BadPush, match=option.split(" ")[0]):
        parse_options([option])


def test_host_bits_of_a_pushed_route_are_cleared() -> None:
    options = parse_options(["route 10.97.1.1 255.255.0.0"])
    assert (options.routes, options.errors) == ((Route(IPv4Network("10.97.0.0/16")),), ())


def test_the_words_for_gateways_hold_for_pushed_ipv6_routes_too() -> None:
    [route] = parse_options(["route-ipv6 2001:db8:57::/48 net_gateway"]).routes
    assert route == Route(IPv6Network("2001:db8:57::/48"), "net_gateway")


def test_a_token_that_cannot_be_read_is_told_without_its_words() -> None:
    [error] = parse_options(["auth-token-user"]).errors
    assert error.endswith("'auth-token-user'")


def test_an_unknown_flag_does_not_keep_the_traffic_out_of_the_tunnel() -> None:
    options = parse_options(["redirect-gateway def1 everything"])
    assert options.redirect_gateway == RedirectGateway(frozenset({"def1"}))
    assert "everything" in options.errors[0]


@pytest.mark.parametrize(
    ("option", "route", "has_name"),
    [
        ("route web.example", NamedRoute("web.example", HOST), True),
        ("route remote_host", NamedRoute("remote_host", HOST), False),
        ("route net_gateway 255.255.255.0 vpn_gateway 7", NamedRoute("net_gateway", NET24, "vpn_gateway", 7), False),
        ("route 10.1.2.0 255.255.255.0 gw.example", NamedRoute("10.1.2.0", NET24, "gw.example"), True),
        ("route web.example default default 5", NamedRoute("web.example", HOST, "", 5), True),
    ],
)
def test_names_and_words_stay_as_they_are_until_routes_are_set(option: str, route: NamedRoute, has_name: bool) -> None:
    options = parse_options([option])
    assert (options.named_routes, options.routes, options.errors) == ((route,), (), ())
    assert route.has_name is has_name
    allowed = without_names(options)
    assert (allowed.named_routes == (), bool(allowed.errors)) == (has_name, has_name)


def test_options_nobody_may_push_are_kept_aside() -> None:
    assert parse_options(["up /bin/sh", "setenv X 1"]).ignored == ("up /bin/sh", "setenv X 1")


def test_words_are_split_like_a_configuration_files() -> None:
    assert split_words('a "b c" \'d "e\' f\\ g ""') == ["a", "b c", 'd "e', "f g", ""]


def test_filters_decide_by_the_first_that_fits() -> None:
    rules = (PullFilter("accept", "route 10."), PullFilter("ignore", "route"), PullFilter("reject", "redirect"))
    kept = filter_options(["route 10.0.0.0", "route 11.0.0.0", "ping 5"], rules, nopull=False)
    assert kept == ["route 10.0.0.0", "ping 5"]
    with pytest.raises(BadPush, match="redirect-gateway"):
        filter_options(["redirect-gateway def1"], rules, nopull=False)


def test_route_nopull_keeps_addresses_and_drops_routes_and_resolvers() -> None:
    options = ["ifconfig 10.8.0.2 10.8.0.1", "route 10.0.0.0", "dhcp-option DNS 10.8.0.1", "redirect-gateway def1"]
    assert filter_options(options, (), nopull=True) == ["ifconfig 10.8.0.2 10.8.0.1"]


def test_a_reply_that_never_ends_is_refused() -> None:
    collector = PushCollector.empty()
    message = "PUSH_REPLY," + ",".join(["route 10.0.0.0"] * 4096) + ",push-continuation 2"
    collector.add(message)
    with pytest.raises(BadPush):
        collector.add(message)


def test_a_token_does_not_show() -> None:
    options = parse_options(["auth-token SESS_ID_AT_secret"])
    assert options.auth_token == "SESS_ID_AT_secret"
    assert "secret" not in repr(options)
    assert {field.name for field in fields(PushedOptions) if not field.repr} == {"auth_token"}


@pytest.mark.parametrize("octets", ["0", "5", "65536", "99999999"])
def test_an_mtu_that_no_interface_can_have_is_told_and_left_out(octets: str) -> None:
    options = parse_options([f"tun-mtu {octets}", "ping 7"])
    assert (options.tun_mtu, options.ping, len(options.errors)) == (None, 7, 1)

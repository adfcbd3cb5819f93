"""The lab's name servers and resolver, judged by dig."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.services.request import Resolver
from tests.lab.services_net import AUTHORITY, RESOLVER, Net, default_request, services_net, serving, start_services

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    with services_net(tmp_path_factory.mktemp("dns")) as net, serving(net):
        yield net


@pytest.mark.parametrize("server", [*AUTHORITY, *RESOLVER])
@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
def test_every_server_answers_a_and_aaaa_over_udp_and_tcp(net: Net, server: str, transport: str) -> None:
    assert net.dig(f"@{server}", transport, "+short", "www.example.com", "A") == "93.184.216.34\n"
    assert net.dig(f"@{server}", transport, "+short", "www.example.com", "AAAA") == "2001:db8:4::34\n"


def test_the_authority_says_that_it_is_one_and_the_resolver_that_it_recurses(net: Net) -> None:
    assert "flags: qr aa rd;" in net.dig(f"@{AUTHORITY[0]}", "www.example.com")
    assert "flags: qr rd ra;" in net.dig(f"@{RESOLVER[0]}", "www.example.com")


def test_a_name_that_does_not_exist_is_denied_with_the_zone_s_soa(net: Net) -> None:
    for server in (AUTHORITY[0], RESOLVER[0]):
        answer = net.dig(f"@{server}", "nobody.example.com")
        assert "status: NXDOMAIN" in answer
        assert "example.com.\t\t60\tIN\tSOA\tns.example.com. hostmaster.example.com." in answer
    assert "status: NXDOMAIN" in net.dig(f"@{RESOLVER[0]}", "intranet.corp.internal")


def test_a_name_without_a_record_of_the_type_is_no_error(net: Net) -> None:
    answer = net.dig(f"@{RESOLVER[0]}", "v4.test", "AAAA")
    assert "status: NOERROR" in answer
    assert "ANSWER: 0, AUTHORITY: 1" in answer


def test_ns_and_soa_of_a_zone_can_be_asked_for(net: Net) -> None:
    assert net.dig(f"@{AUTHORITY[0]}", "+short", "example.com", "NS") == "ns.example.com.\n"
    assert net.dig(f"@{AUTHORITY[0]}", "+short", "ns.example.com", "A") == "93.184.216.53\n"
    assert net.dig(f"@{RESOLVER[0]}", "+short", "example.com", "SOA").startswith(
        "ns.example.com. hostmaster.example.com. "
    )


def test_any_name_below_a_site_has_the_site_s_address(net: Net) -> None:
    assert net.dig(f"@{RESOLVER[0]}", "+short", "0123456789abcdef.www.example.com") == "93.184.216.34\n"
    assert "0aBc.www.example.com." in net.dig(f"@{RESOLVER[0]}", "+noall", "+answer", "0aBc.www.example.com")


def test_an_alias_is_followed_and_passed_on(net: Net) -> None:
    for server in (AUTHORITY[0], RESOLVER[0]):
        assert net.dig(f"@{server}", "+short", "alias.test") == "www.example.com.\n93.184.216.34\n"


@pytest.mark.parametrize("server", [AUTHORITY[0], RESOLVER[0]])
def test_an_answer_too_big_for_a_datagram_is_truncated_and_whole_over_tcp(net: Net, server: str) -> None:
    cut = net.dig(f"@{server}", "+ignore", "+noedns", "long.test", "TXT")
    assert "flags: qr" in cut
    assert " tc " in cut
    assert "ANSWER: 0" in cut
    whole = net.dig(f"@{server}", "+short", "long.test", "TXT")
    assert whole.replace('" "', "").count("all work and no play ") == 100


def test_edns_raises_the_size_that_fits_a_datagram(net: Net) -> None:
    many = "long.test"
    assert " tc " in net.dig(f"@{AUTHORITY[0]}", "+ignore", "+bufsize=4096", many, "TXT"), "2,100 octets exceed 1,232"
    answer = net.dig(f"@{AUTHORITY[0]}", "+bufsize=1000", "www.example.com")
    assert "EDNS: version: 0, flags:; udp: 1232" in answer
    assert "EDNS" not in net.dig(f"@{AUTHORITY[0]}", "+noedns", "www.example.com")


def test_what_no_server_takes_is_refused_by_name(net: Net) -> None:
    assert "status: NOTIMP" in net.dig(f"@{AUTHORITY[0]}", "+opcode=2", "www.example.com")
    assert "status: BADVERS" in net.dig(f"@{AUTHORITY[0]}", "+edns=1", "+noednsneg", "www.example.com")
    assert "status: REFUSED" in net.dig(f"@{AUTHORITY[0]}", "-c", "CH", "version.bind", "TXT")
    assert "Transfer failed" in net.dig(f"@{AUTHORITY[0]}", "example.com", "AXFR")


def test_the_logs_tell_who_asked_what_over_which_transport(net: Net) -> None:
    net.dig(f"@{RESOLVER[1]}", "+tcp", "logged.www.example.com", "AAAA")
    asked = next(line for line in net.log("dns-isp") if line.get("name") == "logged.www.example.com")
    assert asked["client"][0] == "2001:db8:1::13"
    assert asked["server"] == [RESOLVER[1], 53]
    assert (asked["transport"], asked["type"], asked["rcode"]) == ("tcp", "AAAA", "NOERROR")
    assert asked["answers"] == ["AAAA 2001:db8:4::34"]
    passed_on = next(line for line in net.log("dns-web") if line.get("name") == "logged.www.example.com")
    assert passed_on["client"][0] == "192.0.2.1", "the resolver asks from its own node"
    assert passed_on["transport"] == "udp"


def test_every_upstream_query_has_a_port_of_its_own(net: Net) -> None:
    for number in range(8):
        net.dig(f"@{RESOLVER[0]}", f"port{number}.www.example.com")
    ports = {line["client"][1] for line in net.log("dns-web") if str(line.get("name")).startswith("port")}
    assert len(ports) >= 7


def test_a_resolver_listens_on_an_address_that_appears_later_and_fails_in_words_of_dns(tmp_path: Path) -> None:
    with services_net(tmp_path) as net:
        late = ("10.8.0.1", "2001:db8:8::1")
        silent = Resolver("isp", late, {".": ("192.0.2.2",), "example.com": AUTHORITY}, freebind=True)
        request = replace(default_request(net), resolvers=(silent,))
        with serving(net, request):
            for address in late:
                net.run(["ip", "addr", "add", address, "dev", "lo"], "isp")
                assert net.dig(f"@{address}", "+short", "www.example.com") == "93.184.216.34\n"
                assert net.dig(f"@{address}", "+short", "+tcp", "www.example.com") == "93.184.216.34\n"
            assert "status: SERVFAIL" in net.dig("@10.8.0.1", "elsewhere.org")


def test_an_address_that_the_node_does_not_have_is_reported_with_its_place(tmp_path: Path) -> None:
    with services_net(tmp_path) as net:
        request = replace(default_request(net), resolvers=(Resolver("isp", ("10.8.0.1",), {".": AUTHORITY}),))
        with start_services(net, request) as process:
            assert process.stdout is not None
            line = json.loads(process.stdout.readline())
            assert process.wait(10) == 1
    assert line["ready"] is False
    assert {key: line[key] for key in ("node", "address", "port", "transport")} == {
        "node": "isp",
        "address": "10.8.0.1",
        "port": 53,
        "transport": "udp",
    }
    assert "isp: cannot listen on 10.8.0.1 port 53 (udp): Cannot assign requested address" in line["error"]

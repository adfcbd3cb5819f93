"""From a variant and a topology to what is built and served."""

from __future__ import annotations

from pathlib import Path

import pytest
from mininet.topo import Topo

from testbed.internet import lab_request, roles_of, services_request
from testbed.lab.model import LabPlanError
from testbed.lab.topology import load_topology
from testbed.scenario.load import parse_scenario
from testbed.scenario.values import Variant

SCENARIO = b"""
title: Names
sites:
  www.example.com: {address: [93.184.216.34, "2001:db8:4::34"], node: web, http: true}
  intranet.example.com: {address: 10.20.0.10, node: private, private: true, http: true}
tunnel: {program: vpn}
workload: [{dns: www.example.com}]
variants: {without: {tunnel: null}, with: {}}
"""


def variants() -> dict[str, Variant]:
    return parse_scenario(SCENARIO, "names.yaml").variants


def test_the_shipped_topology_says_who_does_what() -> None:
    roles = roles_of(load_topology("client-isp-server"))
    assert (roles.resolver_node, roles.vpn_node, roles.vpn_address) == ("isp", "vpn", "198.51.100.10")
    assert roles.tunnel_resolver_addresses == ("10.8.0.1", "2001:db8:8::1")


def test_a_topology_without_roles_says_which_option_is_missing() -> None:
    topo = Topo()
    topo.addHost("client")
    with pytest.raises(LabPlanError, match="resolver=") as caught:
        roles_of(topo)
    assert len(caught.value.problems) == 3


def test_site_and_name_server_addresses_are_asked_of_the_lab() -> None:
    roles = roles_of(load_topology("client-isp-server"))
    request = lab_request(variants()["without"], roles)
    assert request.addresses["web"] == ("93.184.216.34", "2001:db8:4::34", "93.184.216.53", "2001:db8:4::53")
    assert request.resolvers == {"client": ("192.168.0.1", "2001:db8:1::1")}


def test_a_private_name_is_known_behind_the_vpn_only() -> None:
    roles = roles_of(load_topology("client-isp-server"))
    request = services_request(variants()["with"], roles, nodes={}, log_directory=3, ca_certificate="/ca.pem")
    public, private = request.authorities
    assert (public.node, private.node) == ("web", "private")
    assert not any("intranet" in record.name for zone in public.zones for record in zone.records)
    isp, behind_vpn = request.resolvers
    assert "intranet.example.com" not in isp.forwards
    assert behind_vpn.forwards["intranet.example.com"] == ("10.20.0.53", "2001:db8:20::53")
    assert behind_vpn.freebind


def test_without_a_tunnel_there_is_no_resolver_behind_it() -> None:
    roles = roles_of(load_topology("client-isp-server"))
    request = services_request(variants()["without"], roles, nodes={}, log_directory=3, ca_certificate="/ca.pem")
    assert [resolver.node for resolver in request.resolvers] == ["isp"]


def test_the_shipped_topology_file_imports_nothing_but_the_topology_language() -> None:
    text = Path("topologies/client_isp_server.py").read_text()
    imports = [line for line in text.splitlines() if line.startswith(("import ", "from "))]
    assert imports == ["import sys", "from mininet.topo import Topo"]

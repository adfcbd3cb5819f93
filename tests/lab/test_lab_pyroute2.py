"""The kernel's state, read back by pyroute2, beside the lab's own netlink answers: two encoders that must agree."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import pytest

from testbed.lab.build import Lab
from testbed.lab.plan import LabPlan

pytestmark = [pytest.mark.root, pytest.mark.interop]

READER = """
import json
from pyroute2 import IPRoute

with IPRoute() as kernel:
    names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in kernel.get_links()}
    links = {
        link.get_attr("IFLA_IFNAME"): [link.get_attr("IFLA_MTU"), link.get_attr("IFLA_ADDRESS")]
        for link in kernel.get_links()
    }
    addresses = sorted(
        [names[entry["index"]], f"{entry.get_attr('IFA_ADDRESS')}/{entry['prefixlen']}"] for entry in kernel.get_addr()
    )
    routes = []
    for family in (2, 10):
        for route in kernel.get_routes(family=family, table=254):
            length = route["dst_len"]
            anything = "0.0.0.0" if family == 2 else "::"
            routes.append([
                4 if family == 2 else 6,
                f"{route.get_attr('RTA_DST') or anything}/{length}",
                route.get_attr("RTA_GATEWAY"),
                names[route.get_attr("RTA_OIF")],
            ])
print(json.dumps({"links": links, "addresses": addresses, "routes": routes}))
"""


def read_with_pyroute2(lab: Lab) -> dict[str, Any]:
    """What pyroute2 and what the lab itself say of every node."""
    seen = {}
    for name, node in lab.nodes.items():
        process = node.spawn([sys.executable, "-W", "ignore", "-c", READER], stdout=subprocess.PIPE)
        text, _ = process.communicate(timeout=30)
        seen[name] = {"pyroute2": json.loads(text), "own": {"interfaces": node.interfaces(), "routes": node.routes()}}
    return seen


def test_pyroute2_reads_the_plan_back_and_agrees_with_the_labs_own_answers(
    in_lab: Callable[..., Any], shipped_plan: LabPlan
) -> None:
    for name, both in in_lab(read_with_pyroute2).items():
        plan, foreign, own = shipped_plan.node(name), both["pyroute2"], both["own"]
        for interface in plan.interfaces:
            assert foreign["links"][interface.name] == [interface.mtu_octets, interface.mac]
            found = {address for device, address in foreign["addresses"] if device == interface.name}
            assert found == {*interface.addresses, interface.link_local}
        routes = {tuple(route) for route in foreign["routes"]}
        planned = {(r.family, str(ip_network(r.destination)), r.gateway, r.interface) for r in plan.routes}
        assert planned <= routes
        answered = {(r["family"], r["destination"], r["gateway"], r["interface"]) for r in own["routes"]}
        assert answered == routes - {route for route in routes if route[1].startswith("ff00::")}
        assert sorted([i["name"], a] for i in own["interfaces"] for a in i["addresses"]) == foreign["addresses"]

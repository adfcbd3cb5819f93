"""What the lab's tests share: the shipped topology, built once per module in a bubble of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from testbed.lab.bubble import Bubble, Conductor
from testbed.lab.build import Lab
from testbed.lab.plan import LabPlan, LabRequest, TapRequest, plan_lab
from testbed.lab.topology import load_topology

Work = Callable[[Lab], Any]


@pytest.fixture
def shipped_plan() -> LabPlan:
    """The shipped topology with a tap, resolvers, and site addresses on and off its links."""
    return plan_lab(
        load_topology("client-isp-server"),
        LabRequest(
            addresses={"web": ["93.184.216.53", "2001:db8:4::53", "203.0.113.7", "2001:db8:77::7"]},
            resolvers={"client": ["192.168.0.1", "2001:db8:1::1"]},
            taps=[TapRequest("isp", "isp")],
            hosts={"client": {"a.example": "203.0.113.7"}},
        ),
    )


@pytest.fixture
def in_lab(shipped_plan: LabPlan) -> Callable[..., Any]:
    """Call it with a function of a `Lab`: it runs inside a fresh lab and its JSON value comes back."""

    def run(work: Work, before_up: Callable[[Lab], None] | None = None) -> Any:
        def inside(_conductor: Conductor) -> Any:
            with Lab.build(shipped_plan, before_up) as lab:
                return work(lab)

        with Bubble() as bubble:
            return bubble.run(inside)

    return run

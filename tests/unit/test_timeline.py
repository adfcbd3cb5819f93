"""What events do to a link: both ways, or only what one end sends."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

from testbed.children import Child
from testbed.lab.build import Lab
from testbed.lab.impair.model import Impairment
from testbed.scenario.values import Event, LinkOptions
from testbed.timeline import Timeline

PLANNED = (Impairment(delay_s=0.01), Impairment(delay_s=0.02))


class Links:
    """A lab with one link, between isp and client, that writes down what is asked of it."""

    def __init__(self) -> None:
        self.plan = SimpleNamespace(links=[SimpleNamespace(node1="isp", node2="client", impairments=PLANNED)])
        self.changes: list[tuple[Any, ...]] = []

    def set_link(self, a: str, b: str, direction: str, impairment: Impairment) -> float:
        self.changes.append((a, b, direction, impairment))
        return time.time()


class Ended:
    """A workload that has nothing more to say."""

    def has_line(self, _timeout: float) -> bool:
        return True

    def read_line(self, _timeout: float) -> None:
        return None


def changes_by(event: Event) -> list[tuple[Any, ...]]:
    lab = Links()
    timeline = Timeline([event], cast("Lab", lab), None, -1, lambda _words: None)
    timeline.begin(time.time() - event.at)
    assert timeline.next_line(cast("Child", Ended()), 60.0) is None
    (record,) = timeline.close()
    assert record["ok"], record["error"]
    return lab.changes


def test_an_event_changes_both_ways_of_a_link_as_each_was_planned() -> None:
    event = Event(1.0, "link", "client-isp", link=LinkOptions("client", "isp", loss=5.0))
    assert changes_by(event) == [
        ("isp", "client", "a_to_b", Impairment(delay_s=0.01, loss=0.05)),
        ("isp", "client", "b_to_a", Impairment(delay_s=0.02, loss=0.05)),
    ]


def test_an_event_from_one_end_changes_what_that_end_sends_and_nothing_else() -> None:
    event = Event(1.0, "link", "client-isp", link=LinkOptions("client", "isp"), down=True, sender="client")
    assert changes_by(event) == [("isp", "client", "b_to_a", Impairment(delay_s=0.02, loss=1.0))]

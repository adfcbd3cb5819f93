"""What the report draws of the lab, its eye and the sizes and times of packets; from real frames."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from testbed.dissection.shown import ShownPackets, shown_packets
from testbed.report.html_sizes import still_told, timelines
from testbed.report.html_topology import topology_view
from testbed.report.places import graph_of
from testbed.result import RunResult
from tests.unit.report_run import TOPOLOGY, write_run
from tests.unit.test_report_sample import sample_result


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunResult, ShownPackets]:
    directory = tmp_path_factory.mktemp("run")
    result = write_run(directory)
    return result, shown_packets(result, directory)


# -- sizes and times ---------------------------------------------------------------------------------------------------


def test_what_sizes_still_tell_is_counted_in_the_capture(run: tuple[RunResult, ShownPackets]) -> None:
    result, shown = run
    told = still_told(result, "without", "with", shown.lists, shown.inside["with"])
    assert "8 packets went through the tunnel, each alone in a packet exactly 52 octets longer." in told[0]
    assert "In 1-dns it began with 75, 91 octets without the tunnel, and 127, 143 with it." in told[1]
    assert "Of 8 packets without the tunnel, 8 come back sealed in the same order, each 52 octets longer." in told[1]
    assert "of the 1 longest pauses between sealed packets (from 147.8 ms on), 1 fall exactly" in told[2]


def test_sizes_that_differ_are_not_said_to_come_back(run: tuple[RunResult, ShownPackets]) -> None:
    result, shown = run
    lists = {**shown.lists}
    lists["with"] = [replace(one, length_octets=1000 + 37 * (one.frame % 5)) for one in lists["with"]]
    told = " ".join(still_told(result, "without", "with", lists, None))
    assert "8 come back" not in told
    assert "went through the tunnel" not in told


def test_a_timeline_begins_with_the_first_action_and_marks_each(run: tuple[RunResult, ShownPackets]) -> None:
    result, shown = run
    views = {view.variant: view for view in timelines(shown.lists, result.variants)}
    assert set(views) == {"without", "with"}
    assert views["with"].packets == 8
    assert [mark.name for mark in views["with"].marks] == [action.id for action in result.variants["with"].actions]
    assert all(0 <= stem.x <= 1000 and 0 < stem.height <= 84 for view in views.values() for stem in view.stems)


# -- the lab and its eye -----------------------------------------------------------------------------------------------


def test_the_drawing_follows_what_the_kernel_answers_and_what_was_reached() -> None:
    result = replace(sample_result(), scenario={"topology": TOPOLOGY})
    graph = graph_of(result)
    views = {name: topology_view(result, variant, graph) for name, variant in result.variants.items()}
    kinds = {name: sorted({way.kind for way in view.ways}) for name, view in views.items()}
    assert kinds == {"without": ["clear"], "with": ["beyond", "sealed"], "split": ["beyond", "clear", "sealed"]}
    assert [bool(view.tube) for view in views.values()] == [False, True, True]
    assert [box.name for box in views["without"].refused] == ["private"]
    assert views["split"].refused == ()
    assert "Beside it: www.example.com" in views["split"].sentence


def test_the_eye_looks_at_the_link_that_its_tap_records() -> None:
    result = replace(sample_result(), scenario={"topology": TOPOLOGY})
    view = topology_view(result, result.variants["with"], graph_of(result))
    places = {box.name: box.x + box.width / 2 for box in view.boxes}
    (eye,) = view.eyes
    assert eye.name == "Your ISP"
    assert places["client"] < eye.x < places["ISP"]


def test_any_topology_is_drawn_inside_its_picture_and_no_two_nodes_on_one_place() -> None:
    star = {
        "client": {"a": {"peer": "hub", "addresses": []}},
        "hub": {f"h{n}": {"peer": f"n{n}", "addresses": []} for n in range(6)},
        **{f"n{n}": {"x": {"peer": "hub", "addresses": []}, "y": {"peer": f"n{n + 1}"}} for n in range(6)},
        "alone": {},
        "odd": "text",
    }
    result = replace(sample_result(), scenario={"topology": star})
    view = topology_view(result, result.variants["with"], graph_of(result))
    places = [(box.x + box.width / 2, box.y) for box in view.boxes]
    assert len(set(places)) == len(places) == len(star)
    assert all(
        box.x >= 0 and box.x + box.width <= view.width and box.y + box.height <= view.height for box in view.boxes
    )


@pytest.mark.parametrize("topology", [None, [], "x", {"client": None}, {"a": {"i": {"peer": "a"}}}])
def test_a_result_without_a_usable_topology_is_drawn_as_the_shipped_one(topology: object) -> None:
    result = replace(sample_result(), scenario={"topology": topology})
    view = topology_view(result, result.variants["with"], graph_of(result))
    assert [box.name for box in view.boxes] == ["client", "ISP", "transit", "web", "VPN", "private"]
    assert view.tube


def test_an_eye_never_hides_a_box(run: tuple[RunResult, ShownPackets]) -> None:
    result = run[0]
    whole = result.variants["with"]
    exposure = (*whole.exposure, *(replace(row, observer="exit") for row in whole.exposure[:2]))
    taps = (*whole.taps, replace(whole.taps[0], name="exit", node="vpn", interface="vpn-eth0"))
    told = replace(whole, taps=taps, exposure=exposure)
    result = replace(result, variants={**result.variants, "with": told})
    view = topology_view(result, told, graph_of(result))
    assert [eye.name for eye in view.eyes] == ["Your ISP", "exit"]
    for eye in view.eyes:
        assert 12 <= eye.y <= view.height - 12
        for box in view.boxes:
            beside = eye.x + 24 < box.x or eye.x - 24 > box.x + box.width
            assert beside or eye.y + 12 < box.y or eye.y - 12 > box.y + box.height, (eye, box)


def test_no_two_names_of_actions_meet_in_a_timeline_and_each_action_has_its_line(
    run: tuple[RunResult, ShownPackets],
) -> None:
    result, shown = run
    busy = result.variants["with"]
    action = busy.actions[0]
    many = tuple(replace(action, id=f"{n}-http", started_at=action.started_at + n / 1000) for n in range(12))
    (view,) = timelines({"with": shown.lists["with"]}, {"with": replace(busy, actions=many)})
    assert len(view.marks) == 12
    for row in range(4):
        places = sorted(mark.x for mark in view.marks if mark.name and mark.row == row)
        assert all(later - earlier >= 62 for earlier, later in itertools.pairwise(places)), places
    assert view.marks[0].name == "0-http"

"""A lab leaves its host alone: before, during and after, whoever is killed, however many there are."""

from __future__ import annotations

import pytest

from tests.lab.lab_host import CHANGED_ROOTS, run_on_own_host

pytestmark = pytest.mark.root


def test_a_host_with_shared_mounts_forwarding_and_a_firewall_stays_as_it_is() -> None:
    seen = run_on_own_host("unchanged_host")
    assert seen["works"] is True
    assert seen["during"] == []
    assert seen["after"] == []
    assert seen["new_while_it_ran"] > 3  # the comparison would see something


def test_name_lookups_of_a_lab_do_not_reach_the_hosts_sockets() -> None:
    seen = run_on_own_host("deaf_decoys")
    assert seen["heard_inside"] == 0
    assert seen["heard_outside"] > 0
    assert "nscd" not in seen["run"]


@pytest.mark.parametrize("role", ["front", "maker", "init", "conductor", "program"])
def test_kill_9_at_any_moment_leaves_nothing(role: str) -> None:
    seen = run_on_own_host("killed", role, "8", "1")
    assert seen["left"] == []


def test_twenty_labs_in_parallel_work() -> None:
    seen = run_on_own_host("in_parallel", "20")
    assert seen["answers"] == [True] * 20
    assert seen["left"] == []


def test_two_hundred_labs_in_a_row_leave_nothing() -> None:
    seen = run_on_own_host("in_a_row", "200")
    assert seen["nodes"] == [6] * 200
    assert seen["left"] == []
    assert seen["descriptors"][0] == seen["descriptors"][1]


def test_labs_rebuilt_in_one_bubble_leave_no_mount_link_or_descriptor_in_it() -> None:
    seen = run_on_own_host("rebuilt_in_one_bubble", "50")
    assert seen["before"] == seen["after"]


def test_a_lab_runs_in_the_shell_of_another_lab() -> None:
    seen = run_on_own_host("nested")
    assert seen["code"] == 0
    answer = seen["answer"].splitlines()
    assert answer[0] == "true"
    assert sorted(line.split()[0] for line in answer[1:]) == ["client", "isp", "private", "transit", "vpn", "web"]


def test_labs_are_found_and_entered_and_what_runs_there_dies_with_them() -> None:
    seen = run_on_own_host("attached")
    assert seen["found"] == [["mine", 0]]
    assert sorted(seen["nodes"]) == ["client", "isp", "private", "transit", "vpn", "web"]
    assert seen["checks"] == [0, 0, 0, 0, 7, 127]
    assert "no node is called nobody" in seen["refused"][0]
    assert "no lab of yours called other runs; there are: mine" in seen["refused"][1]
    assert seen["died"] == 128 + 9
    assert seen["labs_after"] == 0


def test_an_ordinary_user_runs_and_enters_a_lab() -> None:
    seen = run_on_own_host("as_a_user", as_user=65534)
    assert seen["uid"] == 65534
    assert seen["uid_inside"] == 0
    assert seen["works"] is True
    assert seen["tun"] == ""
    assert seen["entered"] == [128 + 9]  # it had been in the lab, and died with it
    assert seen["left"] == []


@pytest.mark.parametrize("root", CHANGED_ROOTS)
def test_a_lab_runs_in_a_changed_root_directory(root: str) -> None:
    assert run_on_own_host("one_lab", root=root) is True
    assert run_on_own_host("attached", root=root)["checks"] == [0, 0, 0, 0, 7, 127]

"""Expectations of what is measured: each can hold, each can fail, and none holds where a capture has holes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from testbed.facts import Fact, Kind
from testbed.result import ActionRecord, ExpectationResult
from testbed.scenario import bounds
from testbed.scenario.bounds import Bound, OneOf
from testbed.scenario.values import Expectation, Relation, Selector
from testbed.verdict import SiteLog, VariantEvidence, judge
from tests.unit.verdict_samples import CLIENT, VPN, Frame, frames_of, packet, sighting, tap, variant

NAME = Fact(Kind.DNS_NAME, "www.example.com", "1-dns", "www.example.com", ("www.example.com",))
ACTION = ActionRecord("1-dns", "dns", "www.example.com", True, 100.5, 104.0)
LEAKED = sighting(Kind.DNS_NAME, NAME.value, 3)
TUNNEL = sighting(Kind.TUNNEL, f"openvpn {CLIENT} -> {VPN}", 4)
FRAMES = frames_of(
    bytes(60), packet(VPN), packet("8.8.8.8", b"www.example.com"), packet(CLIENT, source=VPN), packet(VPN)
)
QUIET = frames_of(packet(VPN), packet(VPN))


def asked(
    evidence: VariantEvidence, relation: Relation, about: Bound | OneOf | Selector, observer: str = "isp"
) -> ExpectationResult:
    (result,) = judge([evidence], [Expectation("with", observer, relation, about)]).expectations
    return result


def leaking() -> VariantEvidence:
    return variant("with", [NAME], tap("isp", LEAKED, TUNNEL, frames=FRAMES), actions=[ACTION])


def tight(*frames: Frame, dropped: int = 0) -> VariantEvidence:
    return variant("with", [NAME], tap("isp", frames=frames or QUIET, dropped=dropped), actions=[ACTION])


@pytest.mark.parametrize(
    ("bound", "holds"), [("none", False), (">= 1", True), ("<= 1", True), (">= 2", False), (1, True)]
)
def test_leaks_are_counted(bound: object, holds: bool) -> None:
    result = asked(leaking(), "leaks", bounds.leaks(bound))
    assert result.holds is holds
    assert "www.example.com" in result.reason
    assert [(one.file, one.frame) for one in result.evidence] == [("with/isp.pcapng", 3)]


def test_no_leak_holds_only_for_a_whole_capture() -> None:
    assert asked(tight(), "leaks", bounds.leaks("none")).holds
    result = asked(tight(dropped=1), "leaks", bounds.leaks("none"))
    assert not result.holds
    assert "lost 1 packet" in result.reason
    assert not asked(variant("with", [NAME], tap("isp"), actions=[ACTION]), "leaks", bounds.leaks("none")).holds


def test_behind_the_vpn_server_nothing_is_called_leak_free() -> None:
    behind = variant("with", [NAME], tap("vpn", frames=QUIET, before_tunnel_server=False), actions=[ACTION])
    assert not asked(behind, "leaks", bounds.leaks("none"), "vpn").holds


@pytest.mark.parametrize(
    ("bound", "holds"), [(">= 2s", True), (">= 2500ms", True), (">= 3s", False), ("never", False), ("< 2s", False)]
)
def test_the_first_leak_is_timed_from_the_start_of_the_workload(bound: str, holds: bool) -> None:
    result = asked(leaking(), "first_leak_after", bounds.seconds(bound))
    assert result.holds is holds
    assert "2.500 s after the workload began" in result.reason
    assert [one.frame for one in result.evidence] == [3]


def test_the_workload_may_have_begun_before_its_first_action() -> None:
    earlier = replace(leaking(), workload_began_at=99.0)
    result = asked(earlier, "first_leak_after", bounds.seconds(">= 4s"))
    assert result.holds
    assert "4.000 s after the workload began" in result.reason


def test_what_never_leaked_leaked_later_than_any_time_but_not_early() -> None:
    assert asked(tight(), "first_leak_after", bounds.seconds(">= 2s")).holds
    assert asked(tight(), "first_leak_after", bounds.seconds("never")).holds
    assert not asked(tight(), "first_leak_after", bounds.seconds("< 2s")).holds
    assert not asked(tight(dropped=1), "first_leak_after", bounds.seconds(">= 2s")).holds


@pytest.mark.parametrize(("bound", "holds"), [("== 2", True), (">= 100", False), ("<= 2", True), ("never", False)])
def test_a_tunnel_is_detected_at_a_packet_of_its_own_conversation(bound: str, holds: bool) -> None:
    result = asked(leaking(), "tunnel_detected_at_packet", bounds.packet(bound))
    assert result.holds is holds
    assert "packet 2 of the conversation" in result.reason
    assert [one.frame for one in result.evidence] == [4]


def test_a_tunnel_that_no_rule_recognised_is_detected_never_but_only_if_there_was_one() -> None:
    assert asked(tight(), "tunnel_detected_at_packet", bounds.packet(">= 100")).holds
    assert asked(tight(), "tunnel_detected_at_packet", bounds.packet("never")).holds
    assert not asked(tight(), "tunnel_detected_at_packet", bounds.packet("<= 100")).holds
    elsewhere = tight(*frames_of(packet("8.8.8.8")))
    assert not asked(elsewhere, "tunnel_detected_at_packet", bounds.packet("never")).holds
    assert not asked(tight(dropped=1), "tunnel_detected_at_packet", bounds.packet("never")).holds


@pytest.mark.parametrize(
    ("relation", "bound", "holds"),
    [
        ("volume", bounds.octets("<= 68 B"), True),
        ("volume", bounds.octets("< 0.06 kB"), False),
        ("packets", bounds.count("== 2"), True),
        ("packets", bounds.count(">= 3"), False),
    ],
)
def test_sizes_are_measured_at_the_tap(relation: Relation, bound: Bound, holds: bool) -> None:
    result = asked(tight(), relation, bound)
    assert result.holds is holds
    assert [one.frame for one in result.evidence] == [1, 2]
    assert not asked(tight(dropped=3), relation, bound).holds


def test_overhead_is_asked_of_the_map_and_says_why_where_there_is_none() -> None:
    known = replace(tight(), overhead_octets=52.0, map_file="with/inner-outer.csv")
    assert asked(known, "overhead", bounds.octets("<= 60")).holds
    assert not asked(known, "overhead", bounds.octets("<= 50")).holds
    unknown = asked(replace(tight(), not_mapped="no keys"), "overhead", bounds.octets("<= 60"))
    assert not unknown.holds
    assert "no keys" in unknown.reason


def called(*sources: str) -> VariantEvidence:
    records = tuple({"source": [source, 4000], "time": 101.0} for source in sources)
    return variant("with", [NAME], logs=[SiteLog("www.example.com", "with/logs/www.jsonl", records)])


@pytest.mark.parametrize(
    ("sources", "expected", "holds", "lines"),
    [
        ((VPN, VPN), (VPN,), True, [1, 2]),
        ((VPN, CLIENT), (VPN,), False, [2]),
        ((VPN, CLIENT), (VPN, CLIENT), True, [1, 2]),
        ((), (VPN,), False, []),
    ],
)
def test_every_caller_of_a_server_must_be_one_of_the_addresses(
    sources: tuple[str, ...], expected: tuple[str, ...], holds: bool, lines: list[int]
) -> None:
    result = asked(called(*sources), "client-address", OneOf(expected), "server:www.example.com")
    assert result.holds is holds
    assert [one.frame for one in result.evidence] == lines


def test_a_log_that_cannot_be_read_or_is_not_there_proves_no_caller() -> None:
    torn = variant("with", [NAME], logs=[SiteLog("www.example.com", "log", ({"source": [VPN, 1]}, None))])
    assert not asked(torn, "client-address", OneOf((VPN,)), "server:www.example.com").holds
    assert not asked(called(VPN), "client-address", OneOf((VPN,)), "server:www.example.org").holds


NAMES = [replace(NAME, value=f"{n}.example.com", needles=(f"{n}.example.com",)) for n in "abc"]


@pytest.mark.parametrize(("count", "holds"), [(">= 2", True), ("== 2", True), (">= 3", False), ("< 2", False)])
def test_sees_counts_different_facts(count: str, holds: bool) -> None:
    twice = [sighting(Kind.DNS_NAME, fact.value) for fact in NAMES[:2]]
    evidence = variant("with", [*NAMES, NAMES[0]], tap("isp", *twice, frames=FRAMES), tunnel=None)
    result = asked(evidence, "sees", Selector("dns-name", count=bounds.count(count)))
    # c is unproven: it may have been seen, so an upper bound must allow for it
    assert result.holds is (holds and count != "== 2")
    assert "2 of 3 different ones are seen" in result.reason
    assert len(result.evidence) == 2


@pytest.mark.parametrize(("count", "holds"), [(">= 1", True), (">= 2", False)])
def test_hides_counts_what_there_was_to_hide(count: str, holds: bool) -> None:
    without = variant("without", [NAME], tap("isp", sighting(Kind.DNS_NAME, NAME.value), frames=FRAMES), tunnel=None)
    expectation = Expectation("with", "isp", "hides", Selector("dns-name", count=bounds.count(count)))
    (result,) = judge([without, tight()], [expectation]).expectations
    assert result.holds is holds


@pytest.mark.parametrize("text", ["", ">=", "=> 2", ">= -1", ">= 2 3", "~ 2", True, None, ">= 1e9", [1]])
def test_what_is_no_comparison_is_refused(text: object) -> None:
    for read in (bounds.count, bounds.leaks, bounds.packet, bounds.seconds, bounds.octets):
        with pytest.raises(ValueError, match="must be"):
            read(text)


@pytest.mark.parametrize(
    ("bound", "number"),
    [(bounds.octets("<= 20 kB"), 20_000), (bounds.octets("1.5 KiB"), 1536), (bounds.seconds("> 2 min"), 120)],
)
def test_units_are_read_and_a_bound_reads_back_from_its_text(bound: Bound, number: float) -> None:
    assert bound.number == number
    read = bounds.octets if "B" in bound.written else bounds.seconds
    assert read(bound.written) == bound

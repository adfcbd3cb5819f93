"""The matrix pairs the same fact of different variants, and never two different ones."""

from __future__ import annotations

from dataclasses import replace

from testbed.report.matrix import observer_tables, observers_of, shared_value
from testbed.report.own_addresses import is_tunnel_interface
from testbed.report.summary import answer, reproduce_command, verdict_line
from testbed.result import Exposure, FactRef, RunResult, VariantResult, Verdict
from testbed.run import command_line
from tests.unit.test_report_sample import sample_result, sample_variant


def run_of(**variants: list[FactRef]) -> RunResult:
    def variant(name: str, facts: list[FactRef]) -> VariantResult:
        exposure = tuple(Exposure("isp", fact, Verdict.SEEN) for fact in facts)
        return replace(sample_variant("with"), name=name, exposure=exposure, actions=())

    return RunResult({}, 1, True, {name: variant(name, facts) for name, facts in variants.items()}, (), {})


def rows_of(result: RunResult) -> list[tuple[str, list[str | None]]]:
    (table,) = observer_tables(result)
    return [
        (row.value, [cell.fact.value if cell else None for cell in row.cells])
        for group in table.groups
        for row in group.rows
    ]


def test_values_that_differ_only_in_their_canary_share_a_row() -> None:
    one, other = "3f9a" * 8, "b07c" * 8
    result = run_of(
        a=[FactRef("http-header", f"Cookie: s={one}", "1"), FactRef("http-header", f"X-Id: {one}", "1")],
        b=[FactRef("http-header", f"X-Id: {other}", "1"), FactRef("http-header", f"Cookie: s={other}", "1")],
    )
    assert rows_of(result) == [
        ("Cookie: s=…", [f"Cookie: s={one}", f"Cookie: s={other}"]),
        ("X-Id: …", [f"X-Id: {one}", f"X-Id: {other}"]),
    ]


def test_two_addresses_are_two_rows_and_never_one() -> None:
    result = run_of(a=[FactRef("dns-answer", "10.0.0.1", "1")], b=[FactRef("dns-answer", "10.0.0.2", "1")])
    assert rows_of(result) == [("10.0.0.1", ["10.0.0.1", None]), ("10.0.0.2", [None, "10.0.0.2"])]


def test_a_fact_of_one_variant_alone_keeps_its_row() -> None:
    result = run_of(a=[FactRef("dns-name", "x.example", "1")], b=[])
    assert rows_of(result) == [("x.example", ["x.example", None])]


def test_equal_facts_of_one_action_stay_as_many_as_they_are() -> None:
    twice = [FactRef("dns-name", "x.example", "1")] * 2
    assert rows_of(run_of(a=twice, b=twice)) == [("x.example", ["x.example", "x.example"])] * 2


def test_every_exposure_is_in_exactly_one_cell() -> None:
    result = sample_result()
    for table in observer_tables(result):
        for column, variant in enumerate(result.variants.values()):
            cells = [row.cells[column] for group in table.groups for row in group.rows if row.cells[column]]
            expected = [row for row in variant.exposure if row.observer == table.observer]
            assert sorted(map(id, cells)) == sorted(map(id, expected))


def test_the_isp_comes_first() -> None:
    result = sample_result()
    first = result.variants["without"]
    turned = replace(result, variants={"without": replace(first, exposure=tuple(reversed(first.exposure)))})
    assert observers_of(turned) == ("isp", "server:www.example.com")


def test_what_differs_in_the_middle_is_an_ellipsis() -> None:
    assert shared_value(["http://a/x/1f", "http://a/x/2f"]) == "http://a/x/…"
    assert shared_value(["same", "same"]) == "same"
    assert shared_value(["abc", "xyz"]) == ""
    assert shared_value([]) == ""


def test_the_answer_counts_what_the_client_did_and_says_what_is_unproven() -> None:
    said = answer(sample_result())
    assert said.sentence == "With the tunnel, your ISP sees 1 of 18 facts; without it, 17 of the same 18."
    assert any("1 of 24 facts unproven" in note for note in said.notes)
    assert said.notes[0] == "Still seen with the tunnel: your address"


def test_the_answer_compares_the_same_facts_and_names_apart_what_one_variant_alone_did() -> None:
    def of(action: str, *kinds: str) -> list[FactRef]:
        return [FactRef(kind, f"{kind} of x", action, "x.example") for kind in kinds]

    both, only_with, only_without = of("1", "dns-name", "http-url"), of("1", "http-body"), of("1", "payload")
    result = run_of(without=both + only_without, full=both + only_with, part=both[:1] + only_with)
    variants = dict(result.variants)
    for name in ("full", "part"):
        exposure = [replace(row, verdict=Verdict.HIDDEN) for row in variants[name].exposure]
        variants[name] = replace(
            variants[name], exposure=tuple(exposure), tunnel={"routes": "all" if name == "full" else []}
        )
    variants["without"] = replace(variants["without"], tunnel=None)
    said = answer(replace(result, variants=variants))
    assert said.sentence == "With the tunnel, your ISP sees 0 of 2 facts; without it, 2 of the same 2."
    assert said.notes == (
        "Only with the tunnel: 1 more about x.example, 0 of them seen",
        "Only without it: 1 more about x.example, 1 of them seen",
        "part: 0 of 1 of these 2 seen, and 0 of 1 more",
    )


def test_variants_without_a_common_fact_are_not_compared() -> None:
    result = run_of(
        without=[FactRef("dns-name", "a", "1", "a.example")], full=[FactRef("dns-name", "b", "2", "b.example")]
    )
    variants = dict(result.variants)
    variants["without"] = replace(variants["without"], tunnel=None)
    said = answer(replace(result, variants=variants))
    assert said.sentence == "With the tunnel, your ISP sees 1 of 1 facts; without it, 1 of 1 others."


def test_a_run_without_a_judged_fact_says_so() -> None:
    assert answer(RunResult({}, 1, True, {}, (), {})).sentence.startswith("Nothing was judged")


def test_a_failed_run_whose_expectations_hold_does_not_read_as_a_pass() -> None:
    assert verdict_line(replace(sample_result(ok=True), ok=False)) == "6 of 6 expectations hold, but the run failed"


def test_the_tunnels_device_is_the_one_that_the_variant_names() -> None:
    variant = sample_variant("with")
    assert is_tunnel_interface(variant, "tun0")
    assert not is_tunnel_interface(variant, "eth0")
    assert not is_tunnel_interface(sample_variant("without"), "tun0")
    unnamed = replace(variant, tunnel={"program": "wireguard"})
    assert is_tunnel_interface(unnamed, "wg0")


def test_the_command_to_repeat_a_run_comes_from_the_environment_or_the_scenario() -> None:
    result = sample_result()
    assert reproduce_command(result) == "sudo testbed run what-a-vpn-hides --seed 1"
    assert reproduce_command(replace(result, environment={})) == (
        "sudo testbed run scenarios/what-a-vpn-hides.yaml --seed 1"
    )


def test_a_run_by_the_command_line_notes_its_command_and_one_by_another_program_does_not() -> None:
    words = ["/opt/x/bin/testbed", "run", "my file.yaml", "--seed", "7"]
    assert command_line(words, as_root=True) == {"command": "sudo testbed run 'my file.yaml' --seed 7"}
    module = ["/opt/x/testbed/__main__.py", "run", "x"]
    assert command_line(module, as_root=False) == {"command": "testbed run x"}
    assert command_line(["/usr/bin/pytest", "run"], as_root=True) == {}
    assert command_line([], as_root=True) == {}

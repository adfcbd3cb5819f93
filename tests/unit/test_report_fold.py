"""Folding shows each distinct fact once, loses none, and never lets a seen fact stand under a hidden one."""

from __future__ import annotations

from dataclasses import replace

from testbed.report.fold import TOGETHER, YOU, FoldedRow, FoldedTable, folded_tables
from testbed.result import ActionRecord, Exposure, FactRef, RunResult, Verdict
from tests.unit.test_report_sample import sample_result, sample_variant

SEEN, HIDDEN, UNPROVEN = Verdict.SEEN, Verdict.HIDDEN, Verdict.UNPROVEN
ACTIONS = (("1-dns", "dns"), ("2-http", "http"), ("3-https", "https"), ("4-http", "http"))
Told = tuple[str, str, str, Verdict]  # kind, value, action, verdict


def table_of(observer: str = "isp", **variants: list[Told]) -> FoldedTable:
    """One observer's folded table; every fact concerns the site x.example."""
    made = {}
    actions = tuple(ActionRecord(name, verb, "x.example", True, 1.0, 2.0) for name, verb in ACTIONS)
    for name, told in variants.items():
        exposure = tuple(
            Exposure(observer, FactRef(kind, value, action, None if action == "tunnel" else "x.example"), verdict)
            for kind, value, action, verdict in told
        )
        made[name] = replace(sample_variant("with"), name=name, exposure=exposure, actions=actions)
    (table,) = folded_tables(RunResult({}, 1, True, made, (), {}))
    return table


def rows_of(table: FoldedTable) -> list[FoldedRow]:
    return [row for group in table.groups for row in group.rows]


def states(row: FoldedRow) -> list[str]:
    return [
        "-" if cell is None else f"{cell.seen} of {cell.total}" if cell.mixed else str(cell.verdict)
        for cell in row.cells
    ]


def test_a_name_asked_for_by_every_action_is_one_line_and_counts_once() -> None:
    asked: list[Told] = [("dns-name", "x.example", action, SEEN) for action, _ in ACTIONS]
    table = table_of(a=asked, b=asked[:1])
    (row,) = rows_of(table)
    assert states(row) == ["seen", "seen"]
    assert [count.total for count in table.counts] == [1, 1]


def test_the_name_of_the_resolver_that_every_action_asked_over_tls_counts_once() -> None:
    actions = tuple(ActionRecord(name, verb, f"{verb}://x.example/", True, 1.0, 2.0) for name, verb in ACTIONS[1:3])
    exposure = tuple(
        Exposure("isp", FactRef("tls-name", site, action, site), SEEN)
        for action, site in (("2-http", "dns.example"), ("3-https", "dns.example"), ("3-https", "x.example"))
    )
    variant = replace(sample_variant("with"), exposure=exposure, actions=actions)
    (table,) = folded_tables(RunResult({}, 1, True, {"with": variant}, (), {}))
    assert [(row.verb, row.values) for row in rows_of(table)] == [("dns", ("dns.example",)), ("https", ("x.example",))]
    assert [count.total for count in table.counts] == [2]


def test_addresses_of_both_families_share_a_line_where_their_verdicts_agree_and_say_how_many_where_not() -> None:
    both: list[Told] = [("dns-answer", "192.0.2.1", "1-dns", SEEN), ("dns-answer", "2001:db8::1", "1-dns", SEEN)]
    split: list[Told] = [both[0], ("dns-answer", "2001:db8::1", "1-dns", HIDDEN)]
    (row,) = rows_of(table_of(a=both, b=split))
    assert row.values == ("192.0.2.1", "2001:db8::1")
    assert states(row) == ["seen", "1 of 2"]


def test_the_clients_own_addresses_stay_apart_and_each_says_where_it_belongs() -> None:
    told: list[Told] = [
        ("client-address", "10.8.0.2", "1-dns", HIDDEN),
        ("client-address", "2001:db8:1::13", "1-dns", SEEN),
        ("client-address", "192.168.0.13", "1-dns", SEEN),
        ("client-address", "192.168.0.14", "2-http", SEEN),
        ("client-address", "fd00::2", "2-http", HIDDEN),
    ]
    table = table_of(a=told[1:3], b=told)
    assert [group.headline for group in table.groups] == [YOU]
    assert [(row.words, row.values, states(row)) for row in rows_of(table)] == [
        ("your address on the LAN (IPv4)", ("192.168.0.13", "192.168.0.14"), ["seen", "seen"]),
        ("your address on the LAN (IPv6)", ("fd00::2",), ["-", "hidden"]),
        ("your address from the ISP", ("2001:db8:1::13",), ["seen", "seen"]),
        ("your address in the tunnel", ("10.8.0.2",), ["-", "hidden"]),
    ]
    assert [count.total for count in table.counts] == [1, 1], "the client is one, whatever addresses it has"


def test_what_only_some_variants_did_is_counted_apart_from_what_can_be_compared() -> None:
    name: list[Told] = [("dns-name", "x.example", "1-dns", SEEN)]
    page: list[Told] = [("http-url", "http://x.example/", "2-http", HIDDEN)]
    content: list[Told] = [("http-body", "a page", "2-http", SEEN)]
    same = table_of(a=name + page, b=name + page)
    assert [
        (total.words, [count and (count.seen, count.total) for count in total.counts]) for total in same.totals
    ] == [("seen, of what the client did", [(1, 2), (1, 2)])]
    apart = table_of(a=name, b=name + page + content)
    assert [
        (total.words, [count and (count.seen, count.total) for count in total.counts]) for total in apart.totals
    ] == [
        ("seen, of what all variants did", [(1, 1), (1, 1)]),
        ("seen, of what only some did", [None, (1, 2)]),
    ]
    nothing_shared = table_of(a=name, b=page)
    assert [total.words for total in nothing_shared.totals] == ["seen, of what each variant did"]


def test_a_page_over_https_is_another_secret_than_one_over_http() -> None:
    told: list[Told] = [("http-url", "http://x/", "2-http", SEEN), ("http-url", "https://x/", "3-https", HIDDEN)]
    table = table_of(a=told)
    assert [(row.verb, states(row)) for row in rows_of(table)] == [("http", ["seen"]), ("https", ["hidden"])]
    assert (table.counts[0].seen, table.counts[0].total) == (1, 2)


def test_kinds_of_one_protocol_share_a_line_only_while_all_verdicts_agree() -> None:
    told: list[Told] = [("http-url", "http://x/", "2-http", SEEN), ("http-body", "b", "2-http", SEEN)]
    assert [row.kinds for row in rows_of(table_of(a=told))] == [("http-url", "http-body")]
    differing: list[Told] = [told[0], ("http-body", "b", "2-http", UNPROVEN)]
    assert [states(row) for row in rows_of(table_of(a=told, b=differing))] == [["seen", "seen"], ["seen", "unproven"]]


def test_one_unproven_fact_makes_its_fold_unproven_and_one_seen_fact_makes_it_seen() -> None:
    told: list[Told] = [("http-url", "http://x/1", "2-http", HIDDEN), ("http-url", "http://x/2", "4-http", UNPROVEN)]
    table = table_of(a=told, b=[told[0], ("http-url", "http://x/2", "4-http", SEEN)])
    (row,) = rows_of(table)
    assert states(row) == ["unproven", "1 of 2"]
    assert [(count.seen, count.hidden, count.unproven) for count in table.counts] == [(0, 0, 1), (1, 0, 0)]


def test_an_action_that_a_variant_did_not_do_leaves_its_cell_empty() -> None:
    told: list[Told] = [("dns-name", "x.example", "1-dns", HIDDEN)]
    assert states(rows_of(table_of(a=[], b=told))[0]) == ["-", "hidden"]


def test_the_tunnel_its_server_volume_and_timing_are_shown_last_and_not_counted() -> None:
    told: list[Told] = [
        ("tunnel", "OpenVPN", "tunnel", SEEN),
        ("server-address", "198.51.100.10", "tunnel", SEEN),
        ("volume", "much", "session", SEEN),
        ("timing", "now", "session", SEEN),
        ("dns-name", "x.example", "1-dns", HIDDEN),
    ]
    table = table_of(a=told)
    assert [group.headline for group in table.groups] == ["x.example", TOGETHER]
    assert ("volume", "timing") in [row.kinds for row in table.groups[-1].rows]
    assert table.counts[0].total == 1


def test_what_a_server_recorded_is_one_line_beside_the_clients_address() -> None:
    told: list[Told] = [
        ("client-address", "192.168.0.13", "2-http", HIDDEN),
        ("server-address", "192.0.2.1", "2-http", SEEN),
        ("http-url", "http://x/", "2-http", SEEN),
        ("http-url", "https://x/", "3-https", SEEN),
    ]
    table = table_of("server:x.example", a=told)
    assert [states(row) for row in rows_of(table)] == [["hidden"], ["seen"]]


def test_every_exposure_stands_behind_exactly_one_cell() -> None:
    result = sample_result()
    for table in folded_tables(result):
        for column, variant in enumerate(result.variants.values()):
            cells = [row.cells[column] for row in rows_of(table)]
            behind = [id(exposure) for cell in cells if cell is not None for exposure in cell.exposures]
            assert sorted(behind) == sorted(id(row) for row in variant.exposure if row.observer == table.observer)

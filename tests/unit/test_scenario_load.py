"""Scenario files: what is read, and what is said of every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.scenario import Scenario, ScenarioErrors, TopologyRef, TopologyShape, parse_scenario
from testbed.scenario.load import TopologyLookup, load_scenario

NODES = ("client", "isp", "transit", "vpn", "web", "private")
GOOD = """\
title: A question
sites:
  www.example.com: {address: [93.184.216.34, "2001:db8:4::34"], node: web, http: true, https: true}
tunnel: {program: openvpn}
workload:
  - dns: www.example.com
  - http: http://www.example.com/account
variants:
  without: {tunnel: null}
  with: {}
  split: {tunnel: {routes: [203.0.113.0/24]}}
expect:
  - {variant: with, observer: isp, sees: [tunnel], hides: [dns-name, {kind: http-url, site: www.example.com}]}
"""


def parse(text: str | bytes, *overrides: str, nodes: TopologyLookup | None = NODES) -> Scenario:
    untrusted = text.encode() if isinstance(text, str) else text
    return parse_scenario(untrusted, "f.yaml", overrides, nodes=nodes)


def mistakes(text: str | bytes, *overrides: str, nodes: TopologyLookup | None = NODES) -> list[str]:
    with pytest.raises(ScenarioErrors) as caught:
        parse(text, *overrides, nodes=nodes)
    return str(caught.value).splitlines()


def replaced(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new, 1)


def test_a_good_file_gives_resolved_variants_in_order() -> None:
    scenario = parse(GOOD)
    assert list(scenario.variants) == ["without", "with", "split"]
    assert scenario.variants["without"].tunnel is None
    tunnel = scenario.variants["with"].tunnel
    assert tunnel is not None
    assert (tunnel.client, tunnel.cipher, tunnel.control, tunnel.routes) == (
        "openvpn",
        "AES-256-GCM",
        "tls-crypt",
        "all",
    )
    assert [action.id for action in scenario.variants["with"].workload] == ["1-dns", "2-http"]
    assert scenario.variants["with"].taps[0].node == "isp"


def test_variants_merge_mappings_replace_lists_and_remove_by_null() -> None:
    scenario = parse(GOOD)
    split = scenario.variants["split"].tunnel
    assert split is not None
    assert split.routes == ("203.0.113.0/24",)
    assert split.client == "openvpn", "the rest of the tunnel is inherited"


def test_an_expectation_is_one_claim_per_selector_with_its_line() -> None:
    claims = [(e.relation, str(e.selector), e.line) for e in parse(GOOD).expectations]
    assert claims == [
        ("sees", "tunnel", 13),
        ("hides", "dns-name", 13),
        ("hides", "http-url (site www.example.com)", 13),
    ]


def test_the_resolved_text_loads_to_the_same_variants() -> None:
    scenario = parse(GOOD)
    again = parse(scenario.resolved_yaml())
    assert again.variants == scenario.variants
    assert [(e.variant, e.selector) for e in again.expectations] == [
        (e.variant, e.selector) for e in scenario.expectations
    ]


def test_a_file_without_variants_is_one_variant() -> None:
    text = GOOD[: GOOD.index("variants:")]
    assert list(parse(text).variants) == ["only"]


@pytest.mark.parametrize(
    ("old", "new", "at", "path", "words"),
    [
        ("node: web", "node: wbe", "wbe", "sites.www.example.com.node", "did you mean web?"),
        ("program: openvpn", "program: opnvpn", "opnvpn", "tunnel.program", "did you mean openvpn?"),
        ("program: openvpn", "cypher: x", "cypher", "tunnel.cypher", "did you mean cipher?"),
        ("http: true,", "http: yes,", "yes,", "sites.www.example.com.http", "must be true or false"),
        ("title: A question\n", "seed: -1\n", "-1", "seed", "must be 0 or more"),
        ("dns: www.example.com", "dns: www.exmaple.com", "www.exm", "workload[0].dns", "did you mean www.example.com?"),
        ("- dns: www", "- dsn: www", "dsn", "workload[0].dsn", "did you mean dns?"),
        ("http://www", "https://www", "https://www", "workload[1].http", "`https` opens https://"),
        ("http://www.example.com/acc", "http:///acc", "http:///acc", "workload[1].http", "names no host"),
        ("com/acc", "com:81/acc", "http://www", "workload[1].http", "must not name port 81"),
        ("[93.184.216.34", "[93.184.216.340", "93.", "sites.www.example.com.address[0]", "must be an IPv4 or IPv6"),
        ("93.184.216.34,", "127.0.0.1,", "127.", "sites.www.example.com.address[0]", "loopback"),
        ("203.0.113.0", "203.0.113.7", "203", "variants.split.tunnel.routes[0]", "write 203.0.113.0/24"),
        ("observer: isp", "observer: ips", "ips", "expect[0].observer", "did you mean isp?"),
        ("observer: isp", "observer: server:www.exmple.com", "server:w", "expect[0].observer", "no such observer"),
        ("variant: with,", "variant: wiht,", "wiht", "expect[0].variant", "did you mean with?"),
        ("sees: [tunnel]", "sees: [tunel]", "tunel]", "expect[0].sees[0]", "did you mean tunnel?"),
        ("hides: [dns-name", "hides: [volume", "volume", "expect[0].hides[0]", "is never hidden"),
        ("sees: [tunnel]", "hides: [tunnel]", "hides: [dns", "expect[0].hides", "the key stands twice"),
        ("site: www.example.com}]", "site: a.b}]", "a.b}", "expect[0].hides[1].site", "no such site"),
        ("site: www.example.com}]", "action: 3-http}]", "3-http", "expect[0].hides[1].action", "did you mean 2-http?"),
        ("with: {}", "with: {seed: 2}", "seed", "variants.with.seed", "unknown key"),
        ("with: {}", "with: {links: {a-b: {bw: -1}}}", "-1", "variants.with.links.a-b.bw", "must be more than 0"),
        ("with: {}", "with: {taps: [{name: x, node: ipx}]}", "ipx", "variants.with.taps[0].node", "did you mean isp?"),
        ("with: {}", "with: {taps: [isp,isp]}", "isp]}", "variants.with.taps[1]", "another tap has this name"),
        ("with: {}", "with: {taps: [client-tun]}", "client-tun", "variants.with.taps[0]", "taken by the control tap"),
        ("with: {}", "with: {events: [{at: 2s}]}", "{at: 2s", "variants.with.events[0]", "exactly one of kill, start"),
        ("with: {}", "with: {tunnel: {program: command}}", "command", "tunnel.command", "missing; how both ends"),
    ],
)
def test_a_mistake_names_place_key_and_remedy(old: str, new: str, at: str, path: str, words: str) -> None:
    text = replaced(old, new)
    before = text[: text.index(at)]
    place = f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"
    found = mistakes(text)
    assert any(line.startswith(f"f.yaml:{place}: {path}: ") and words in line for line in found), found


def test_an_expectation_that_says_nothing_is_a_mistake() -> None:
    text = GOOD[: GOOD.index(", sees:")] + "}\n"
    assert any("says neither what the observer sees nor" in line for line in mistakes(text))


@pytest.mark.parametrize("workload", ["", "workload: []\n", "workload:\n"])
def test_a_variant_without_a_workload_is_a_mistake(workload: str) -> None:
    text = GOOD[: GOOD.index("workload:")] + workload + GOOD[GOOD.index("variants:") :]
    assert any("workload: missing" in line for line in mistakes(text))


def test_all_mistakes_of_a_file_are_told_at_once_in_its_order() -> None:
    text = replaced("node: web", "node: wbe").replace("title: A question\n", "titel: A\n").replace("{}", "{x: 1}")
    text = text.replace("sees: [tunnel]", "sees: [tunel]")
    places = [line.split(":")[1] for line in mistakes(text)]
    assert places == ["1", "1", "3", "10", "13"]


def test_a_wrong_value_of_a_base_is_told_once_not_per_variant() -> None:
    assert len(mistakes(replaced("node: web", "node: wbe"))) == 1


@pytest.mark.parametrize("wrong", ["cipher: AES-256-GCM", "control: tls-crypt"])
def test_static_keys_have_neither_aead_nor_a_control_channel(wrong: str) -> None:
    found = mistakes(replaced("program: openvpn", f"mode: static-key, {wrong}"))
    assert any("cannot be used with mode static-key" in line for line in found), found


def test_static_keys_bring_their_own_defaults() -> None:
    scenario = parse_scenario(replaced("program: openvpn", "mode: static-key").encode(), "f.yaml")
    tunnel = scenario.variants["with"].tunnel
    assert tunnel is not None
    assert (tunnel.mode, tunnel.cipher, tunnel.control) == ("static-key", "AES-256-CBC", "none")


def test_two_sites_with_one_address_are_refused() -> None:
    other = "  www.example.org: {address: 93.184.216.34, node: web}\ntunnel:"
    assert any("site www.example.com has this address already" in line for line in mistakes(replaced("tunnel:", other)))


def test_an_address_that_another_node_has_is_refused() -> None:
    shape = TopologyShape(frozenset(NODES), {"93.184.216.34": "client"})
    found = mistakes(GOOD, nodes=lambda reference: shape)
    words = "value 93.184.216.34: node client has this address, but the site is at web"
    assert found == [f"f.yaml:3:31: sites.www.example.com.address[0]: {words}"]


def test_what_a_topology_complains_of_stands_where_it_is_named() -> None:
    def refuse(reference: TopologyRef) -> TopologyShape:
        raise ValueError(f"{reference.name}: no such topology")

    found = mistakes(f"topology: nowhere\n{GOOD}", nodes=refuse)
    assert found == ["f.yaml:1:11: topology: nowhere: no such topology"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the file is empty"),
        ("# nothing\n", "the file is empty"),
        ("hello", "not the value hello"),
        ("- a\n- b\n", "not a list"),
        ("a: [1", "not YAML"),
        ("a:\n\tb: 1\n", "indented with a tab"),
        ("a: >= 2s\n", "put the comparison in quotes"),
        (b"title: \xff\n", "is not UTF-8"),
        ("a: 1\n" * 60_000, "the file has 300000 octets"),
        ("x" * 1_000_000, "the file has 1.0 MB; a scenario has at most 256 KB"),
        ("a: &a [*a]\n", "nested too deeply"),
        ("[" * 2_000, "nested too deeply"),
        ("a: *b\n", "undefined alias"),
        ("a: !!python/object/apply:os.system [id]\n", "is not allowed"),
        ("a: 1\na: 2\n", "the key stands twice (first in line 1)"),
        ("<<: {a: 1}\n", "merge keys are not used"),
        ("? [1]\n: 2\n", "a key must be plain text"),
    ],
)
def test_what_is_no_scenario_is_refused_with_a_reason(text: str | bytes, words: str) -> None:
    assert any(words in line for line in mistakes(text))


def test_aliases_cannot_expand_without_bound() -> None:
    lines = ["a0: &a0 [1,1,1,1,1,1,1,1,1]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    assert "more than 20000 values" in mistakes("\n".join(lines))[0]


def test_a_file_of_a_gigabyte_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "big.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(ScenarioErrors, match=r"1073\.7 MB"):
        load_scenario(path)


def test_a_file_that_is_not_there_is_a_mistake_of_the_scenario(tmp_path: Path) -> None:
    with pytest.raises(ScenarioErrors, match="cannot be read: No such file"):
        load_scenario(tmp_path / "none.yaml")


def test_overrides_reach_keys_with_dots_lists_and_single_variants() -> None:
    scenario = parse(
        GOOD,
        "seed=7",
        "sites.www.example.com.node=vpn",
        "variants.with.tunnel.dns=isp",
        "taps=[{name: isp, node: isp, ring_octets: 4096}]",
        'sites."a.example.net"={address: 192.0.2.7, node: web}',
        "workload.0={dns: a.example.net}",
        "variants.split.tunnel=null",
    )
    assert scenario.seed == 7
    split, with_ = scenario.variants["split"], scenario.variants["with"]
    assert split.sites["www.example.com"].node == "vpn"
    assert split.tunnel is None
    assert with_.tunnel is not None
    assert with_.tunnel.dns == "isp"
    assert with_.taps[0].ring_octets == 4096
    assert with_.workload[0].target == "a.example.net"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed", "must be key.path=value"),
        ("=1", "must be key.path=value"),
        ("tunnel.cipher=AES-256-GCN", "did you mean AES-256-GCM?"),
        ("workload.9=x", "is none of its places"),
        ("title.x=1", "nothing can be set inside it"),
        ("y=1", "unknown key"),
        ("seed=[", "not YAML"),
    ],
)
def test_a_wrong_override_is_named_as_such(override: str, words: str) -> None:
    found = mistakes(GOOD, override)
    assert any(line.startswith(f"--set {override}") and words in line for line in found), found


def test_a_value_that_is_wrong_is_not_told_to_be_missing_as_well() -> None:
    found = mistakes(replaced('[93.184.216.34, "2001:db8:4::34"]', "127.0.0.1"))
    assert any("is a loopback address" in line for line in found)
    assert [line for line in found if "missing" in line] == []


def test_a_wrong_node_is_told_beside_a_wrong_address_of_the_same_site() -> None:
    text = """\
title: A question
sites: {www.example.com: {address: 93.184.216.340, node: wbe}}
workload: [{dns: www.example.com}]
"""
    with pytest.raises(ScenarioErrors) as caught:
        parse_scenario(text.encode(), "f.yaml", nodes=("client", "isp", "web"))
    paths = [mistake.path for mistake in caught.value.mistakes]
    assert paths == ["sites.www.example.com.address", "sites.www.example.com.node"]
    assert "did you mean web?" in str(caught.value)

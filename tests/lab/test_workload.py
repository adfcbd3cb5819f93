"""The workload in a client's node: what it does, what it says of it, and that each fact really happened."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from testbed.workload.trust import trust_environment, write_bundle
from tests.lab.services_net import RESOLVER, Net, services_net, serving

pytestmark = pytest.mark.root

SITES = {"www.example.com": ["93.184.216.34", "2001:db8:4::34"], "intranet.example.org": ["10.20.0.10"]}


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    with services_net(tmp_path_factory.mktemp("workload")) as net, serving(net):
        yield net


def perform(net: Net, *actions: dict[str, Any], **request: Any) -> list[dict[str, Any]]:
    """The end lines of a workload, one per action."""
    lines = net.workload(
        {"variant": "without", "secret": "ab" * 16, "actions": actions, "sites": SITES, "ca_certificate": str(net.ca)}
        | request
    )
    assert lines[-1]["event"] == "done"
    return [line for line in lines if line["event"] == "end"]


@contextmanager
def asking(net: Net, server: str) -> Iterator[None]:
    """The client's resolv.conf names `server` meanwhile."""
    net.resolver(server)
    try:
        yield
    finally:
        net.resolver(RESOLVER[0])


def values(line: dict[str, Any], kind: str) -> list[str]:
    return [fact["value"] for fact in line["facts"] if fact["kind"] == kind]


def kinds(line: dict[str, Any]) -> set[str]:
    return {fact["kind"] for fact in line["facts"]}


@pytest.mark.parametrize("server", RESOLVER)
def test_a_dns_action_asks_the_node_s_name_server_and_knows_name_and_answers(net: Net, server: str) -> None:
    with asking(net, server):
        (line,) = perform(net, {"id": "1-dns", "verb": "dns", "target": "www.example.com"})
    assert line["record"]["ok"], line
    assert line["record"]["detail"] == f"93.184.216.34, 2001:db8:4::34 from {server}"
    assert values(line, "dns-name") == ["www.example.com"]
    assert values(line, "dns-answer") == ["93.184.216.34", "2001:db8:4::34"]
    assert values(line, "client-address") == ["2001:db8:1::13" if ":" in server else "192.168.0.13"]
    assert kinds(line) == {"dns-name", "dns-answer", "client-address"}
    assert {fact["site"] for fact in line["facts"] if fact["kind"].startswith("dns")} == {"www.example.com"}


def test_a_canary_in_a_name_is_looked_up_and_reaches_the_name_server(net: Net) -> None:
    (line,) = perform(net, {"id": "1-dns", "verb": "dns", "target": "{canary}.www.example.com", "types": ["A"]})
    (fact,) = [fact for fact in line["facts"] if fact["kind"] == "dns-name"]
    (token,) = fact["needles"]
    assert len(token) == 32
    assert fact["value"] == f"{token}.www.example.com"
    assert fact["site"] == "www.example.com"
    assert [entry for entry in net.log("dns-web") if entry.get("name") == fact["value"]]


def test_a_truncated_answer_is_fetched_over_tcp(net: Net) -> None:
    (line,) = perform(net, {"id": "1-dns", "verb": "dns", "target": "long.test", "types": ["TXT"]})
    assert line["record"]["ok"], line
    assert "all work and no play" in line["record"]["detail"]
    asked = [entry["transport"] for entry in net.log("dns-isp") if entry.get("name") == "long.test"]
    assert asked == ["udp", "tcp"]


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_http_shows_everything_and_the_site_s_log_agrees(net: Net, family: str) -> None:
    action = {"id": f"2-{family}", "verb": "http", "target": "http://www.example.com/account", "family": family}
    (line,) = perform(net, {**action, "method": "POST", "headers": [["X-Note", "to {canary}"]], "body": "a={canary}"})
    assert line["record"]["ok"], line
    source, server = ("192.168.0.13", "93.184.216.34") if family == "ipv4" else ("2001:db8:1::13", "2001:db8:4::34")
    assert values(line, "client-address") == [source]
    assert values(line, "server-address") == [server]
    assert values(line, "dns-name") == ["www.example.com"]
    assert values(line, "dns-answer") == [server]
    assert values(line, "http-host") == ["www.example.com"]
    (url,) = values(line, "http-url")
    record = next(entry for entry in net.log("www.example.com") if entry["url"] == url)
    headers = [": ".join(header) for header in record["headers"]]
    assert len(values(line, "http-header")) == 2
    assert set(values(line, "http-header")) <= set(headers)
    assert values(line, "http-body") == [record["body"]]
    assert record["source"][0] == source
    tokens = [needle for fact in line["facts"] if fact["kind"] in TOKEN_KINDS for needle in fact["needles"]]
    assert len(tokens) == len(set(tokens)) == 4
    assert all(len(token) == 32 and int(token, 16) for token in tokens)


TOKEN_KINDS = ("http-url", "http-header", "http-body")


def test_https_has_a_tls_name_and_its_secrets_are_the_owner_s_alone(net: Net) -> None:
    keylog = net.directory / "keys.log"
    action = {"id": "3-https", "verb": "https", "target": "https://www.example.com/"}
    (line,) = perform(net, action, keylog=str(keylog))
    assert line["record"]["ok"], line
    assert values(line, "tls-name") == ["www.example.com"]
    assert values(line, "http-url")[0].startswith("https://www.example.com/?visit=")
    assert "http-host" not in kinds(line)
    assert "tls-certificate" not in kinds(line), "TLS 1.3 encrypts it"
    assert net.log("www.example.com")[-1]["url"] == values(line, "http-url")[0]
    assert stat.S_IMODE(keylog.stat().st_mode) == 0o600
    assert b"CLIENT_TRAFFIC_SECRET_0 " in keylog.read_bytes()


def test_a_site_whose_authority_is_unknown_is_not_trusted_but_its_name_was_shown(net: Net) -> None:
    authority = "/etc/ssl/certs/ca-certificates.crt"
    action = {"id": "3-https", "verb": "https", "target": "https://www.example.com/"}
    (line,) = perform(net, action, ca_certificate=authority)
    assert line["record"]["error"].startswith("www.example.com at 2001:db8:4::34: TLS: ")
    assert "certificate" in line["record"]["error"]
    assert kinds(line) == {"dns-name", "dns-answer", "server-address", "client-address", "tls-name"}


@pytest.mark.parametrize(("family", "server"), [("ipv4", "93.184.216.34"), ("ipv6", "2001:db8:4::34")])
def test_ping_carries_its_canary_and_comes_back(net: Net, family: str, server: str) -> None:
    action = {"id": "4-ping", "verb": "ping", "target": "www.example.com", "count": 3, "interval": 0.01}
    (line,) = perform(net, {**action, "family": family})
    assert line["record"]["detail"].startswith(f"3 of 3 answered by {server}, ")
    assert values(line, "server-address") == [server]
    (fact,) = [fact for fact in line["facts"] if fact["kind"] == "payload"]
    assert fact["value"].startswith(fact["needles"][0])
    assert len(fact["value"]) == 56


def test_a_name_nobody_has_leaves_the_name_alone(net: Net) -> None:
    (line,) = perform(net, {"id": "5-http", "verb": "http", "target": "http://intranet.example.org/secret"})
    assert not line["record"]["ok"]
    assert line["record"]["error"] == "intranet.example.org: no such name"
    assert kinds(line) == {"dns-name"}
    (line,) = perform(net, {"id": "6-dns", "verb": "dns", "target": "intranet.example.org"})
    assert line["record"]["error"] == "intranet.example.org: no such name, says 192.168.0.1"
    assert kinds(line) == {"dns-name", "client-address"}


def test_an_address_nobody_reaches_was_still_shown_to_the_network(net: Net) -> None:
    action = {"id": "7-http", "verb": "http", "target": "http://10.20.0.10/", "timeout": 2}
    (line,) = perform(net, action)
    assert line["record"]["error"] == "10.20.0.10: no route to that host"
    assert kinds(line) == {"server-address", "client-address"}
    assert {fact["site"] for fact in line["facts"]} == {"intranet.example.org"}
    (line,) = perform(net, {**action, "target": "http://[2001:db8:4::34]:81/"})
    assert line["record"]["error"] == "2001:db8:4::34: nobody listens there (connection refused)"


def test_an_address_without_a_route_was_shown_to_nobody(net: Net) -> None:
    net.run(["ip", "route", "add", "throw", "203.0.113.0/24"])
    net.run(["ip", "route", "add", "unreachable", "203.0.113.7/32"])
    (line,) = perform(net, {"id": "8-http", "verb": "http", "target": "http://203.0.113.7/"})
    assert line["record"]["error"] == "203.0.113.7: no route to that host"
    assert line["facts"] == []


def test_a_silent_name_server_is_waited_for_no_longer_than_the_action_may_take(net: Net) -> None:
    dns = {"id": "1-dns", "verb": "dns", "target": "www.example.com", "timeout": 0.6}
    http = {"id": "2-http", "verb": "http", "target": "http://www.example.com/", "timeout": 0.6}
    net.run(["ip", "route", "add", "blackhole", "93.184.216.99/32"], "isp")
    with asking(net, "93.184.216.99"):
        first, second = perform(net, dns, http)
    assert first["record"]["error"] == "name server 93.184.216.99: no answer in time"
    assert kinds(first) == {"dns-name", "client-address"}
    assert second["record"]["error"] == "www.example.com: no answer from the name server within 0.6 s"
    assert second["record"]["ended_at"] - second["record"]["started_at"] < 1.5
    assert kinds(second) == {"dns-name"}


def test_the_client_s_own_address_is_a_fact_too_where_a_tunnel_gives_another(net: Net) -> None:
    action = {"id": "2-http", "verb": "http", "target": "http://www.example.com/", "family": "ipv4"}
    (line,) = perform(net, action, client_addresses=["192.0.2.77", "2001:db8:1::13"])
    assert values(line, "client-address") == ["192.168.0.13", "192.0.2.77"]


def test_curl_believes_the_site_inside_a_run_action_and_its_argument_is_a_fact(net: Net) -> None:
    argv = ["curl", "-sS", "--max-time", "10", "https://www.example.com/{canary}"]
    (line,) = perform(net, {"id": "9-run", "verb": "run", "argv": argv, "site": "www.example.com"})
    assert line["record"]["ok"], line
    assert "<h1>www.example.com</h1>" in line["output"]
    (fact,) = line["facts"]
    assert (fact["kind"], fact["site"]) == ("payload", "www.example.com")
    assert net.log("www.example.com")[-1]["path"] == f"/{fact['value']}"


def test_a_bundle_bound_over_the_system_s_makes_curl_work_without_any_environment(net: Net, tmp_path: Path) -> None:
    bundle = write_bundle(net.ca, tmp_path / "bundle.pem")
    command = f"mount --bind {bundle} /etc/ssl/certs/ca-certificates.crt && curl -sS https://www.example.com/"
    plain = {key: value for key, value in os.environ.items() if key not in trust_environment("x", "y")}
    done = net.run(["unshare", "--mount", "sh", "-c", command], env=plain)
    assert "<h1>www.example.com</h1>" in done.stdout, done.stderr
    assert bundle.read_bytes().endswith(net.ca.read_bytes())
    assert bundle.stat().st_size > net.ca.stat().st_size


def test_a_program_that_fails_hangs_or_is_missing_is_told_apart(net: Net) -> None:
    failing, hanging, missing = perform(
        net,
        {"id": "1-run", "verb": "run", "argv": ["sh", "-c", "echo why; exit 3"]},
        {"id": "2-run", "verb": "run", "argv": ["sh", "-c", "echo begun; sleep 1000 & sleep 1000"], "timeout": 0.5},
        {"id": "3-run", "verb": "run", "argv": ["no-such-program-here", "{canary}"]},
    )
    assert failing["record"]["error"] == "exit code 3: why"
    assert hanging["record"]["error"] == "still running after 0.5 s"
    assert hanging["output"] == "begun\n"
    assert missing["record"]["error"] == "no-such-program-here: No such file or directory"
    assert missing["facts"] == []


def test_a_program_s_end_counts_even_if_what_it_left_behind_holds_the_pipe(net: Net) -> None:
    argv = ["sh", "-c", "sleep 1000 & echo done"]
    (line,) = perform(net, {"id": "1-run", "verb": "run", "argv": argv, "timeout": 20})
    assert line["record"]["detail"] == "done"
    assert line["record"]["ended_at"] - line["record"]["started_at"] < 10


def test_a_group_runs_in_parallel_and_at_waits(net: Net) -> None:
    waiting = {"verb": "run", "argv": ["sleep", "0.4"], "group": 1}
    last = {"id": "3-dns", "verb": "dns", "target": "www.example.com", "at": 0.6}
    lines = perform(net, {"id": "1-run", **waiting}, {"id": "2-run", **waiting}, last)
    records = {line["id"]: line["record"] for line in lines}
    assert records["2-run"]["started_at"] < records["1-run"]["ended_at"]
    assert records["1-run"]["started_at"] < records["2-run"]["ended_at"]
    assert records["3-dns"]["started_at"] - records["1-run"]["started_at"] > 0.55


def test_the_workload_ends_with_its_volume_and_timing(net: Net) -> None:
    request = {"variant": "v", "secret": "00" * 16, "ca_certificate": str(net.ca)}
    lines = net.workload({**request, "actions": [{"id": "1-http", "verb": "http", "target": "www.example.com"}]})
    volume, timing = lines[-1]["facts"]
    assert (volume["kind"], timing["kind"], volume["action"]) == ("volume", "timing", "session")
    _, sent, _, received = [int(word) for word in volume["value"].split() if word.isdigit()]
    assert sent > 300
    assert received > 300


def test_a_bad_request_is_one_line_and_exit_code_1(net: Net) -> None:
    done = net.run([sys.executable, "-m", "testbed.workload"], input='{"variant": "v", "secret": "short"}')
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"].startswith("request.secret: ")

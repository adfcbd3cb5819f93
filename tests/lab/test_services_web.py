"""The lab's web sites, judged by curl and openssl."""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.services_net import Net, services_net, serving, start_services

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    with services_net(tmp_path_factory.mktemp("web")) as net, serving(net):
        yield net


@pytest.mark.parametrize("family", ["-4", "-6"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_site_answers_over_both_families_with_and_without_tls(net: Net, scheme: str, family: str) -> None:
    done = net.curl(family, f"{scheme}://www.example.com/any/path?q={scheme}{family}")
    assert done.stderr == ""
    source = "192.168.0.13" if family == "-4" else "2001:db8:1::13"
    assert f"<p>You come from {source}.</p>" in done.stdout
    record = next(line for line in net.log("www.example.com") if str(line["path"]).endswith(scheme + family))
    assert record["source"][0] == source
    assert record["tls"] is (scheme == "https")
    assert record["sni"] == ("www.example.com" if scheme == "https" else None)
    assert record["url"] == f"{scheme}://www.example.com/any/path?q={scheme}{family}"
    assert (record["method"], record["host"], record["status"]) == ("GET", "www.example.com", 200)
    assert record["response_octets"] == len(done.stdout.encode())


def test_a_certificate_is_trusted_through_the_lab_s_authority_alone(net: Net) -> None:
    refused = net.run(["curl", "-sS", "--cacert", "/etc/ssl/certs/ca-certificates.crt", "https://www.example.com/"])
    assert refused.returncode == 60, refused.stderr
    assert net.curl("https://0a1b.www.example.com/").returncode == 0


def test_an_old_client_gets_tls_1_2_and_none_older(net: Net) -> None:
    assert net.curl("--tls-max", "1.2", "https://www.example.com/tls12").returncode == 0
    assert net.log("www.example.com")[-1]["tls_version"] == "TLSv1.2"
    assert net.curl("--tls-max", "1.1", "https://www.example.com/").returncode == 35


@pytest.mark.parametrize("family", ["-4", "-6"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_megabytes_pass_whole_in_both_directions(net: Net, scheme: str, family: str, tmp_path: Path) -> None:
    sent, received = tmp_path / "sent", tmp_path / "received"
    sent.write_bytes(os.urandom(1_500_000))
    up = net.curl(family, "--data-binary", f"@{sent}", f"{scheme}://www.example.com/up{scheme}{family}")
    assert "<p>1500000 octets received.</p>" in up.stdout
    record = next(line for line in net.log("www.example.com") if line["path"] == f"/up{scheme}{family}")
    assert record["body_octets"] == 1_500_000
    assert net.curl(family, "-o", str(received), f"{scheme}://www.example.com/bytes/1500001").returncode == 0
    expected = (bytes(range(256)) * 6000)[:1_500_001]
    assert hashlib.sha256(received.read_bytes()).digest() == hashlib.sha256(expected).digest()


@pytest.mark.parametrize("version", ["1.1", "2"])
def test_the_log_has_the_whole_request(net: Net, version: str) -> None:
    headers = ("-H", "Cookie: session=abc", "-A", "agent/1")
    net.curl(f"--http{version}", *headers, "-d", "secret=1\xff", f"https://www.example.com/form{version}")
    record = next(line for line in net.log("www.example.com") if line["path"] == f"/form{version}")
    name = str if version == "1.1" else str.lower  # HTTP/2 has no other case
    assert [name("Cookie"), "session=abc"] in record["headers"]
    assert [name("User-Agent"), "agent/1"] in record["headers"]
    assert record["body"] == "secret=1\xff"
    assert record["method"] == "POST"
    assert record["protocol"] == f"HTTP/{version}"
    assert record["host"] == "www.example.com"


def test_a_page_repeats_nothing_hostile_and_a_cookie_only_if_it_is_a_token(net: Net) -> None:
    page = net.curl(
        "-g", "-i", "-H", "X-Testbed-Set-Cookie: a;<script>", "http://www.example.com/<script>?<script>"
    ).stdout
    assert "<script>" not in page
    assert "Set-Cookie" not in page
    page = net.curl("-i", "-H", "X-Testbed-Set-Cookie: 0123456789abcdef", "http://www.example.com/").stdout
    assert "Set-Cookie: visit=0123456789abcdef; Path=/" in page


def test_a_site_serves_only_what_it_is_asked_to(net: Net) -> None:
    assert "<h1>shop.example.net</h1>" in net.curl("http://shop.example.net/").stdout
    assert net.log("shop.example.net")[-1]["host"] == "shop.example.net"
    assert net.curl("https://shop.example.net/").returncode == 7, "connection refused"


def test_octets_that_are_no_http_are_refused_and_logged(net: Net) -> None:
    answer = net.run([sys.executable, "-c", _RAW_REQUEST])
    assert answer.stdout.startswith("HTTP/1.1 400"), answer
    assert net.log("www.example.com")[-1]["error"]


_RAW_REQUEST = r"""
import socket
with socket.create_connection(("93.184.216.34", 80)) as connection:
    connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nbroken\r\n\r\n")
    print(connection.makefile().read())
"""


def test_other_methods_and_head_are_answered_as_http_says(net: Net) -> None:
    assert "HTTP/1.1 405" in net.curl("-i", "-X", "DELETE", "http://www.example.com/").stdout
    head = net.curl("-I", "http://www.example.com/bytes/1000").stdout
    assert "Content-Length: 1000" in head
    assert net.log("www.example.com")[-1]["response_octets"] == 0


def test_a_client_that_asks_first_is_told_to_go_on(net: Net) -> None:
    done = net.curl("-v", "-H", "Expect: 100-continue", "-d", "x", "http://www.example.com/asked")
    assert "< HTTP/1.1 100" in done.stderr
    assert "<p>1 octets received.</p>" in done.stdout


def test_ping_is_answered_by_the_node_itself(net: Net) -> None:
    assert net.run(["ping", "-c1", "-W3", "93.184.216.34"]).returncode == 0


def test_no_private_key_is_in_any_file(net: Net) -> None:
    files = [path for path in net.directory.rglob("*") if path.is_file()]
    assert net.ca in files
    assert not [path for path in files if b"PRIVATE KEY" in path.read_bytes()]


def test_the_services_end_with_their_parent(tmp_path: Path) -> None:
    with services_net(tmp_path) as net, start_services(net) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["ready"]
        # A parent between us and a second services process: when it is killed, the child must end too.
        descriptor = os.pidfd_open(_orphaned_services())
        try:
            assert select.select([descriptor], [], [], 10)[0], "the orphan is still running"
        finally:
            os.close(descriptor)


def _orphaned_services() -> int:
    """The pid of a services process whose parent has just been killed."""
    script = (
        "import subprocess, sys, json\n"
        "child = subprocess.Popen([sys.executable, '-m', 'testbed.services'], stdin=subprocess.PIPE,"
        " stdout=subprocess.PIPE)\n"
        "child.stdin.write(json.dumps({'nodes': {}, 'log_directory': '/tmp',"
        " 'ca_certificate': '/dev/null'}).encode())\n"
        "child.stdin.close()\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
        parent.wait(10)
    return child

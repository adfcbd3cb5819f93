"""HTTP/2 and HTTP/3 of the lab's sites, judged by curl, openssl and aioquic's own client."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from testbed.services.request import Authority
from testbed.services.zones import zones_of_sites
from tests.lab.services_net import AUTHORITY, SHOP, WWW, Net, default_request, services_net, serving

pytestmark = pytest.mark.root

HTTP3_CLIENT = Path(__file__).with_name("http3_client.py")
PATIENCE_S = 120
PATTERN = bytes(range(256))


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    with services_net(tmp_path_factory.mktemp("versions")) as net:
        sites = (replace(WWW, http3=True), replace(SHOP, https=True))
        zones = zones_of_sites(sites, AUTHORITY, root=True)
        request = replace(default_request(net), sites=sites, authorities=(Authority("web", AUTHORITY, zones),))
        with serving(net, request):
            yield net


def record_of(net: Net, path: str) -> dict[str, Any]:
    return next(line for line in net.log("www.example.com") if line["path"] == path)


def http3(net: Net, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = net.run([sys.executable, str(HTTP3_CLIENT), str(net.ca), *arguments], timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("family", ["-4", "-6"])
@pytest.mark.parametrize(("scheme", "flag"), [("http", "--http2-prior-knowledge"), ("https", "--http2")])
def test_curl_speaks_http2_in_clear_and_under_tls(net: Net, scheme: str, flag: str, family: str) -> None:
    path = f"/page?{scheme}{family}"
    done = net.curl(family, flag, "-w", "%{http_version}", f"{scheme}://www.example.com{path}")
    assert done.stderr == ""
    assert done.stdout.endswith("</html>\n2")
    record = record_of(net, path)
    assert (record["protocol"], record["host"], record["status"]) == ("HTTP/2", "www.example.com", 200)
    assert record["url"] == f"{scheme}://www.example.com{path}"
    assert record["source"][0] == ("192.168.0.13" if family == "-4" else "2001:db8:1::13")
    assert record["sni"] == ("www.example.com" if scheme == "https" else None)


def test_a_client_of_http_1_1_is_served_beside_it(net: Net) -> None:
    for scheme in ("http", "https"):
        done = net.curl("--http1.1", "-w", "%{http_version}", f"{scheme}://www.example.com/")
        assert done.stdout.endswith("1.1")


def test_a_request_to_change_from_http_1_1_to_2_is_answered_in_http_1_1(net: Net) -> None:
    done = net.curl("--http2", "-w", "%{http_version}", "http://www.example.com/")
    assert (done.returncode, done.stdout[-3:]) == (0, "1.1")


@pytest.mark.parametrize(("offered", "chosen"), [("h2", "h2"), ("http/1.1", "http/1.1"), ("http/1.1,h2", "h2")])
def test_openssl_finds_the_protocol_negotiated_by_alpn(net: Net, offered: str, chosen: str) -> None:
    where = ("-connect", "93.184.216.34:443", "-servername", "www.example.com", "-CAfile", str(net.ca))
    done = net.run(["openssl", "s_client", "-alpn", offered, *where], input="")
    assert f"ALPN protocol: {chosen}" in done.stdout
    assert "Verify return code: 0 (ok)" in done.stdout


@pytest.mark.parametrize("flag", ["--http2-prior-knowledge", "--http2"])
def test_megabytes_pass_whole_over_http2_in_both_directions(net: Net, flag: str, tmp_path: Path) -> None:
    scheme = "https" if flag == "--http2" else "http"
    sent, received = tmp_path / "sent", tmp_path / "received"
    sent.write_bytes(os.urandom(1_500_000))
    up = net.curl(flag, "--data-binary", f"@{sent}", f"{scheme}://www.example.com/up{flag}")
    assert "<p>1500000 octets received.</p>" in up.stdout
    assert record_of(net, f"/up{flag}")["body_octets"] == 1_500_000
    assert net.curl(flag, "-o", str(received), f"{scheme}://www.example.com/bytes/1500001").returncode == 0
    assert hashlib.sha256(received.read_bytes()).digest() == hashlib.sha256((PATTERN * 6000)[:1_500_001]).digest()


def test_requests_of_one_http2_connection_are_answered_side_by_side(net: Net) -> None:
    urls = [f"https://www.example.com/bytes/{200_000 + number}" for number in range(8)]
    outputs = [argument for number in range(8) for argument in ("-o", f"{net.directory}/together{number}")]
    done = net.curl("--http2", "--parallel", *outputs, *urls)
    assert done.returncode == 0, done.stderr
    sizes = {(net.directory / f"together{number}").stat().st_size for number in range(8)}
    assert sizes == {200_000 + number for number in range(8)}
    records = [record_of(net, url.removeprefix("https://www.example.com")) for url in urls]
    assert len({tuple(record["source"]) for record in records}) == 1, "one connection carried them all"


def test_head_and_refusals_are_http2_s_too(net: Net) -> None:
    head = net.curl("--http2", "-I", "https://www.example.com/bytes/1000").stdout
    assert "content-length: 1000" in head
    assert "HTTP/2 405" in net.curl("--http2", "-i", "-X", "DELETE", "https://www.example.com/").stdout


def test_octets_that_are_no_http2_end_the_connection_and_are_logged(net: Net) -> None:
    answer = net.run([sys.executable, "-c", _BROKEN_HTTP2])
    assert answer.stdout == "GOAWAY\n", answer
    assert net.log("www.example.com")[-1]["error"]
    assert net.log("www.example.com")[-1]["protocol"] == "HTTP/2"


_BROKEN_HTTP2 = r"""
import socket
with socket.create_connection(("93.184.216.34", 80)) as connection:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000 04 00 00000000")
    connection.sendall(preface + bytes.fromhex("000001 00 00 00000000 41"))  # DATA that belongs to no stream
    octets = b""
    while piece := connection.recv(4096):
        octets += piece
    while octets:
        length, kind = int.from_bytes(octets[:3], "big"), octets[3]
        octets = octets[9 + length:]
        if kind == 7:
            print("GOAWAY")
"""


@pytest.mark.parametrize("address", ["93.184.216.34", "2001:db8:4::34"])
def test_aioquic_s_client_opens_a_page_over_http3(net: Net, address: str) -> None:
    path = f"/quic?{address}"
    done = http3(net, address, "www.example.com", path)
    status, page = done.stdout.split("\n", 1)
    assert status == "200"
    source = "192.168.0.13" if ":" not in address else "2001:db8:1::13"
    assert f"<p>You come from {source}.</p>" in page
    record = record_of(net, path)
    assert (record["protocol"], record["tls"], record["tls_version"]) == ("HTTP/3", True, "TLSv1.3")
    assert (record["host"], record["sni"]) == ("www.example.com", "www.example.com")
    assert record["url"] == f"https://www.example.com{path}"
    assert (record["source"][0], record["local"]) == (source, [address, 443])
    assert record["response_octets"] == len(page.encode())


def test_megabytes_pass_whole_over_http3_in_both_directions(net: Net, tmp_path: Path) -> None:
    sent = tmp_path / "sent"
    sent.write_bytes(os.urandom(1_500_000))
    assert "<p>1500000 octets received.</p>" in http3(net, "93.184.216.34", "www.example.com", "/up3", str(sent)).stdout
    assert record_of(net, "/up3")["body_octets"] == 1_500_000
    done = http3(net, "93.184.216.34", "www.example.com", "/bytes/1500001")
    assert done.stderr.strip() == hashlib.sha256((PATTERN * 6000)[:1_500_001]).hexdigest()


def test_a_download_too_long_for_the_library_s_buffers_is_refused(net: Net) -> None:
    assert http3(net, "93.184.216.34", "www.example.com", "/bytes/1000000000").stdout.startswith("404\n")


def test_dig_finds_http3_in_the_site_s_https_record(net: Net) -> None:
    assert net.dig("+short", "@192.168.0.1", "www.example.com", "HTTPS") == '1 . alpn="h3,h2"\n'
    assert net.dig("+short", "@192.168.0.1", "shop.example.net", "HTTPS") == ""


def test_only_a_site_with_http3_advertises_it_and_under_tls_only(net: Net) -> None:
    for flag in ("--http1.1", "--http2"):
        assert 'alt-svc: h3=":443"' in net.curl(flag, "-I", "https://www.example.com/").stdout.lower()
    assert "alt-svc" not in net.curl("-I", "http://www.example.com/").stdout.lower()
    assert "alt-svc" not in net.curl("-I", "https://shop.example.net/").stdout.lower()

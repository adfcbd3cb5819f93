"""HTTP/3 of the lab's sites, opened by Chromium."""

from __future__ import annotations

import base64
import hashlib
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.lab.services_net import WWW, Net, default_request, services_net, serving

pytestmark = [pytest.mark.root, pytest.mark.interop]

PATIENCE_S = 180
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions"),
    *("--enable-quic", "--dump-dom"),
)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    with services_net(tmp_path_factory.mktemp("chromium")) as net:
        request = replace(default_request(net), sites=(replace(WWW, http3=True),))
        with serving(net, request):
            yield net


def key_of(net: Net) -> str:
    """The hash of the site's public key, as Chromium's flag wants it."""
    shown = net.run(["openssl", "s_client", "-connect", "93.184.216.34:443", "-servername", WWW.name], input="")
    begin, end = (shown.stdout.index(f"-----{word} CERTIFICATE-----") for word in ("BEGIN", "END"))
    pem = f"{shown.stdout[begin:end]}-----END CERTIFICATE-----\n"
    key = x509.load_pem_x509_certificate(pem.encode()).public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(der).digest()).decode()


def open_page(net: Net, profile: Path, url: str, *flags: str) -> subprocess.CompletedProcess[str]:
    trust = f"--ignore-certificate-errors-spki-list={key_of(net)}"
    return net.run(["chromium", *_FLAGS, f"--user-data-dir={profile}", trust, *flags, url], timeout=PATIENCE_S)


def test_chromium_opens_a_page_over_http3(net: Net, tmp_path: Path) -> None:
    forced = "--origin-to-force-quic-on=www.example.com:443"
    done = open_page(net, tmp_path, "https://www.example.com/chromium?quic", forced)
    assert "<h1>www.example.com</h1>" in done.stdout, done.stderr
    record = next(line for line in net.log("www.example.com") if line["path"] == "/chromium?quic")
    assert (record["protocol"], record["sni"], record["host"]) == ("HTTP/3", "www.example.com", "www.example.com")
    agent = next(value for name, value in record["headers"] if name == "user-agent")
    assert "Chrome" in agent

"""Names of cipher suites: the standards' against what the installed OpenSSL says that it calls them."""

from __future__ import annotations

import subprocess

import pytest

from vpn.config.tls_names import DEFAULT_CIPHERS, openssl_ciphers, openssl_ciphersuites


def test_every_suite_with_certificates_is_found_by_the_name_that_the_standards_give_it() -> None:
    # a suite with a shared password or without any proof of identity has no place in a tunnel with certificates
    argv = ["openssl", "ciphers", "-stdname", "ALL:COMPLEMENTOFALL:!PSK:!SRP:!aNULL"]
    lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    named = {words[0]: words[2] for line in lines if "_WITH_" in (words := line.split())[0]}
    assert len(named) > 50
    assert {name: openssl_ciphers(name) for name in named} == named
    assert {name: openssl_ciphers(name.replace("_", "-")) for name in named} == named


@pytest.mark.parametrize("words", ["ECDHE-ECDSA-AES256-GCM-SHA384", "DEFAULT:!kRSA:@SECLEVEL=2", DEFAULT_CIPHERS])
def test_what_openssl_understands_already_stays_as_it_is(words: str) -> None:
    assert openssl_ciphers(words) == words


def test_a_list_keeps_its_order() -> None:
    names = "TLS-ECDHE-ECDSA-WITH-CHACHA20-POLY1305-SHA256:TLS-ECDHE-ECDSA-WITH-AES-128-CBC-SHA"
    assert openssl_ciphers(names) == "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-SHA"
    assert openssl_ciphersuites("TLS-AES-128-GCM-SHA256:TLS_AES_256_GCM_SHA384") == (
        "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384"
    )

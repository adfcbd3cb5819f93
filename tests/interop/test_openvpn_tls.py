"""TLS versions, cipher suites and what the data keys are made from, against openvpn in both roles."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.role_pairs import pairs, ping
from tests.interop.tunnel_configs import PUSH_SPLIT, Setup, make_keys
from tests.interop.tunnel_lab import INNER_SERVER, INNER_SERVER6, OPENVPN, OURS, READY, TunnelLab, in_lab

pytestmark = [pytest.mark.root, pytest.mark.interop]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_keys(tmp_path_factory.mktemp("pki") / "keys")


@pairs
@pytest.mark.parametrize("derivation", ["tls-ekm", "prf"])
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_both_key_derivations_work_with_both_versions_of_tls_for_the_first_key_and_the_next(
    server_program: str, client_program: str, derivation: str, version: str, keys: Path, tmp_path: Path
) -> None:
    """The exporter is switched off at our end alone: openvpn must follow, and has no option for it."""
    own = (f"key-derivation {derivation}",)
    setup = Setup(
        keys,
        PUSH_SPLIT,
        both=(f"tls-version-max {version}",),
        server_only=own if server_program == OURS else (),
        client_only=(*(own if server_program == OPENVPN else ()), "reneg-pkts 40"),
    )

    def body(lab: TunnelLab) -> None:
        server, client = lab.connect(server_program, setup.server(), client_program, setup.client())
        client.wait_for("Protocol options: ")
        flags = client.text().partition("Protocol options: ")[2].splitlines()[0]
        assert ("tls-ekm" in flags) == (derivation == "tls-ekm")
        for count in (1, 2):
            client.wait_for(f"Control Channel: TLSv{version}", count=count)
            ping(lab, INNER_SERVER, "client", "-A", count=15)
            ping(lab, INNER_SERVER6, "client", "-A", count=15)
        server.wait_for(f"Control Channel: TLSv{version}")

    in_lab(body, tmp_path)


SUITES = {
    "TLS 1.2, chosen by the server": (
        "1.2",
        "tls-cipher TLS-ECDHE-ECDSA-WITH-AES-128-GCM-SHA256",
        "",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
    ),
    "TLS 1.2, chosen by the client": (
        "1.2",
        "",
        "tls-cipher TLS-ECDHE-ECDSA-WITH-CHACHA20-POLY1305-SHA256",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    ),
    "TLS 1.3, chosen by the server": (
        "1.3",
        "tls-ciphersuites TLS_CHACHA20_POLY1305_SHA256",
        "",
        "TLS_CHACHA20_POLY1305_SHA256",
    ),
    "TLS 1.3, chosen by the client": ("1.3", "", "tls-ciphersuites TLS-AES-128-GCM-SHA256", "TLS_AES_128_GCM_SHA256"),
}


@pairs
@pytest.mark.parametrize("name", list(SUITES))
def test_the_cipher_suite_that_one_end_insists_on_stands_in_both_logs(
    server_program: str, client_program: str, name: str, keys: Path, tmp_path: Path
) -> None:
    version, server_only, client_only, suite = SUITES[name]
    limits = (f"tls-version-min {version}", f"tls-version-max {version}")
    setup = Setup(
        keys,
        PUSH_SPLIT,
        server_only=(*limits, *filter(None, [server_only])),
        client_only=tuple(filter(None, [client_only])),
    )

    def body(lab: TunnelLab) -> None:
        for program in lab.connect(server_program, setup.server(), client_program, setup.client()):
            program.wait_for(f"Control Channel: TLSv{version}, cipher TLSv{version} {suite}")
        ping(lab, INNER_SERVER)

    in_lab(body, tmp_path)


# What the server says about it, and what the alert says that it sends; openvpn as a server ends without sending it.
IMPOSSIBLE = {
    "versions": ("tls-version-min 1.3", "tls-version-max 1.2", "unsupported protocol", "alert protocol version"),
    "suites of TLS 1.3": (
        "tls-ciphersuites TLS_AES_256_GCM_SHA384",
        "tls-ciphersuites TLS_CHACHA20_POLY1305_SHA256\ntls-version-min 1.3",
        "no shared cipher",
        "alert handshake failure",
    ),
    "suites of TLS 1.2": (
        "tls-cipher TLS-ECDHE-ECDSA-WITH-AES-256-GCM-SHA384\ntls-version-max 1.2",
        "tls-cipher TLS-ECDHE-ECDSA-WITH-AES-128-GCM-SHA256",
        "no shared cipher",
        "alert handshake failure",
    ),
    "suites that need another kind of certificate": (
        "tls-version-max 1.2",
        "tls-cipher TLS-ECDHE-RSA-WITH-AES-256-GCM-SHA384",
        "no shared cipher",
        "alert handshake failure",
    ),
}


@pairs
@pytest.mark.parametrize("name", list(IMPOSSIBLE))
def test_ends_that_have_nothing_in_common_are_refused_with_the_reason(
    server_program: str, client_program: str, name: str, keys: Path, tmp_path: Path
) -> None:
    server_only, client_only, reason, alert = IMPOSSIBLE[name]
    setup = Setup(keys, PUSH_SPLIT, server_only=(server_only,), client_only=(client_only, "tls-exit", "hand-window 2"))

    def body(lab: TunnelLab) -> None:
        server = lab.tunnel(server_program, "vpn", setup.server())
        server.wait_for(READY)
        client = lab.tunnel(client_program, "client", setup.client())
        server.wait_for(reason)
        server.wait_for("TLS Error: TLS handshake failed")
        if server_program == OURS:
            client.wait_for("TLS Error: TLS handshake failed")
            client.wait()
            assert alert in client.text()
        assert READY not in client.text()

    in_lab(body, tmp_path)


REFUSED_FILES = {
    "tls-version-min 1.3\ntls-version-max 1.2": "tls-version-max",
    "tls-cipher TLS-NULL-WITH-NOTHING": "tls-cipher",
    "tls-ciphersuites TLS_NO_SUCH_SUITE": "tls-ciphersuites",
}


@pytest.mark.parametrize("program", [OPENVPN, OURS])
@pytest.mark.parametrize("lines", list(REFUSED_FILES))
def test_a_file_that_allows_no_version_or_no_suite_at_all_is_refused_at_the_start(
    program: str, lines: str, keys: Path, tmp_path: Path
) -> None:
    setup = Setup(keys, PUSH_SPLIT, server_only=(lines,))

    def body(lab: TunnelLab) -> None:
        server = lab.tunnel(program, "vpn", setup.server())
        assert server.wait() != 0
        if program == OURS:
            assert REFUSED_FILES[lines] in server.text()
        assert READY not in server.text()

    in_lab(body, tmp_path)

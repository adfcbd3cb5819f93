"""TLS versions, cipher suites and what the data keys are made from, against openvpn in both roles."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.role_pairs import beside, pairs, ping
from tests.interop.tunnel_configs import PUSH_SPLIT, Setup, make_keys
from tests.interop.tunnel_lab import INNER_SERVER, INNER_SERVER6, OPENVPN, OURS, READY, Program, TunnelLab, in_lab

pytestmark = [pytest.mark.root, pytest.mark.interop]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_keys(tmp_path_factory.mktemp("pki") / "keys")


# Every version with every derivation of keys; every version's suite chosen by either end.
SUITES = {
    "exporter, TLS 1.2, suite of the server": (
        "tls-ekm",
        "1.2",
        "tls-cipher TLS-ECDHE-ECDSA-WITH-AES-128-GCM-SHA256",
        "",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
    ),
    "PRF, TLS 1.2, suite of the client": (
        "prf",
        "1.2",
        "",
        "tls-cipher TLS-ECDHE-ECDSA-WITH-CHACHA20-POLY1305-SHA256",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    ),
    "PRF, TLS 1.3, suite of the server": (
        "prf",
        "1.3",
        "tls-ciphersuites TLS_CHACHA20_POLY1305_SHA256",
        "",
        "TLS_CHACHA20_POLY1305_SHA256",
    ),
    "exporter, TLS 1.3, suite of the client": (
        "tls-ekm",
        "1.3",
        "",
        "tls-ciphersuites TLS-AES-128-GCM-SHA256",
        "TLS_AES_128_GCM_SHA256",
    ),
}


@pairs
@pytest.mark.parametrize("name", list(SUITES))
def test_the_suite_that_one_end_insists_on_and_either_derivation_of_keys_serve_for_one_key_after_the_other(
    server_program: str, client_program: str, name: str, keys: Path, tmp_path: Path
) -> None:
    """The exporter is switched off at our end alone: openvpn must follow, and has no option for it."""
    derivation, version, server_line, client_line, suite = SUITES[name]
    own = (f"key-derivation {derivation}",)
    setup = Setup(
        keys,
        PUSH_SPLIT,
        both=(f"tls-version-min {version}", f"tls-version-max {version}"),
        server_only=(server_line, *own * (server_program == OURS)),
        client_only=(client_line, *own * (server_program == OPENVPN), "reneg-pkts 8"),
    )
    channel = f"Control Channel: TLSv{version}, cipher TLSv{version} {suite}"

    def body(lab: TunnelLab) -> None:
        server, client = lab.connect(server_program, setup.server(), client_program, setup.client())
        client.wait_for("Protocol options: ")
        flags = client.text().partition("Protocol options: ")[2].splitlines()[0]
        assert ("tls-ekm" in flags) == (derivation == "tls-ekm")
        for count in range(1, 5):
            client.wait_for(channel, count=count)
            # twice as much as a key carries: the next handshake begins under them
            ping(lab, INNER_SERVER, INNER_SERVER6, count=8, under_way=2)
        server.wait_for(channel)

    in_lab(body, tmp_path)


# Two servers; for each the clients that have nothing in common with it, what the server says about them, and what the
# alert says that it sends them. openvpn as a server ends without sending it.
IMPOSSIBLE = {
    "tls-version-min 1.3\ntls-ciphersuites TLS_AES_256_GCM_SHA384": (
        ("tls-version-max 1.2", "unsupported protocol", "alert protocol version"),
        (
            "tls-version-min 1.3\ntls-ciphersuites TLS_CHACHA20_POLY1305_SHA256",
            "no shared cipher",
            "alert handshake failure",
        ),
    ),
    # the second one's suite needs another kind of certificate than the server has
    "tls-version-max 1.2\ntls-cipher TLS-ECDHE-ECDSA-WITH-AES-256-GCM-SHA384:TLS-ECDHE-RSA-WITH-AES-256-GCM-SHA384": (
        ("tls-cipher TLS-ECDHE-ECDSA-WITH-AES-128-GCM-SHA256", "no shared cipher", "alert handshake failure"),
        ("tls-cipher TLS-ECDHE-RSA-WITH-AES-256-GCM-SHA384", "no shared cipher", "alert handshake failure"),
    ),
}


@pairs
def test_ends_that_have_nothing_in_common_are_refused_with_the_reason(
    server_program: str, client_program: str, keys: Path, tmp_path: Path
) -> None:
    patience = ("hand-window 5",) * (server_program == OPENVPN)

    def body(lab: TunnelLab) -> None:
        started = []
        for number, (server_line, refused) in enumerate(IMPOSSIBLE.items()):
            text = Setup(keys, PUSH_SPLIT, server_only=(server_line,)).server()
            server = lab.tunnel(server_program, "vpn", beside(text, number))
            server.wait_for(READY)
            clients = []
            for line, reason, alert in refused:
                text = Setup(keys, PUSH_SPLIT, client_only=(line, "tls-exit", *patience)).client()
                clients.append((lab.tunnel(client_program, "client", beside(text, number)), reason, alert))
            started.append((server, clients))
        for server, clients in started:
            check_refusals(server, clients, told=server_program == OURS)

    in_lab(body, tmp_path)


def check_refusals(server: Program, clients: list[tuple[Program, str, str]], *, told: bool) -> None:
    for _, reason, _ in clients:
        server.wait_for(reason, count=sum(reason == other for _, other, _ in clients))
    server.wait_for("TLS Error: TLS handshake failed", count=len(clients))
    for client, _, alert in clients:
        client.wait_for("TLS Error: TLS handshake failed")
        client.wait()
        assert READY not in client.text()
        assert not told or alert in client.text()


REFUSED_FILES = {
    "tls-version-min 1.3\ntls-version-max 1.2": "tls-version-max",
    "tls-cipher TLS-NULL-WITH-NOTHING": "tls-cipher",
    "tls-ciphersuites TLS_NO_SUCH_SUITE": "tls-ciphersuites",
}


def test_a_file_that_allows_no_version_or_no_suite_at_all_is_refused_at_the_start(keys: Path, tmp_path: Path) -> None:
    def body(lab: TunnelLab) -> None:
        texts = {name: Setup(keys, PUSH_SPLIT, server_only=(lines,)).server() for lines, name in REFUSED_FILES.items()}
        started = [(name, program) for name in texts for program in (OPENVPN, OURS)]
        servers = [lab.tunnel(program, "vpn", texts[name]) for name, program in started]
        for (name, program), server in zip(started, servers, strict=True):
            assert server.wait() != 0
            assert READY not in server.text()
            assert program == OPENVPN or name in server.text()

    in_lab(body, tmp_path)

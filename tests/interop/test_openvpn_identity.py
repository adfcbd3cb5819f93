"""Who may come in: passwords, and certificates that are expired, revoked or of another name, against openvpn."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.role_pairs import pairs, ping
from tests.interop.tunnel_configs import PUSH_SPLIT, Setup, make_keys
from tests.interop.tunnel_lab import INNER_SERVER, OPENVPN, READY, Program, TunnelLab, in_lab
from vpn.pki.commands import run_pki

pytestmark = [pytest.mark.root, pytest.mark.interop]


CHECK = """#!/bin/sh
[ "$(head -n 1 "$1")" = alice ] && [ "$(tail -n 1 "$1")" = "open sesame" ] && [ "$(stat -c %a "$1")" = 600 ]
"""


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_keys(tmp_path_factory.mktemp("pki") / "keys")
    assert run_pki(["issue", str(folder), "late", "--purpose", "client", "--start", "-10", "--days", "5"]) == 0
    assert run_pki(["issue", str(folder), "gone", "--purpose", "client"]) == 0
    assert run_pki(["revoke", str(folder), "gone"]) == 0
    return folder


def without_certificate(config: str) -> str:
    return "".join(line + "\n" for line in config.splitlines() if not line.startswith(("cert ", "key ")))


def start_pair(lab: TunnelLab, programs: tuple[str, str], setup: Setup) -> tuple[Program, Program]:
    server = lab.tunnel(programs[0], "vpn", setup.server())
    server.wait_for(READY)
    return server, lab.tunnel(programs[1], "client", setup.client(), "--hand-window", "3")


@pairs
@pytest.mark.parametrize(("name", "reason"), [("late", "certificate has expired"), ("gone", "certificate revoked")])
def test_a_client_certificate_that_does_not_hold_is_refused_with_the_reason(
    server_program: str, client_program: str, name: str, reason: str, keys: Path, tmp_path: Path
) -> None:
    setup = Setup(
        keys,
        PUSH_SPLIT,
        client_name=name,
        server_only=(f"crl-verify {keys}/crl.pem",),
        client_only=("tls-exit",),
    )

    def body(lab: TunnelLab) -> None:
        server, client = start_pair(lab, (server_program, client_program), setup)
        server.wait_for("VERIFY ERROR")
        server.wait_for(reason)
        client.wait_for("TLS Error")
        client.wait()
        assert READY not in client.text()

    in_lab(body, tmp_path)


@pairs
def test_a_server_of_another_name_is_refused_with_the_reason(
    server_program: str, client_program: str, keys: Path, tmp_path: Path
) -> None:
    setup = Setup(keys, PUSH_SPLIT, client_only=("verify-x509-name other.example name", "tls-exit"))

    def body(lab: TunnelLab) -> None:
        _, client = start_pair(lab, (server_program, client_program), setup)
        client.wait_for("VERIFY")
        client.wait_for("vpn.example")
        client.wait()
        assert READY not in client.text()

    in_lab(body, tmp_path)


@pairs
def test_a_server_with_a_clients_certificate_is_refused_with_the_reason(
    server_program: str, client_program: str, keys: Path, tmp_path: Path
) -> None:
    setup = Setup(keys, PUSH_SPLIT, client_only=("tls-exit",))
    posing = setup.server().replace("/server.crt", "/client.crt").replace("/server.key", "/client.key")

    def body(lab: TunnelLab) -> None:
        server = lab.tunnel(server_program, "vpn", posing)
        server.wait_for(READY)
        client = lab.tunnel(client_program, "client", setup.client(), "--hand-window", "2")
        client.wait_for("unsuitable certificate purpose")
        client.wait_for("TLS Error: TLS handshake failed")
        client.wait()
        assert READY not in client.text()

    in_lab(body, tmp_path)


@pairs
@pytest.mark.parametrize(
    ("certificate", "shown"),
    [("require", True), ("optional", True), ("optional", False), ("none", True), ("none", False)],
)
def test_a_user_with_the_right_password_comes_in_and_one_with_another_does_not(
    server_program: str, client_program: str, certificate: str, shown: bool, keys: Path, tmp_path: Path
) -> None:
    check, login = tmp_path / "check", tmp_path / "login"
    check.write_text(CHECK)
    check.chmod(0o755)
    login.touch(0o600)
    rules = (f"auth-user-pass-verify {check} via-file", "script-security 2", f"verify-client-cert {certificate}")
    setup = Setup(keys, PUSH_SPLIT, server_only=rules, client_only=(f"auth-user-pass {login}",))
    config = setup.client() if shown else without_certificate(setup.client())

    def body(lab: TunnelLab) -> None:
        server = lab.tunnel(server_program, "vpn", setup.server())
        server.wait_for(READY)
        login.write_text("alice\nopen sesame\n")
        right = lab.tunnel(client_program, "client", config)
        right.wait_for(READY)
        ping(lab, INNER_SERVER)
        assert right.stop() == 0
        login.write_text("alice\nopen barley\n")
        wrong = lab.tunnel(client_program, "client", config)
        wrong.wait_for("AUTH_FAILED")
        assert wrong.wait() != 0 or client_program == OPENVPN
        assert READY not in wrong.text()
        assert "open sesame" not in server.text() + right.text() + wrong.text()

    in_lab(body, tmp_path)


@pairs
@pytest.mark.parametrize(("certificate", "name"), [("require", ""), ("require", "gone"), ("optional", "gone")])
def test_the_right_password_does_not_make_up_for_a_certificate_that_is_missing_or_does_not_hold(
    server_program: str, client_program: str, certificate: str, name: str, keys: Path, tmp_path: Path
) -> None:
    check, login = tmp_path / "check", tmp_path / "login"
    check.write_text(CHECK)
    check.chmod(0o755)
    login.touch(0o600)
    login.write_text("alice\nopen sesame\n")
    setup = Setup(
        keys,
        PUSH_SPLIT,
        client_name=name or "client",
        server_only=(
            f"auth-user-pass-verify {check} via-file",
            "script-security 2",
            f"verify-client-cert {certificate}",
            f"crl-verify {keys}/crl.pem",
        ),
        client_only=(f"auth-user-pass {login}", "tls-exit", "hand-window 2"),
    )
    config = setup.client() if name else without_certificate(setup.client())

    def body(lab: TunnelLab) -> None:
        server = lab.tunnel(server_program, "vpn", setup.server())
        server.wait_for(READY)
        client = lab.tunnel(client_program, "client", config)
        server.wait_for("certificate revoked" if name else "peer did not return a certificate")
        server.wait_for("TLS Error: TLS handshake failed")
        assert READY not in client.text()

    in_lab(body, tmp_path)


@pairs
def test_a_clients_own_file_fixes_its_address_and_adds_a_route(
    server_program: str, client_program: str, keys: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "ccd"
    folder.mkdir()
    (folder / "alice").write_text(
        "ifconfig-push 10.8.0.77 255.255.255.0\n"
        "ifconfig-ipv6-push 2001:db8:8::77/64 2001:db8:8::1\n"
        'push "route 10.99.0.0 255.255.0.0"\n'
    )
    setup = Setup(keys, PUSH_SPLIT, server_only=(f"client-config-dir {folder}", "ccd-exclusive"))

    def body(lab: TunnelLab) -> None:
        _, client = lab.connect(server_program, setup.server(), client_program, setup.client())
        shown = lab.output("client", "ip", "addr", "show", "tun0")
        assert "inet 10.8.0.77/24" in shown
        assert "inet6 2001:db8:8::77/64" in shown
        assert lab.egress("10.99.1.1") == "tun0"
        ping(lab, INNER_SERVER)
        assert client.stop() == 0
        bob = Setup(keys, PUSH_SPLIT, client_name="bob", client_only=("tls-exit",))
        stranger = lab.tunnel(client_program, "client", bob.client())
        stranger.wait_for("AUTH_FAILED")

    in_lab(body, tmp_path)

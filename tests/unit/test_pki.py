"""The PKI's files, judged by openssl and openvpn: what we made, read back with programs we did not write."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from vpn.crypto.client_key import ClientKey, timestamp_metadata, wrap_client_key
from vpn.crypto.static_key import build_client_key, build_static_key, parse_client_key, parse_static_key
from vpn.pki.commands import run_pki
from vpn.wire.packet import Malformed

PUBLIC = {"ca.crt", "server.crt", "client.crt", "bob.crt", "crl.pem"}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki") / "keys"
    assert run_pki(["init", str(folder), "--server", "vpn.example", "--client", "alice", "--client", "bob"]) == 0
    return folder


def openssl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["openssl", *arguments], capture_output=True, text=True, timeout=20)


def verify(keys: Path, name: str, purpose: str) -> subprocess.CompletedProcess[str]:
    crl = ("-crl_check", "-CRLfile", str(keys / "crl.pem"))
    return openssl(
        "verify", "-x509_strict", "-CAfile", str(keys / "ca.crt"), *crl, "-purpose", purpose, str(keys / f"{name}.crt")
    )


def test_init_makes_every_file_and_only_certificates_are_readable_by_others(keys: Path) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in keys.iterdir()}
    private = {f"{name}.key" for name in ("ca", "server", "client", "bob", "tls-crypt", "static")}
    private |= {"tls-crypt-v2-server.key", "tls-crypt-v2-client.key"}
    assert modes == dict.fromkeys(PUBLIC, 0o644) | dict.fromkeys(private, 0o600)
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700


@pytest.mark.parametrize(("name", "purpose"), [("server", "sslserver"), ("client", "sslclient"), ("bob", "sslclient")])
def test_openssl_verifies_each_certificate_for_its_purpose(keys: Path, name: str, purpose: str) -> None:
    assert verify(keys, name, purpose).returncode == 0, verify(keys, name, purpose).stderr


@pytest.mark.parametrize(("name", "purpose"), [("server", "sslclient"), ("client", "sslserver")])
def test_openssl_refuses_a_certificate_for_the_other_purpose(keys: Path, name: str, purpose: str) -> None:
    done = verify(keys, name, purpose)
    assert done.returncode != 0
    assert "purpose" in done.stderr


def test_openssl_reads_names_and_usages(keys: Path) -> None:
    text = openssl("x509", "-in", str(keys / "server.crt"), "-noout", "-text").stdout
    assert "CN=vpn.example" in text.replace("CN = ", "CN=")  # OpenSSL 3.2 dropped the blanks
    assert "DNS:vpn.example" in text
    assert "TLS Web Server Authentication" in text
    assert "Digital Signature, Key Agreement" in text
    assert "ASN1 OID: prime256v1" in text


def test_a_revoked_certificate_is_refused_and_the_others_are_not(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    assert run_pki(["init", str(keys), "--server", "s", "--client", "a", "b"]) == 0
    assert run_pki(["revoke", str(keys), "b"]) == 0
    assert run_pki(["revoke", str(keys), "b"]) == 0
    assert "certificate revoked" in verify(keys, "b", "sslclient").stderr
    assert verify(keys, "client", "sslclient").returncode == 0
    text = openssl("crl", "-in", str(keys / "crl.pem"), "-noout", "-text").stdout
    assert text.count("Serial Number:") == 1


def test_a_certificate_can_be_issued_already_expired(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    assert run_pki(["ca", str(keys)]) == 0
    assert run_pki(["issue", str(keys), "late", "--purpose", "client", "--start", "-10", "--days", "5"]) == 0
    assert "certificate has expired" in verify(keys, "late", "sslclient").stderr


def test_single_steps_make_what_init_makes(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    assert run_pki(["ca", str(keys), "--name", "Other CA"]) == 0
    assert run_pki(["issue", str(keys), "192.0.2.1", "--purpose", "server", "--file", "server"]) == 0
    assert run_pki(["static-key", str(keys)]) == 0
    assert run_pki(["tls-crypt-v2-server", str(keys)]) == 0
    assert run_pki(["tls-crypt-v2-client", str(keys)]) == 0
    assert "IP Address:192.0.2.1" in openssl("x509", "-in", str(keys / "server.crt"), "-noout", "-text").stdout
    assert verify(keys, "server", "sslserver").returncode == 0


def test_nothing_is_overwritten_and_no_link_is_followed(
    keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in keys.iterdir()}
    assert run_pki(["init", str(keys), "--server", "s", "--client", "c"]) == 1
    assert {path.name: path.read_bytes() for path in keys.iterdir()} == before
    assert "exists already" in capsys.readouterr().err
    trap, target = tmp_path / "static.key", tmp_path / "target"
    trap.symlink_to(target)
    assert run_pki(["static-key", str(tmp_path)]) == 1
    assert not target.exists()


@pytest.mark.parametrize("name", ["../out", "a/b", ".hidden", ""])
def test_a_name_that_is_no_file_name_is_refused(keys: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_pki(["issue", str(keys), "x", "--purpose", "client", "--file", name or "."]) == 1
    assert "not usable as a file name" in capsys.readouterr().err


@pytest.mark.interop
def test_openvpn_reads_the_key_files_and_a_profile(keys: Path, tmp_path: Path) -> None:
    """`--show-tls`-like dry runs do not exist: openvpn reads all keys before it finds that the port is 0."""
    for control in ("tls-auth", "tls-crypt", "tls-crypt-v2", "none"):
        profile = tmp_path / f"{control}.ovpn"
        assert (
            run_pki(["profile", str(keys), "--remote", "127.0.0.1", "--control", control, "--out", str(profile)]) == 0
        )
        assert stat.S_IMODE(profile.stat().st_mode) == 0o600
        done = subprocess.run(
            ["openvpn", "--config", str(profile), "--dev-type", "tun", "--dev", "null", "--connect-timeout", "1",
             "--connect-retry-max", "1", "--hand-window", "1", "--resolv-retry", "0", "--ifconfig-noexec"],
            capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        assert "link remote: [AF_INET]127.0.0.1:1194" in done.stdout, done.stdout
        assert "rror: " not in done.stdout.replace("TLS Error: ", "")


@pytest.mark.interop
def test_openvpn_makes_a_client_key_from_our_server_key(keys: Path, tmp_path: Path) -> None:
    """The real tool unwraps nothing, but it must read our server key; and we must read what it wraps with it."""
    made = tmp_path / "client.key"
    server = str(keys / "tls-crypt-v2-server.key")
    argv = ["openvpn", "--tls-crypt-v2", server, "--genkey", "tls-crypt-v2-client", str(made)]
    assert subprocess.run(argv, capture_output=True, timeout=20).returncode == 0
    key, wrapped = parse_client_key(made.read_text())
    ours_key, ours_wrapped = parse_client_key((keys / "tls-crypt-v2-client.key").read_text())
    assert (len(key), len(wrapped)) == (len(ours_key), len(ours_wrapped)) == (256, 299)


@pytest.mark.interop
def test_we_read_the_static_key_that_openvpn_makes(tmp_path: Path) -> None:
    path = tmp_path / "static.key"
    assert subprocess.run(["openvpn", "--genkey", "secret", str(path)], capture_output=True, timeout=20).returncode == 0
    key = parse_static_key(path.read_text())
    assert len(key) == 256
    assert parse_static_key(build_static_key(key)) == key


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no BEGIN/END"),
        (build_static_key(bytes(256)).replace("00", "zz", 1), "hexadecimal"),
        (build_static_key(bytes(256)).replace("00" * 16 + "\n", "", 8), "128 octets"),
    ],
)
def test_a_damaged_static_key_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        parse_static_key(text)


def test_a_cut_client_key_is_refused() -> None:
    key = ClientKey(bytes(256), timestamp_metadata(1_700_000_000))
    whole = build_client_key(key.key, wrap_client_key(key, bytes(128)))
    lines = whole.splitlines()
    with pytest.raises(Malformed, match="cut short"):
        parse_client_key("\n".join([*lines[:-3], lines[-1]]))

"""The scripts behind `make` say in one line what the host lacks and what mends it, and leave nothing of root's."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OWNER = 65534  # nobody: any user but root
NEEDED = [
    "bash",
    "dirname",
    "id",
    "stat",
    "cut",
    "sed",
    "paste",
    "cat",
    "env",
    "getent",
    "sha256sum",
    "tr",
    "test",
    "grep",
    "tail",
    "mktemp",
    "rm",
]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files the scripts read, in a directory of their own."""
    copy = tmp_path / "checkout"
    shutil.copytree(ROOT / "tools", copy / "tools")
    for name in ("pyproject.toml", "requirements.lock", "requirements-test.lock"):
        shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A directory for PATH with the few programs that every system has, and no other."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name in NEEDED:
        found = shutil.which(name)
        assert found, f"{name} is missing"
        (directory / name).symlink_to(found)
    return directory


def fake(programs: Path, name: str, script: str) -> None:
    path = programs / name
    path.write_text(f"#!/bin/bash\n{script}\n", "utf-8")
    path.chmod(0o755)


def run(checkout: Path, programs: Path, *argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", *argv], cwd=checkout, env={"PATH": str(programs), **environment}, capture_output=True, text=True
    )


def test_an_old_python_is_named_with_the_fix_in_one_line(checkout: Path, programs: Path) -> None:
    fake(programs, "python3", '[ "$1" = -V ] && echo Python 3.9.2 || exit 1')
    result = run(checkout, programs, "tools/venv.sh", "run")
    assert result.returncode != 0
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "found Python 3.9.2" in result.stderr
    assert "Fix: apt install python3" in result.stderr


def test_a_newer_python_beside_an_old_one_is_taken(checkout: Path, programs: Path) -> None:
    fake(programs, "python3", '[ "$1" = -V ] && echo Python 3.9.2 || exit 1')
    fake(programs, "python3.12", '[[ "$2" == *ensurepip* ]] && exit 1; exit 0')
    result = run(checkout, programs, "tools/venv.sh", "run")
    assert result.stderr == f"{programs}/python3.12 has no venv module. Fix: apt install python3-venv\n"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "WARNING: NewConnectionError: Temporary failure in name resolution",
            "No answer from the Python package index. Fix: check the network",
        ),
        ("ERROR: OSError: [Errno 28] No space left on device", "No space is left for "),
        (
            "SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed'))",
            "The certificate of the Python package index is not trusted here. Fix: ",
        ),
    ],
)
def test_why_packages_cannot_be_installed_is_told_in_one_line(
    checkout: Path, programs: Path, said: str, told: str
) -> None:
    (checkout / "said").write_text(said, "utf-8")
    fake(
        programs,
        "python3",
        """case "$*" in
            -V) echo Python 3.12.0 ;;
            *"-m venv"*) /bin/mkdir -p .venv/bin; /bin/cp "$0" .venv/bin/python ;;
            *"-m pip"*) cat said >&2; exit 1 ;;
        esac""",
    )
    for name in ("touch", "sh"):
        (programs / name).symlink_to(shutil.which(name) or "")
    result = run(checkout, programs, "tools/venv.sh", "run")
    assert result.returncode == 1
    creating, installing, last = result.stderr.splitlines()
    assert creating.startswith("Creating .venv")
    assert installing.startswith("Installing ")
    assert last.startswith(told)
    assert not (checkout / ".venv" / ".run").exists()


@pytest.mark.root
@pytest.mark.parametrize("script", ["venv.sh", "demo.sh"])
def test_a_checkout_of_another_user_is_named_with_the_fix_and_nothing_is_made_in_it(
    checkout: Path, script: str
) -> None:
    argv = ["bash", f"tools/{script}", "run"]
    result = subprocess.run(
        argv, cwd=checkout, env={"PATH": "/usr/bin"}, capture_output=True, text=True, user=OWNER, group=OWNER
    )
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"{checkout} belongs to root, you may not write there. Fix: clone into a directory")
    assert sorted(path.name for path in checkout.iterdir()) == [
        "pyproject.toml",
        "requirements-test.lock",
        "requirements.lock",
        "tools",
    ]


def test_the_fix_needs_no_sudo_where_there_is_none(checkout: Path, programs: Path) -> None:
    script = '. tools/common.sh; PATH=$1; through_root "make test"'
    assert run(checkout, programs, "-c", script, "-", str(programs)).stdout == "su -c 'make test'\n"
    fake(programs, "sudo", "exit 0")
    assert run(checkout, programs, "-c", script, "-", str(programs)).stdout == "sudo make test\n"


def test_missing_peers_are_named_where_they_cannot_be_installed(checkout: Path, programs: Path) -> None:
    result = run(checkout, programs, "tools/peers.sh")
    assert result.returncode == 1
    assert "tshark" in result.stderr
    assert "chromium" in result.stderr
    assert "chromium|" not in result.stderr
    assert "Fix: su -c 'make test'" in result.stderr or "no apt-get" in result.stderr


@pytest.mark.root
def test_a_peer_that_apt_does_not_bring_is_a_failure_that_names_it(checkout: Path, programs: Path) -> None:
    fake(programs, "apt-get", "exit 0")
    fake(programs, "apt-cache", "echo '  Candidate: 1.0'")
    result = run(checkout, programs, "tools/peers.sh")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("Still missing after the installation, from these packages:")
    assert "tshark" in result.stderr.splitlines()[-1]


@pytest.mark.root
def test_an_archive_that_does_not_answer_is_told_from_a_package_that_is_missing(checkout: Path, programs: Path) -> None:
    fake(
        programs,
        "apt-get",
        '[[ "$*" == *update* ]] || { echo "E: Failed to fetch x  Temporary failure resolving" >&2; exit 100; }',
    )
    fake(programs, "apt-cache", "echo '  Candidate: 1.0'")
    result = run(checkout, programs, "tools/peers.sh")
    assert result.returncode == 1
    installing, last = result.stderr.splitlines()
    assert installing.startswith("Installing for the tests: ")
    assert last.endswith("no answer from the package archive. Fix: check the network and /etc/apt")


@pytest.mark.root
def test_what_only_needs_the_checkout_runs_as_its_owner_when_sudo_made_us_root(checkout: Path) -> None:
    programs = Path("/usr/bin")  # pytest's own directories are closed to the owner
    script = ". tools/common.sh; as_owner id -u"
    sudo = {"SUDO_UID": str(OWNER), "SUDO_GID": str(OWNER)}
    assert run(checkout, programs, "-c", script, **sudo).stdout == "0\n"  # a checkout of root's own
    os.chown(checkout, OWNER, OWNER)
    assert run(checkout, programs, "-c", script, **sudo).stdout == f"{OWNER}\n"
    assert run(checkout, programs, "-c", script).stdout == "0\n"  # root without sudo

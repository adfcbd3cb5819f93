"""Two hundred clients at one server, ours and, as the yardstick, openvpn's: all answered, and what each costs."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.interop.tunnel_configs import PUSH_SPLIT, Setup, make_keys
from tests.interop.tunnel_lab import INNER_SERVER, OPENVPN, OURS, READY, Program, TunnelLab, in_lab

pytestmark = [pytest.mark.root, pytest.mark.interop]

CLIENTS = 200
# A few times what one client costs either server (around 100 and 160 kB): what grows with packets would pass it.
KILOBYTES_PER_CLIENT = 512
SECONDS = 100.0


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_keys(tmp_path_factory.mktemp("pki") / "keys")


def resident_kilobytes(program: Program) -> int:
    status = Path(f"/proc/{program.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


@pytest.mark.parametrize("server_program", [OURS, OPENVPN])
def test_two_hundred_clients_connect_and_ping_through_one_server(
    server_program: str, keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # All come at once: the limit on first packets is another test's.
    setup = Setup(keys, PUSH_SPLIT, server_only=("connect-freq-initial 10000 1", "max-clients 250"))

    def body(lab: TunnelLab) -> dict[str, Any]:
        config = lab.folder / "many.conf"
        config.write_text(setup.client())
        server = lab.tunnel(server_program, "vpn", setup.server())
        server.wait_for(READY)
        before = resident_kilobytes(server)
        release = lab.folder / "release"
        crowd = Path(__file__).with_name("many_clients.py")
        argv = f"{sys.executable} {crowd} {config} {CLIENTS} {INNER_SERVER} < {release}"
        lab.output("client", "mkfifo", str(release))
        clients = lab.start("client", ["sh", "-c", argv], "clients")
        with release.open("w"):
            clients.wait_for("all in\n", SECONDS)
            grown = resident_kilobytes(server) - before
        assert clients.wait() == 0
        found: dict[str, Any] = json.loads(clients.text().splitlines()[-1])
        return found | {"kilobytes": grown / CLIENTS}

    found = in_lab(body, tmp_path)
    with capsys.disabled(), contextlib.redirect_stdout(sys.stderr):  # which pytest's workers let through
        print(
            f"\n{CLIENTS} clients at {server_program}: all answered after {found['seconds']} s, "
            f"{found['kilobytes']:.0f} kB of the server's memory each"
        )
    assert found["answered"] == CLIENTS
    assert found["closed"] == []
    assert len(set(found["addresses"])) == CLIENTS
    assert found["kilobytes"] < KILOBYTES_PER_CLIENT

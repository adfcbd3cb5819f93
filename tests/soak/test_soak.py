"""Twenty seconds of what `make soak` does for ten minutes: a bad link, a moving client, new keys, no octet lost."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from tests.interop.tunnel_configs import make_keys
from tests.interop.tunnel_lab import OPENVPN, OURS
from tests.soak.soak import Plan, soak
from tests.unit.secret_windows import Secrets

# at the least: each goes on until the client has moved twice, was followed, and the keys have changed twice
SECONDS = {True: 16.0, False: 9.0}
MOST_GROWTH_KIB = 4096
PAIRS = [(OURS, OURS), (OURS, OPENVPN), (OPENVPN, OURS)]
pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_keys(tmp_path_factory.mktemp("pki") / "keys")


def secrets_of(keys: Path) -> Secrets:
    """The static keys' octets, and the second half of each private key's file, where its secret number stands."""
    hexadecimal = "".join(line for line in (keys / "tls-crypt.key").read_text().splitlines() if line[:1] not in "#-")
    found = [bytes.fromhex(hexadecimal)]
    for name in ("server.key", "client.key"):
        lines = [line for line in (keys / name).read_text().splitlines() if not line.startswith("-")]
        found.append(base64.b64decode("".join(lines))[36:68])
    return Secrets(found)


@pytest.mark.interop
@pytest.mark.parametrize(("server", "client"), PAIRS, ids=[f"{client}-to-{server}" for server, client in PAIRS])
def test_no_octet_is_lost_on_a_bad_link_while_the_client_moves_and_keys_change(
    server: str, client: str, keys: Path, tmp_path: Path
) -> None:
    plan = Plan(SECONDS[server == client], renegotiate_every=4, move_every=4.0, moves=2, renegotiations=2)
    outcome = soak(keys, tmp_path, server, client, plan)
    print(outcome.summary())
    assert not outcome.problems
    assert outcome.sent > 1_000_000
    assert outcome.received > 1_000_000
    assert outcome.restarts == 0
    assert outcome.renegotiations >= 2
    assert outcome.floats >= outcome.moves >= 2
    assert max(outcome.growth_kib.values()) < MOST_GROWTH_KIB
    secrets = secrets_of(keys)
    for log in tmp_path.glob("*-vpn-*.log"):
        text = log.read_text(errors="replace")
        assert "Initialization Sequence Completed" in text
        assert not secrets.shown_in(text)

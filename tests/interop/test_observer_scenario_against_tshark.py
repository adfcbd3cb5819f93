"""Each finding's filter against Wireshark on the shipped scenario's captures, at the ISP and in the tunnel.

What the observer reads in the captures of every scenario is compared by `tests/scenarios/truth.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.observer import Observation, observe
from tests.interop.sharkd import Sharkd
from tests.interop.test_observer_protocols_against_tshark import MORE_FOUND, findings
from tests.scenarios.running import run_testbed

pytestmark = [pytest.mark.interop, pytest.mark.root, pytest.mark.slow]


@pytest.fixture(scope="module")
def observations(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Observation]:
    directory = tmp_path_factory.mktemp("scenario")
    ran = run_testbed("run", "what-a-vpn-hides", cwd=directory, out=directory / "run")
    assert ran.code == 0, ran.stdout + ran.stderr
    captures = sorted(ran.out.glob("*/isp.pcapng")) + sorted(ran.out.glob("*/client-tun.pcapng"))
    assert len(captures) >= 5
    return {path: observe(path) for path in captures}


def test_every_filter_finds_the_frames_that_the_finding_names(observations: dict[Path, Observation]) -> None:
    wrong = []
    for path, observation in observations.items():
        with Sharkd(path) as wireshark:
            for what, value, frames, display_filter in findings(observation):
                found = wireshark.frames(display_filter)
                agrees = set(frames) <= set(found) if what in MORE_FOUND else list(frames) == found
                if not agrees or not found:
                    wrong.append(f"{path}: {what} {value[:60]!r}: {frames} not {found} by {display_filter}")
    assert wrong == []

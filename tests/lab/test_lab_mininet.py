"""The shipped topology is Mininet's language: the distribution's own Mininet runs the same file."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.root, pytest.mark.interop]

ROOT = Path(__file__).resolve().parents[2]
TOPOLOGY = ROOT / "topologies" / "client_isp_server.py"


def test_pingall_of_the_distributions_mininet_drops_nothing() -> None:
    # Mininet works on the machine itself: here on one of its own, which ends with it.
    script = 'mount -t tmpfs tmpfs /run && mount -t sysfs sysfs /sys && ip link set lo up && exec "$@"'
    mininet = [
        "mn",
        "--custom",
        str(TOPOLOGY),
        "--topo",
        "client_isp_server",
        "--controller",
        "none",
        "--test",
        "pingall",
    ]
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "sh",
            "-c",
            script,
            "sh",
            *mininet,
        ],
        env={"PATH": os.environ["PATH"], "HOME": "/root"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Results: 0% dropped (30/30 received)" in done.stdout + done.stderr

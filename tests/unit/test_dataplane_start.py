"""What a start does not pay for: numpy, which only large batches need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_tunnel_starts_without_numpy() -> None:
    words = "import sys, vpn.cli, vpn.driver.client, vpn.driver.server; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", words], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

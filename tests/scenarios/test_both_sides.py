"""Two listeners, one on each side of the VPN server: neither knows both ends, together they do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scenarios.truth import assert_tshark_agrees

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.root, pytest.mark.slow]
SITES = {"93.184.216.34:443", "203.0.113.80:443"}


def test_both_sides_together_know_who_talked_to_whom_with_the_packets(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "testbed", "run", "both-sides-of-the-vpn", "--out", "run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    variants = json.loads((tmp_path / "run/result.json").read_text())["variants"]
    assert variants["without"]["correlations"] == []
    found = variants["with"]["correlations"]
    assert {one["near"] for one in found} == {"lan", "isp"}
    assert {one["far"] for one in found} == {"behind", "site"}
    for near, far in (("isp", "behind"), ("lan", "site")):
        pair = [one for one in found if (one["near"], one["far"]) == (near, far)]
        assert {one["site"] for one in pair} == SITES
        assert {one["client"].rpartition(":")[0] for one in pair} == {"192.168.0.13"}
        assert {one["server"] for one in pair} == {"198.51.100.10:1194"}
    packets = {tap["name"]: tap["packets"] for tap in variants["with"]["taps"]}
    for one in found:
        assert one["evidence"]
        assert 0 < one["p_value"] <= 0.05
        for item in one["evidence"]:
            assert all(1 <= item[name]["frame"] <= packets[name] for name in (one["near"], one["far"]))
    assert "192.168.0.13 talked to 93.184.216.34:443" in " ".join(done.stdout.split())
    report = (tmp_path / "run/report.html").read_text()
    assert report.count("Both sides of the server:") == 2
    assert report.count('<details class="observer other-ladders">') == 3
    assert_tshark_agrees(tmp_path / "run")

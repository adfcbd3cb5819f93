#!/usr/bin/env python3
"""Make the pictures of docs/screenshots again: run the shipped scenario, open its report in Chromium, take each part.

    sudo PYTHONPATH=. python tools/screenshots.py [RUN_DIRECTORY]

With a run's directory, that run's report is taken instead of a new one. Needs chromium and the test requirements.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.interop.chromium import Chromium

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "screenshots"
SCENARIO = "what-a-vpn-hides"
WIDTH, LARGEST_OCTETS = 1280, 250_000
SCALE = 0.8


def open_name(page: Chromium) -> None:
    """The cell of the name that was looked up, with its packet."""
    cell = """[...document.querySelectorAll('#m1 tr')].find((row) => row.innerText.includes('dns-name'))
        .querySelector('button.cell')"""
    page.value(f"({cell}).click()")
    page.value(f"({cell}).closest('tr').id = 'pictured'")


def break_seal(page: Chromium) -> None:
    page.value("document.querySelector('#doll-sealed .seal').open = true")


def nothing(page: Chromium) -> None:
    del page


# name -> what to do first, the element at the picture's top, the picture's height
SHOTS: dict[str, tuple[Callable[[Chromium], None], str, int]] = {
    "ways": (nothing, "#ways-title", 890),
    "cell": (open_name, "#pictured", 1060),
    "twice": (nothing, "#twice-title", 880),
    "handshake": (nothing, "details:has(> #ladder-tunnel)", 880),
    "packet-in-a-packet": (break_seal, "#dolls-title", 1220),
}


def take(report: Path, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        page = Chromium(Path(profile))
        page.call("Emulation.setDeviceMetricsOverride", width=WIDTH, height=800, deviceScaleFactor=1, mobile=False)
        page.call("Emulation.setScrollbarsHidden", hidden=True)  # a picture has none: lines would break elsewhere
        for name, (prepare, selector, height) in SHOTS.items():
            page.open(report)
            prepare(page)
            top = page.value(f"document.querySelector('{selector}').getBoundingClientRect().y + scrollY")
            picture = page.picture(0, max(0.0, top - 12), WIDTH, height, SCALE)
            if len(picture) > LARGEST_OCTETS:
                sys.exit(f"{name}.png takes {len(picture):,} octets, more than {LARGEST_OCTETS:,}")
            (directory / f"{name}.png").write_bytes(picture)
            print(f"{directory / name}.png: {len(picture):,} octets")
        page.close()


def main() -> None:
    if len(sys.argv) > 1:
        take(Path(sys.argv[1]).resolve() / "report.html", PICTURES)
        return
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        command = [sys.executable, "-m", "testbed", "run", SCENARIO, "--out", str(run)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        take(run / "report.html", PICTURES)


if __name__ == "__main__":
    main()

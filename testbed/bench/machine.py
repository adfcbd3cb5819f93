"""What the figures depend on: the processor, the kernel, who else was at work, and the versions of the programs."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from testbed import __version__
from testbed.tunnels.programs import find_program

_VERSION_WORDS: Mapping[str, tuple[str, ...]] = {
    "openvpn": ("--version",),
    "wireguard-go": ("--version",),
    "tincd": ("--version",),
    "fastd": ("--version",),
    "iperf3": ("--version",),
}


def describe_machine(programs: Iterable[str]) -> dict[str, Any]:
    """The machine as JSON values, with the versions of those of `programs` that tell theirs."""
    return {
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "testbed": __version__,
        "load": [round(value, 2) for value in os.getloadavg()],
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "programs": {name: _version(name) for name in sorted(set(programs)) if name in _VERSION_WORDS},
    }


def _version(program: str) -> str:
    path = find_program(program)
    if path is None:
        return "not installed"
    # openvpn ends with 1 when it has told its version
    done = subprocess.run([path, *_VERSION_WORDS[program]], capture_output=True, text=True, timeout=20, check=False)
    found = re.search(r"\d+(\.\d+)*[\w.-]*", done.stdout + done.stderr)
    return found[0] if found else "unknown"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()

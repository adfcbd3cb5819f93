"""Wireshark's sharkd: a capture loaded once, then any number of display filters at little cost."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any


class Sharkd:
    """Answers which frames of a capture a display filter finds."""

    def __init__(self, capture: Path | None = None) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(["sharkd", "-"], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        self._number = 0
        self._loads = 0
        if capture is not None:
            self.load(capture)

    def __enter__(self) -> Sharkd:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(20)

    def load(self, capture: Path) -> None:
        """Turn to this capture: cheaper than another process."""
        self._ask("load", file=str(capture))
        self._loads += 1

    def frames(self, display_filter: str) -> list[int]:
        # It remembers a filter's answer beyond the capture: spaces make it another filter.
        return [row["num"] for row in self._ask("frames", filter=display_filter + " " * self._loads)]

    def _ask(self, method: str, **parameters: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._number += 1
        request = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": parameters}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise ValueError(f"sharkd does not take {parameters}: {answer['error']}")
        return answer["result"]

"""`python -m testbed.lab.impair CONTROL_FD`: the engine of a lab's impaired links.

Its first line on the control socket is the request: {"links": [{"ports": [fd, fd], "mtu_octets", "options": [{…}, {…}],
"seeds": [text, text]}]}, the inherited descriptors of the two ends, and per direction (from the first end to the
second, then back) what `Impairment` takes and the seed. It answers {"ready": true}, then each order in its turn. It
ends with SIGTERM, with its parent, or when the control socket is closed.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from typing import Any

from testbed.lab.impair.draws import seeded_draws
from testbed.lab.impair.engine import Engine, Way
from testbed.lab.impair.model import Impairment
from testbed.lab.impair.port import adopt_port
from testbed.lab.impair.shaper import Shaper

USAGE_ERROR = 2


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or not arguments[0].isdigit():
        sys.stderr.write("testbed.lab.impair takes one argument: the descriptor of its control socket\n")
        return USAGE_ERROR
    parent = os.pidfd_open(os.getppid())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C on the terminal is its parent's affair
    with socket.socket(fileno=int(arguments[0])) as control:
        with control.makefile("rb", buffering=0) as lines:
            request = json.loads(lines.readline())
        engine = Engine([_link(link) for link in request["links"]], control)
        control.sendall(b'{"ready": true}\n')
        engine.run([parent])
    return 0


def _link(link: dict[str, Any]) -> tuple[Way, Way]:
    first, second = (adopt_port(descriptor, link["mtu_octets"]) for descriptor in link["ports"])
    there, back = (
        Shaper(Impairment(**options), seeded_draws(seed))
        for options, seed in zip(link["options"], link["seeds"], strict=True)
    )
    return Way(first, there, second), Way(second, back, first)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`python -m testbed.capture`: one tap, drained into an inherited file until SIGTERM or until its parent is gone.

    --socket FD            socket that `tap.open_ring` prepared
    --output FD            open, empty file
    --interface-name NAME  as it shall stand in the file, such as isp:client
    --ring-octets N        as given to `open_ring`
    --snap-octets N        as given to `open_ring`; 0 for whole packets
    --busy 0|1             1: many packets are to come, so get ready for them at once instead of when they do; a snap
                           length or a ring larger than usual says the same

When it ends it prints one line of JSON: {"packets", "octets", "dropped", "frozen", "unfinished_checksums"}.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

from testbed.capture import tap

REQUIRED = ("--socket", "--output", "--interface-name")
DEFAULTS = {"--ring-octets": str(tap.DEFAULT_RING_OCTETS), "--snap-octets": "0", "--busy": "0"}
PRIORITY = -10  # nice value
USAGE_ERROR = 2
HOST_ERROR = 3


def main(arguments: list[str]) -> int:
    names, values = arguments[::2], arguments[1::2]
    options = {**DEFAULTS, **dict(zip(names, values, strict=False))}
    if len(arguments) % 2 or set(options) != {*REQUIRED, *DEFAULTS}:
        sys.stderr.write(f"testbed.capture takes pairs of {', '.join((*REQUIRED, *DEFAULTS))}\n")
        return USAGE_ERROR
    stops = [_signal_descriptor(), os.pidfd_open(os.getppid())]  # SIGTERM, or the parent's end
    _go_first()
    try:
        ring = tap.record(
            socket.socket(fileno=int(options["--socket"])),
            int(options["--output"]),
            interface_name=options["--interface-name"],
            ring_octets=int(options["--ring-octets"]),
            snap_octets=int(options["--snap-octets"]),
            stops=stops,
            busy=_is_busy(options),
        )
    except OSError as error:
        sys.stderr.write(f"tap {options['--interface-name']}: {error}\n")
        return HOST_ERROR
    sys.stdout.write(
        f'{{"packets": {ring.packets}, "octets": {ring.octets}, "dropped": {ring.dropped}, '
        f'"frozen": {ring.frozen}, "unfinished_checksums": {ring.unfinished_checksums}}}\n'
    )
    sys.stdout.flush()
    return 0


def _is_busy(options: dict[str, str]) -> bool:
    return tap.is_for_load(int(options["--ring-octets"]), int(options["--snap-octets"])) or options["--busy"] == "1"


def _go_first() -> None:
    """Have the processor before the programs that are recorded: a tap that waits for it loses packets."""
    try:  # noqa: SIM105 - contextlib would be start-up time
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    except PermissionError:
        pass  # not root: then the ring has to hold for longer


def _signal_descriptor() -> int:
    """A descriptor that becomes readable when SIGTERM or SIGINT arrives."""
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # the wake-up descriptor needs a Python handler to be written to
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})  # whoever starts a tap may block them
    return readable


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)  # all is written: taking numpy down again piece by piece would cost as much as 15,000 packets

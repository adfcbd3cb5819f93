"""`run`: any program in the client's node, believing the lab's certificates, bounded in time and output.

The program gets a session of its own, so that at the deadline it ends together with what it started. `{canary}` in an
argument becomes a token and a payload fact: what the program does with it is its own affair, the token gives it away.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess

from testbed.facts import Kind
from testbed.workload.attempt import ActionFailed, Attempt
from testbed.workload.trust import trust_environment

OUTPUT_OCTETS = 1 << 16
READ_OCTETS = 1 << 14


def perform(attempt: Attempt) -> str:
    """Run the program to its end; returns its last line of output. Errors: ActionFailed for exit codes other than 0."""
    request = attempt.request
    environment = {**os.environ, **trust_environment(request.ca_bundle or request.ca_certificate, request.keylog)}
    expanded = [attempt.canaries.expand(text, f"argv-{number}") for number, text in enumerate(attempt.action.argv)]
    try:
        process = subprocess.Popen(
            [text for text, _ in expanded],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise ActionFailed(f"{attempt.action.argv[0]}: {error.strerror}") from None
    for _, tokens in expanded:
        for token in tokens:
            attempt.note(Kind.PAYLOAD, token, attempt.action.site, (token,))
    try:
        _drain(attempt, process)
    finally:
        _end(process)
    code = process.returncode
    lines = (attempt.output or "").strip().splitlines()
    last = lines[-1] if lines else "no output"
    if code:
        raise ActionFailed(f"exit code {code}: {last}" if code > 0 else f"ended by signal {-code}: {last}")
    return last


def _drain(attempt: Attempt, process: subprocess.Popen[bytes]) -> None:
    """Keep the first octets of the output and read the rest away, until the program has ended.

    A child that the program left behind may hold the pipe open: the program's own end counts, by its descriptor.
    """
    if process.stdout is None:
        raise ActionFailed("no output pipe")
    kept = bytearray()
    output, ended = process.stdout.fileno(), os.pidfd_open(process.pid)
    poll = select.poll()
    poll.register(output, select.POLLIN)
    poll.register(ended, select.POLLIN)
    try:
        while ready := {descriptor for descriptor, _ in poll.poll(attempt.remaining_s() * 1000)}:
            piece = os.read(output, READ_OCTETS) if output in ready else b""
            kept += piece[: OUTPUT_OCTETS - len(kept)]
            if not piece and ended in ready:
                return
            if not piece and output in ready:
                poll.unregister(output)
        raise ActionFailed(f"still running after {attempt.action.timeout:g} s")
    finally:
        os.close(ended)
        attempt.output = kept.decode("utf-8", "backslashreplace")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what is left of the program's group, then reap its leader: until then the number cannot be another's."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()

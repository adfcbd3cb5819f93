"""`python -m testbed.workload`: read the request from stdin, do it, tell on stdout. See `request` for the JSON."""

from __future__ import annotations

import itertools
import json
import os
import ssl
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import Any

from testbed.facts import Fact
from testbed.lab.namespaces import die_with_parent
from testbed.result import ActionRecord
from testbed.workload.attempt import ActionFailed, Attempt, in_words
from testbed.workload.request import Action, RequestError, WorkloadRequest
from testbed.workload.session import LinkCounters, session_facts

VERB_MODULES = {"dns": "dns_lookup", "http": "http_request", "https": "http_request", "ping": "ping", "run": "command"}


@dataclass(slots=True)
class Workload:
    """Performs a request's actions and tells what became of them."""

    request: WorkloadRequest
    telling: threading.Lock = field(default_factory=threading.Lock)
    settings: threading.Lock = field(default_factory=threading.Lock)
    contexts: dict[str, ssl.SSLContext] = field(default_factory=dict)  # by the protocol that ALPN offers

    def perform(self) -> None:
        tunnel = self.request.tunnel_device
        before, started_at = LinkCounters.read(tunnel), time.monotonic()
        self._tell({"event": "began", "time": time.time()})
        first, *others = chains(self.request.actions)
        threads = [threading.Thread(target=self._perform_in_order, args=(chain, started_at)) for chain in others]
        for thread in threads:
            thread.start()
        self._perform_in_order(first, started_at)
        for thread in threads:
            thread.join()
        lasted_s = time.monotonic() - started_at
        facts = session_facts(before, LinkCounters.read(tunnel), lasted_s, len(self.request.actions))
        self._tell({"event": "done", "facts": _as_values(facts)})

    def _perform_in_order(self, actions: Iterable[Action], started_at: float) -> None:
        for group, members in itertools.groupby(actions, key=lambda action: action.group):
            if group is None:
                for action in members:
                    self._perform_action(action, started_at)
            else:
                self._perform_together(list(members), started_at)

    def _perform_together(self, actions: list[Action], started_at: float) -> None:
        threads = [threading.Thread(target=self._perform_action, args=(action, started_at)) for action in actions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _perform_action(self, action: Action, workload_started_at: float) -> None:
        if action.at is not None:
            time.sleep(max(0.0, workload_started_at + action.at - time.monotonic()))
        started_at = time.time()
        self._tell({"event": "start", "id": action.id, "time": started_at})
        attempt = Attempt(self.request, action, time.monotonic() + action.timeout, self.tls)
        detail, error = _try(attempt)
        target = action.target or " ".join(action.argv)
        record = ActionRecord(action.id, action.verb, target, not error, started_at, time.time(), detail, error)
        line = {"event": "end", "id": action.id, "record": asdict(record), "facts": _as_values(attempt.facts)}
        self._tell(line if attempt.output is None else {**line, "output": attempt.output})

    def tls(self, protocol: str) -> ssl.SSLContext:
        """The client's TLS settings: the lab's authority and no other, secrets logged for Wireshark."""
        with self.settings:
            if protocol not in self.contexts:
                context = ssl.create_default_context(cafile=self.request.ca_certificate)
                context.set_alpn_protocols([protocol])
                if self.request.keylog:
                    context.keylog_filename = self.request.keylog
                self.contexts[protocol] = context
            return self.contexts[protocol]

    def _tell(self, line: dict[str, Any]) -> None:
        with self.telling:
            print(json.dumps(line), flush=True)


def chains(actions: Iterable[Action]) -> list[list[Action]]:
    """The actions that run one after the other; each that has a time of its own begins another such list.

    Shape: the first list holds what comes before the first such action, and may be empty
    """
    found: list[list[Action]] = [[]]
    for action in actions:
        if action.at is not None:
            found.append([])
        found[-1].append(action)
    return found


def _try(attempt: Attempt) -> tuple[str, str]:
    """What came of the action, and what went wrong; one of them is empty."""
    try:
        module = import_module(f"testbed.workload.{VERB_MODULES[attempt.action.verb]}")
        return str(module.perform(attempt)), ""
    except ActionFailed as failure:
        return "", str(failure)
    except OSError as error:
        return "", in_words(error)


def _as_values(facts: Iterable[Fact]) -> list[dict[str, Any]]:
    return [asdict(fact) for fact in facts]


def create_keylog(path: str) -> None:
    """Make the file of TLS secrets readable by its owner alone before OpenSSL or a program opens it."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    os.chmod(path, 0o600)


def main() -> int:
    die_with_parent()
    try:
        request = WorkloadRequest.from_json(sys.stdin.buffer.read())
        if request.keylog:
            create_keylog(request.keylog)
    except (RequestError, OSError) as error:
        print(json.dumps({"event": "error", "error": str(error)}), flush=True)
        return 1
    Workload(request).perform()
    return 0


if __name__ == "__main__":
    sys.exit(main())

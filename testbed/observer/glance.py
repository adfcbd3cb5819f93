"""Long TCP conversations at a glance: whether dissecting them takes all their octets or only the beginning.

Most of a large capture is downloads that nobody can read. What they are shows at the beginning of each direction and
behind each hole; beyond `FIRST_LOOK_OCTETS` there is nothing for a dissector, unless it is HTTP or readable text. The
search for words does not depend on this: streams are handed out whole.
"""

from __future__ import annotations

from collections.abc import Iterator

from testbed.observer import http, tls
from testbed.observer.flows import FlowState, Side
from testbed.observer.sights.text import is_text
from testbed.observer.streams import ASKED_AGAIN_OCTETS, NEVER_ASKED, Recorder
from testbed.observer.wire import http2

FIRST_LOOK_OCTETS = 1 << 20  # 600 full segments, which the recognition of tunnels asks for, with room
SKIMMED_OCTETS = ASKED_AGAIN_OCTETS  # longer than the first look, so that what it sees never depends on skipping
HEAD_OCTETS = 16 << 10  # as long as a request line may be
DNS_PORT = 53


def limit_dissection(flow: FlowState) -> None:
    """Let the dissectors see only the beginning of a long conversation, where the rest can tell them nothing."""
    long = [side for side, _ in flow.sides if side.recorder.size > FIRST_LOOK_OCTETS]
    if long and not _is_read_whole(flow):
        for side in long:
            if not _is_readable(side.recorder):
                side.recorder.show(FIRST_LOOK_OCTETS)


def skim(flow: FlowState, side: Side) -> None:
    """Keep no more of a long direction, up to the next hole, where nobody asks for streams and none can be read."""
    if _is_read_whole(flow) or _is_readable(side.recorder):
        side.recorder.asked_at = NEVER_ASKED
    else:
        side.recorder.skip()


def _is_read_whole(flow: FlowState) -> bool:
    if DNS_PORT in (flow.client.endpoint.port, flow.server.endpoint.port):
        return True
    heads = (numbered for side, _ in flow.sides for numbered in enumerate(_heads(side.recorder)))
    return any(_speaks_http(head) or (number and _has_http(head)) for number, head in heads)


def _is_readable(recorder: Recorder) -> bool:
    heads = enumerate(_heads(recorder))
    return any(is_text(head) or (number and tls.looks_like_tls(head)) for number, head in heads)


def _heads(recorder: Recorder) -> Iterator[bytes]:
    """How it begins, and how it goes on behind each hole."""
    for start in sorted({0, *recorder.gaps}):
        yield recorder.head(start, HEAD_OCTETS)


def _speaks_http(head: bytes) -> bool:
    if http2.has_preface(head) or http2.looks_like_server(head):
        return True
    return http.looks_like_request(head) or http.looks_like_response(head)


def _has_http(head: bytes) -> bool:
    """Whether a message begins in what goes on behind a hole. Which segment began there is not asked here."""
    return http.find_request(head) >= 0 or http.find_response(head) >= 0

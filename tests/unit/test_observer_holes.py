"""What was lost on the way to the tap: what stands behind it is read all the same, and that it was lost is said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from testbed.capture import pcapng
from testbed.facts import Kind
from testbed.observer import Observation, observe
from testbed.observer.http import find_request

FIRST = b"GET /first HTTP/1.1\r\nHost: one.example\r\nCookie: k=v1\r\n\r\n"
SECOND = b"GET /second HTTP/1.1\r\nHost: two.example\r\nCookie: k=v2\r\n\r\n"
POST = b"POST /up HTTP/1.1\r\nHost: lost.example\r\nContent-Length: 3000\r\n\r\n" + b"z" * 3000


def segment(octets: bytes, at: int, from_client: bool = True, flags: str = "PA", port: int = 80) -> Any:
    ends = ("10.1.0.1", "10.2.0.2") if from_client else ("10.2.0.2", "10.1.0.1")
    ports = (4000, port) if from_client else (port, 4000)
    return (
        Ether() / IP(src=ends[0], dst=ends[1]) / TCP(sport=ports[0], dport=ports[1], seq=at, flags=flags) / Raw(octets)
    )


def capture(path: Path, frames: list[bytes]) -> Path:
    blocks = [pcapng.build_section_header("test"), pcapng.build_interface("x", pcapng.LINKTYPE_ETHERNET)]
    blocks += [pcapng.build_packet(0, 10**18 + n * 10**6, frame, len(frame)) for n, frame in enumerate(frames)]
    path.write_bytes(b"".join(blocks))
    return path


def seen(
    folder: Path, sent: list[tuple[int, bytes]], answered: Sequence[tuple[int, bytes]] = (), port: int = 80
) -> Observation:
    opening = [segment(b"", 0, True, "S", port), segment(b"", 0, False, "SA", port), segment(b"", 1, True, "A", port)]
    up = [segment(octets, 1 + at, True, "PA", port) for at, octets in sent]
    down = [segment(octets, 1 + at, False, "PA", port) for at, octets in answered]
    return observe(capture(folder / "x.pcapng", [bytes(frame) for frame in (*opening, *up, *down)]))


@pytest.mark.parametrize(
    "sent",
    [
        [(len(FIRST), SECOND)],
        [(0, FIRST[:20]), (40, FIRST[40:]), (len(FIRST), SECOND)],
        [(0, FIRST[:20]), (40, FIRST[40:] + SECOND)],
        [(0, POST[:1000]), (2000, POST[2000:]), (len(POST), SECOND)],
        [(0, POST[:1000]), (2000, POST[2000:]), (len(POST), SECOND[:10]), (len(POST) + 10, SECOND[10:])],
    ],
    ids=["first segment", "head of the first", "and no segment begins there", "body", "and the line in two"],
)
def test_a_request_behind_a_hole_is_read_wherever_the_hole_is(tmp_path: Path, sent: list[tuple[int, bytes]]) -> None:
    observation = seen(tmp_path, sent)
    assert "two.example" in [name.name for name in observation.names]
    assert "octets of an HTTP conversation are not in the capture" in " ".join(observation.warnings)


def test_a_response_behind_a_hole_is_read(tmp_path: Path) -> None:
    body = b"HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n" + b"y" * 3000
    later = b"HTTP/1.1 200 OK\r\nSet-Cookie: after=hole\r\nContent-Length: 3\r\n\r\nabc"
    answered = [(0, body[:1000]), (2000, body[2000:]), (len(body), later)]
    observation = seen(tmp_path, [(0, FIRST), (len(FIRST), SECOND)], answered)
    assert "Set-Cookie: after=hole" in [s.value for s in observation.sightings if s.kind is Kind.HTTP_HEADER]


def test_words_in_the_middle_of_a_segment_are_no_request() -> None:
    assert find_request(b"zzz" + FIRST, (0,)) < 0
    assert find_request(b"zzz" + FIRST, (0, 3)) == 3
    assert find_request(b"HTTP/1.1 HTTP/1.1 \n" + FIRST, ()) == 19


@pytest.mark.parametrize("authority", [b"abs.example", b"user:word@ABS.example:8080"])
def test_the_host_in_a_target_in_absolute_form_is_told_beside_the_header(tmp_path: Path, authority: bytes) -> None:
    asked = b"GET http://" + authority + b"/four?u=http://no.example/ HTTP/1.1\r\nHost: other.example\r\n\r\n"
    observation = seen(tmp_path, [(0, asked)])
    assert [name.name for name in observation.names] == ["abs.example", "other.example"]
    hosts = [s.value for s in observation.sightings if s.kind is Kind.HTTP_HOST]
    assert sorted(hosts) == ["abs.example", "other.example"]

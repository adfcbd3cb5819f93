"""What `testbed observe` prints of an observation that was made elsewhere."""

from __future__ import annotations

from testbed.facts import Kind, Sighting
from testbed.observer import Flow, Observation
from testbed.observer.model import Endpoint, Volume
from testbed.report.observation import observation_text


def flow(number: int, octets: int) -> Flow:
    ends = Endpoint("10.0.0.1", 1000 + number), Endpoint("10.0.0.2", 80)
    sent, received = Volume(2, octets), Volume(1, 60)
    at = 1_700_000_000.0 + number
    return Flow("tcp", *ends, sent, received, number + 1, number + 1, at, at + 0.5, 1)


def test_the_conversations_say_when_they_began_and_how_long_they_lasted() -> None:
    text = observation_text(Observation(flows=(flow(0, 100), flow(2, 100))))
    assert "seconds since 2023-11-14 22:13:20 UTC; packets and octets there + back" in text
    assert "+2.000  tcp 10.0.0.1:1002 -> 10.0.0.2:80: 2+1 packets, 100+60 octets, for 0.500 s" in text


def test_of_very_many_conversations_the_largest_are_listed_in_order_of_time() -> None:
    text = observation_text(Observation(flows=tuple(flow(number, 100 + number) for number in range(100))))
    listed = [line for line in text.splitlines() if line.startswith("  +")]
    assert (listed[0].split()[0], listed[-1].split()[0], len(listed)) == ("+60.000", "+99.000", 40)
    assert "the 40 largest" in text
    assert "and 60 smaller ones" in text


def test_a_header_that_tells_who_somebody_is_is_listed_and_another_is_not() -> None:
    seen = tuple(
        Sighting(Kind.HTTP_HEADER, value, (4,), 0.0, "", "http") for value in ("Cookie: a=\x1bb", "Accept: */*")
    )
    text = observation_text(Observation(sightings=seen))
    assert "http-header: Cookie: a=\\x1bb  (frame 4)" in text
    assert "Accept" not in text

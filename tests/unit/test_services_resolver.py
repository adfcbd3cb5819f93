"""The forwarding resolver against servers that answer late, wrongly or in bad faith."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dnslib
import pytest

from testbed.services import dns_message as dns
from testbed.services.dns_message import Query, Reply
from testbed.services.resolver import ForwardingResolver

Answer = Callable[[bytes], list[bytes]]


def query(name: str = "www.example.com") -> Query:
    return dns.parse_query(bytes(dnslib.DNSRecord.question(name, "A").pack()))


def true_answer(question: bytes, address: str = "192.0.2.1") -> bytes:
    reply = dnslib.DNSRecord.parse(question).reply()
    reply.add_answer(dnslib.RR("www.example.com", rdata=dnslib.A(address), ttl=60))
    return bytes(reply.pack())


def changed(octets: bytes, place: int, value: int) -> bytes:
    return octets[:place] + bytes([value]) + octets[place + 1 :]


@contextmanager
def upstream(answer: Answer, asked: list[bytes]) -> Iterator[int]:
    """A UDP server on the loopback that sends, for each question, the datagrams `answer` gives."""
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)

    def receive() -> None:
        question, client = sock.recvfrom(4096)
        asked.append(question)
        for datagram in answer(question):
            sock.sendto(datagram, client)

    loop.add_reader(sock, receive)
    try:
        yield sock.getsockname()[1]
    finally:
        loop.remove_reader(sock)
        sock.close()


def resolve(answer: Answer, *, times: int = 1, cache: bool = False) -> tuple[Reply, list[bytes]]:
    """What the resolver makes of such a server, and the questions it asked."""

    async def run() -> tuple[Reply, list[bytes]]:
        asked: list[bytes] = []
        with upstream(answer, asked) as port:
            resolver = ForwardingResolver(socket.socket, {(): ["127.0.0.1"]}, cache=cache, attempt_s=0.1, port=port)
            for _ in range(times):
                reply = await resolver.resolve(query())
        return reply, asked

    return asyncio.run(run())


def test_an_answer_is_passed_on_without_the_neighbour_s_edns() -> None:
    reply, asked = resolve(lambda question: [true_answer(question)])
    assert [dns.record_text(record) for record in reply.answers] == ["A 192.0.2.1"]
    assert reply.recursion_available
    assert not reply.authoritative
    assert dns.parse_query(asked[0]).edns_octets == 1232
    assert not dns.parse_query(asked[0]).recursion_desired


@pytest.mark.parametrize(
    "forge",
    [
        lambda answer: changed(answer, 0, answer[0] ^ 1),  # another id
        lambda answer: changed(answer, 2, answer[2] & 0x7F),  # a question
        lambda answer: changed(answer, 13, ord("x")),  # another name
        lambda answer: answer[:20],  # cut off
        lambda answer: b"",
    ],
)
def test_a_forged_answer_is_passed_over_and_the_true_one_waited_for(forge: Callable[[bytes], bytes]) -> None:
    reply, asked = resolve(lambda question: [forge(true_answer(question, "203.0.113.66")), true_answer(question)])
    assert [dns.record_text(record) for record in reply.answers] == ["A 192.0.2.1"]
    assert len(asked) == 1


def test_silence_is_server_failure_after_two_rounds() -> None:
    reply, asked = resolve(lambda question: [])
    assert reply.rcode == dns.SERVFAIL
    assert len(asked) == 2


def test_ids_are_drawn_anew_for_every_query() -> None:
    _, asked = resolve(lambda question: [true_answer(question)], times=6)
    assert len({question[:2] for question in asked}) >= 5


def test_the_cache_answers_only_where_it_is_asked_for() -> None:
    assert len(resolve(lambda question: [true_answer(question)], times=3)[1]) == 3
    assert len(resolve(lambda question: [true_answer(question)], times=3, cache=True)[1]) == 1


def test_the_closest_forward_is_taken() -> None:
    asked: list[bytes] = []

    async def run() -> Reply:
        with upstream(lambda question: [true_answer(question)], asked) as port:
            forwards = {(): ["127.0.0.9"], dns.parse_name("example.com"): ["127.0.0.1"]}
            return await ForwardingResolver(socket.socket, forwards, attempt_s=0.1, port=port).resolve(query())

    assert asyncio.run(run()).rcode == dns.NOERROR
    assert len(asked) == 1

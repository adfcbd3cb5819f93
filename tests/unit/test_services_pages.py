"""What a site answers and what its log keeps, without a socket."""

from __future__ import annotations

import pytest

from testbed.services.journal import LogDirectory
from testbed.services.pages import PIECE_OCTETS, answer_request
from testbed.services.web_log import BODY_OCTETS, Connection, RequestRecord


def ask(path: str, method: str = "GET", cookie: str = "") -> tuple[int, dict[str, str], bytes]:
    answer = answer_request("www.example.com", method, path, cookie, "192.0.2.7", 42)
    return answer.status, dict(answer.headers), b"".join(answer.pieces())


@pytest.mark.parametrize("octets", [0, 1, PIECE_OCTETS - 1, PIECE_OCTETS, PIECE_OCTETS + 1, 1_000_000])
def test_a_download_has_exactly_the_octets_asked_for(octets: int) -> None:
    status, headers, body = ask(f"/bytes/{octets}?token=1")
    assert status == 200
    assert len(body) == int(headers["Content-Length"]) == octets
    assert body == (bytes(range(256)) * (octets // 256 + 1))[:octets]


@pytest.mark.parametrize("path", ["/bytes/-1", "/bytes/1e9", "/bytes/12345678901", "/bytes/\u0663", "/bytes/1/2"])
def test_what_is_no_number_of_octets_is_an_ordinary_page(path: str) -> None:
    assert ask(path)[1]["Content-Type"] == "text/html; charset=utf-8"


def test_a_download_without_bounds_is_refused() -> None:
    assert ask("/bytes/9999999999")[0] == 404


def test_a_page_names_site_and_visitor_and_the_length_of_what_it_received() -> None:
    assert b"<p>You come from 192.0.2.7.</p>" in ask("/x")[2]
    assert b"<p>42 octets received.</p>" in ask("/x", "POST")[2]
    assert ask("/x", "DELETE")[0] == 405


@pytest.mark.parametrize(
    "cookie", ["short", "0123456789abcdeg", "0123456789abcdef\r\nX: y", "0" * 65, "0123456789ABCDEF"]
)
def test_a_cookie_that_is_no_token_is_not_set(cookie: str) -> None:
    assert "Set-Cookie" not in ask("/", cookie=cookie)[1]
    assert ask("/", cookie="0123456789abcdef")[1]["Set-Cookie"] == "visit=0123456789abcdef; Path=/"


def test_a_record_has_the_whole_url_and_counts_all_of_a_body_it_keeps_the_start_of() -> None:
    connection = Connection(("192.0.2.7", 4000), ("192.0.2.1", 443), tls=True, sni="www.example.com")
    record = RequestRecord(connection, "POST", "/a?b=c", headers=[("Host", "WWW.example.com:443"), ("X", "1")])
    record.receive(b"\xff" + b"a" * BODY_OCTETS)
    record.receive(b"more")
    line = record.line()
    assert line["url"] == "https://www.example.com/a?b=c"
    assert line["body"] == "\\xff" + "a" * (BODY_OCTETS - 1)
    assert line["body_octets"] == BODY_OCTETS + 5


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a\0b"])
def test_a_log_s_name_cannot_leave_its_directory(name: str) -> None:
    with pytest.raises(ValueError, match="does not name a log file"):
        LogDirectory(-1).journal(name)

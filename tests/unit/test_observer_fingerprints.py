"""Fingerprints against the examples that their authors publish, and the places in a stream where TLS may begin."""

from __future__ import annotations

from hashlib import md5

import pytest

from testbed.observer import tls
from testbed.observer.wire import fingerprints

# FoxIO, technical_details/JA4.md: the ciphers, extensions and signature algorithms of its example.
SUITES = "1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035"
EXTENSIONS = "001b,0000,0033,0010,4469,0017,002d,000d,0005,0023,0012,002b,ff01,000b,000a,0015"
SIGNATURES = "0403,0804,0401,0503,0805,0501,0806,0601"


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word, 16) for word in text.split(",") if word)


def hello(
    suites: str = SUITES,
    extensions: str = EXTENSIONS,
    alpn: tuple[bytes, ...] = (b"h2",),
    versions: str = "0a0a,0304,0303",
) -> tls.ClientHello:
    return tls.ClientHello(
        b"example.com",
        alpn,
        numbers(versions),
        False,
        0x0303,
        numbers(suites),
        numbers(extensions),
        (29, 23, 24),
        (0,),
        numbers(SIGNATURES),
    )


def test_ja4_is_the_published_one_also_with_grease_and_in_another_order() -> None:
    published = "t13d1516h2_8daaf6152771_e5627efa2ab1"
    assert fingerprints.ja4(hello(), "t") == published
    greased = hello(suites="1a1a," + SUITES, extensions="2a2a," + ",".join(reversed(EXTENSIONS.split(","))) + ",fafa")
    assert fingerprints.ja4(greased, "t") == published
    assert fingerprints.ja4(hello(), "q")[0] == "q"


@pytest.mark.parametrize(
    ("protocol", "letters"),
    [
        (b"h2", "h2"),
        (b"http/1.1", "h1"),
        (b"\xab", "ab"),
        (b"\xab\xcd", "ad"),
        (b"\x30\x31\xab\xcd", "3d"),
        (b"", "00"),
    ],
)
def test_ja4_spells_the_protocol_as_published(protocol: bytes, letters: str) -> None:
    assert fingerprints.ja4(hello(alpn=(protocol,)), "t")[8:10] == letters


def test_ja4_without_lists_has_zeros_and_counts_stop_at_99() -> None:
    bare = hello(suites="", extensions="", alpn=(), versions="")
    assert fingerprints.ja4(bare, "t") == "t12i000000_000000000000_000000000000"
    many = hello(suites=",".join(f"{number:04x}" for number in range(0x1000, 0x1100)))
    assert fingerprints.ja4(many, "t")[4:6] == "99"


@pytest.mark.parametrize(
    ("suites", "extensions", "groups", "formats", "digest"),
    [
        (
            (47, 53, 5, 10, 49161, 49162, 49171, 49172, 50, 56, 19, 4),
            (0, 10, 11),
            (23, 24, 25),
            (0,),
            "ada70206e40642a3e4461f35503241d5",
        ),
        ((4, 5, 10, 9, 100, 98, 3, 6, 19, 18, 99), (), (), (), "de350869b8c85de67a350c8d186f11e6"),
    ],
)
def test_ja3_is_the_published_one(
    suites: tuple[int, ...], extensions: tuple[int, ...], groups: tuple[int, ...], formats: tuple[int, ...], digest: str
) -> None:
    made = tls.ClientHello(None, (), (), False, 769, suites, extensions, groups, formats)
    assert fingerprints.ja3(made) == digest
    greased = tls.ClientHello(
        None, (), (), False, 769, (0x1A1A, *suites), (0x2A2A, *extensions), (0x3A3A, *groups), formats
    )
    assert fingerprints.ja3(greased) == digest


def test_ja3s_names_version_suite_and_extensions_in_order() -> None:
    chosen = tls.ServerHello(769, 47, b"", 769, (65281, 0, 11, 35, 5, 16))
    assert fingerprints.ja3s(chosen) == md5(b"769,47,65281-0-11-35-5-16").hexdigest()


def client_hello(name: bytes, version: int = 3) -> bytes:
    extension = (len(name) + 5).to_bytes(2, "big") + (len(name) + 3).to_bytes(2, "big") + b"\0"
    extension += len(name).to_bytes(2, "big") + name
    extensions = b"\0\0" + extension + b"\0\x15\0\x40" + bytes(64)
    body = bytes((3, version)) + bytes(32) + b"\0" + b"\0\2\x13\1" + b"\1\0"
    body += len(extensions).to_bytes(2, "big") + extensions
    message = b"\1" + len(body).to_bytes(3, "big") + body
    return b"\x16\3\1" + len(message).to_bytes(2, "big") + message


def test_a_second_hello_behind_a_change_of_cipher_is_read_and_encrypted_records_are_not() -> None:
    first, second, change = client_hello(b"a.example"), client_hello(b"b.example"), b"\x14\3\3\0\1\1"
    bodies = [handshake.body for handshake in tls.parse_handshakes(first + change + second)]
    hellos = [tls.parse_client_hello(body) for body in bodies]
    assert [hello.server_name for hello in hellos if hello] == [b"a.example", b"b.example"]
    encrypted = b"\x16\3\3\0\x10" + b"\x14\0\0\x0c" + bytes(12)  # by chance of a message's form
    assert len(tls.parse_handshakes(first + change + encrypted)) == 1


def test_tls_is_found_behind_another_protocols_agreement() -> None:
    prelude = b"220 mail.example ESMTP\r\n250 STARTTLS\r\n220 go ahead\r\n"
    assert tls.find_tls(prelude + client_hello(b"mail.example")) == len(prelude)
    assert tls.find_tls(prelude * 200) == -1
    assert tls.find_tls(b"\x16\3\1" * 2000) == -1


@pytest.mark.parametrize("octets", [1, 2, 3, 4, 8])
def test_a_hello_in_records_of_a_few_octets_is_read_and_found_behind_other_octets(octets: int) -> None:
    message = client_hello(b"tiny.example")[5:]
    pieces = [message[at : at + octets] for at in range(0, len(message), octets)]
    records = b"".join(b"\x16\3\1" + len(piece).to_bytes(2, "big") + piece for piece in pieces)
    assert tls.looks_like_tls(records)
    assert tls.find_tls(b"250 STARTTLS\r\n" + records) == 14
    hello = tls.parse_client_hello(tls.parse_handshakes(records)[0].body)
    assert hello is not None
    assert hello.server_name == b"tiny.example"
    assert not tls.looks_like_tls(b"\x16\3\1\0\1\1\x17\3\3\0")


def test_the_name_in_a_hello_that_is_cut_off_is_still_read() -> None:
    whole = client_hello(b"cut.example")
    for cut in range(5, len(whole)):
        body = tls.unfinished_client_hello(whole[:cut])
        found = tls.parse_client_hello(body, cut_off=True)
        assert found is None or found.server_name in (None, b"cut.example")
    assert found is not None
    assert found.server_name == b"cut.example"
    assert not found.complete
    assert tls.unfinished_client_hello(whole) == b""

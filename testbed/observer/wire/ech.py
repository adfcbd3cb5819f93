"""Encrypted ClientHello as it shows outside: which configuration a server offers, and which one a client names.

    configuration list (in HTTPS records):  length (2) | { version fe0d | length (2) | contents } …
    contents:  config id | KEM (2) | key<2> | suites<2> | longest name | public name<1> | extensions<2>
    outer extension (in the hello):  type 0 | KDF (2) | AEAD (2) | config id | enc<2> | payload<2>

The hello that hides a name carries the public name in its place; a hello with random octets (GREASE) its own name.

Source: RFC 9849 sections 4 and 5
"""

from __future__ import annotations

from typing import NamedTuple

VERSION = 0xFE0D
MOST_CONFIGURATIONS = 16
OUTER = 0
CONFIG_ID_AT = 5


class EchConfiguration(NamedTuple):
    config_id: int
    public_name: bytes


def parse_configurations(listed: bytes) -> list[EchConfiguration]:
    """Those of the known version; what makes no sense ends the list."""
    found: list[EchConfiguration] = []
    at, end = 2, 2 + int.from_bytes(listed[:2], "big")
    while at + 4 <= min(end, len(listed)) and len(found) < MOST_CONFIGURATIONS:
        version = int.from_bytes(listed[at : at + 2], "big")
        length = int.from_bytes(listed[at + 2 : at + 4], "big")
        contents = listed[at + 4 : at + 4 + length]
        if len(contents) < length:
            break
        configuration = _parse_contents(contents) if version == VERSION else None
        if configuration is not None:
            found.append(configuration)
        at += 4 + length
    return found


def _parse_contents(contents: bytes) -> EchConfiguration | None:
    at = 3
    for _ in range(2):  # the key, then the suites
        at += 2 + int.from_bytes(contents[at : at + 2], "big")
    at += 1
    name = contents[at + 1 : at + 1 + contents[at]] if at < len(contents) else b""
    return EchConfiguration(contents[0], name) if name and len(name) == contents[at] else None


def outer_config_id(extension: bytes) -> int:
    """The configuration that a hello's extension names, or -1 if it is not the outer form."""
    return extension[CONFIG_ID_AT] if len(extension) > CONFIG_ID_AT and extension[0] == OUTER else -1

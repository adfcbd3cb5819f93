"""The host names in an X.509 certificate: the subject's common name and the DNS names of its alternatives.

A walk over DER, not a validation: every element's length is held against its parent, and what makes no sense is left
out. Nothing is verified, for an observer reads what the wire says and believes none of it.

    Certificate > TBSCertificate > (version, serial, algorithm, issuer, validity, subject, key, …, [3] extensions)

Source: RFC 5280 section 4.1, X.690
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

SEQUENCE, SET, OBJECT_ID, OCTET_STRING, BOOLEAN = 0x30, 0x31, 0x06, 0x04, 0x01
VERSION_TAG, EXTENSIONS_TAG, DNS_NAME_TAG = 0xA0, 0xA3, 0x82
STRING_FIELDS = {0x0C: "x509sat.uTF8String", 0x13: "x509sat.printableString"}
COMMON_NAME = b"\x55\x04\x03"
SUBJECT_ALTERNATIVE_NAME = b"\x55\x1d\x11"
MOST_ELEMENTS = 4_096


@dataclass(frozen=True, slots=True)
class CertificateName:
    """Shape: `field` is the Wireshark field that holds the name."""

    name: bytes
    field: str


def certificate_names(der: bytes) -> list[CertificateName]:
    tbs = _child(_child(der, SEQUENCE), SEQUENCE)
    parts = [part for part in _elements(tbs) if part[0] != VERSION_TAG]
    names = _common_names(parts[4][1]) if len(parts) > 4 else []
    for tag, value in parts[5:]:
        if tag == EXTENSIONS_TAG:
            names += _alternative_names(_child(value, SEQUENCE))
    return list(dict.fromkeys(names))


def _common_names(subject: bytes) -> list[CertificateName]:
    names = []
    for _, relative in _elements(subject):
        for _, attribute in _elements(relative):
            parts = list(_elements(attribute))
            if len(parts) == 2 and parts[0] == (OBJECT_ID, COMMON_NAME) and parts[1][0] in STRING_FIELDS:
                names.append(CertificateName(parts[1][1], STRING_FIELDS[parts[1][0]]))
    return names


def _alternative_names(extensions: bytes) -> list[CertificateName]:
    names = []
    for _, extension in _elements(extensions):
        parts = list(_elements(extension))
        if parts and parts[0] == (OBJECT_ID, SUBJECT_ALTERNATIVE_NAME) and parts[-1][0] == OCTET_STRING:
            general_names = _child(parts[-1][1], SEQUENCE)
            names += [CertificateName(v, "x509ce.dNSName") for t, v in _elements(general_names) if t == DNS_NAME_TAG]
    return names


def _child(data: bytes, tag: int) -> bytes:
    """The contents of the first element, if it has this tag; else nothing."""
    found, value = next(_elements(data), (-1, b""))
    return value if found == tag else b""


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    for _ in range(MOST_ELEMENTS):
        if at + 2 > len(data):
            return
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            count = length & 0x7F
            if not 1 <= count <= 4 or at + count > len(data):
                return
            length = int.from_bytes(data[at : at + count], "big")
            at += count
        if at + length > len(data):
            return
        yield tag, data[at : at + length]
        at += length

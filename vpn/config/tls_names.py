"""Names of TLS cipher suites as `tls-cipher` takes them, in the spelling of OpenSSL.

OpenVPN wants the names of the standards, `TLS-ECDHE-ECDSA-WITH-AES-256-GCM-SHA384`; OpenSSL calls that suite
`ECDHE-ECDSA-AES256-GCM-SHA384`. The difference is regular, so there is no table. What is not such a name (OpenSSL's own
spelling, or its words: `DEFAULT`, `!kRSA`, `@SECLEVEL=2`) stays as it is.

Source: openvpn(8), --tls-cipher and --tls-ciphersuites; RFC 5289, 7905, 6655 for the names
"""

from __future__ import annotations

import re

# What is used without `tls-cipher`, as openvpn's default: no key exchange without forward secrecy, nothing weak.
DEFAULT_CIPHERS = "DEFAULT:!EXP:!LOW:!MEDIUM:!kDH:!kECDH:!DSS:!PSK:!SRP:!kRSA"
_STANDARD_NAME = re.compile(r"TLS[-_]([A-Z_-]+?)[-_]WITH[-_]([A-Z0-9_-]+)")
_SIZED = re.compile(r"(AES|CAMELLIA|ARIA)-(128|192|256)")


def openssl_ciphers(text: str) -> str:
    """The list of `tls-cipher` for OpenSSL: names with colons between, in order."""
    return ":".join(_openssl_name(word) for word in text.split(":"))


def openssl_ciphersuites(text: str) -> str:
    """The list of `tls-ciphersuites`: of TLS 1.3 both spellings are the same but for the stroke."""
    return text.replace("-", "_")


def _openssl_name(word: str) -> str:
    match = _STANDARD_NAME.fullmatch(word)
    if match is None:
        return word
    exchange, cipher = (part.replace("_", "-") for part in match.groups())
    cipher = _SIZED.sub(r"\1\2", cipher)
    cipher = cipher.replace("-CBC-", "-").replace("CCM-8", "CCM8").replace("POLY1305-SHA256", "POLY1305")
    if exchange == "RSA":
        return cipher
    return f"{exchange}-{cipher}".replace("ECDHE-RSA-ARIA", "ECDHE-ARIA")  # the one irregular name

"""How the words of a scenario file are spelled: names, addresses, prefixes, durations, URLs, links.

Each function takes what stands in the file and returns its canonical form, or raises `ValueError` with a sentence that
says what is allowed. Nothing here knows where the word stood.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(us|ms|s|min|h)?")
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, None: 1.0, "min": 60.0, "h": 3600.0}
_TAP_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_INTERFACE = re.compile(r"[^\s/:]{1,15}")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TOPOLOGY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*|.+\.py:[A-Za-z_]\w*")

DEFAULT_PORTS = {"http": 80, "https": 443}


def host_name(text: str) -> str:
    """A DNS name as the lab writes it: lower case, no final dot."""
    if text != text.lower():
        raise ValueError(f"host names are written in lower case here: {text.lower()}")
    if text.endswith("."):
        raise ValueError("a host name is written without the final dot")
    if not text.isascii():
        raise ValueError("a host name is written in ASCII; use its punycode form (xn--…)")
    labels = text.split(".")
    if len(text) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("must be a host name such as www.example.com: labels of a-z, 0-9 and -, joined by dots")
    if len(labels) < 2 or labels[-1].isdigit():
        raise ValueError("must be a full host name such as www.example.com")
    return text


def address(text: str) -> str:
    """An IPv4 or IPv6 address that a host can have, in canonical form."""
    try:
        parsed = ip_address(text)
    except ValueError:
        hint = "; leave out the prefix length" if "/" in text else ""
        raise ValueError(f"must be an IPv4 or IPv6 address such as 93.184.216.34 or 2001:db8:4::34{hint}") from None
    if "%" in text:
        raise ValueError("must be an address without a zone")
    for wrong in ("unspecified", "loopback", "multicast", "link_local"):
        if getattr(parsed, f"is_{wrong}"):
            article = "an" if wrong.startswith("u") else "a"
            raise ValueError(f"is {article} {wrong.replace('_', '-')} address; a host needs an address of its own")
    if parsed.version == 6 and parsed.ipv4_mapped is not None:
        raise ValueError(f"is an IPv4-mapped address; write {parsed.ipv4_mapped}")
    return str(parsed)


def is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def prefix(text: str) -> str:
    """An IPv4 or IPv6 prefix in canonical form; a single address is the prefix of that address alone."""
    try:
        network: IPv4Network | IPv6Network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError("must be a prefix such as 203.0.113.0/24 or 2001:db8:20::/64") from None
    try:
        ip_network(text)
    except ValueError:
        length = network.max_prefixlen
        host = text.split("/")[0]
        raise ValueError(
            f"has bits set behind the prefix length; write {network} for the network or {host}/{length} for the host"
        ) from None
    return str(network)


def duration(value: object) -> float:
    """Seconds, from a number of seconds or text with a unit (us, ms, s, min, h)."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    else:
        found = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
        if not found:
            raise ValueError("must be a time such as 2s, 500ms or 1.5 (seconds)")
        seconds = float(found[1]) * _SECONDS[found[2]]
    if not 0 <= seconds < float("inf"):
        raise ValueError("must be a time of 0 or more")
    return seconds


def url(text: str, scheme: str) -> str:
    """An absolute URL of the scheme, whose host is a name or an address and whose port is the usual one."""
    example = f"must be a URL such as {scheme}://www.example.com/account"
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"{example}, percent-encoded (no spaces, ASCII only)")
    try:
        parts = urlsplit(text)
        port, host = parts.port, parts.hostname
    except ValueError:
        raise ValueError(example) from None
    if parts.scheme != scheme:
        other = f"; an action `{parts.scheme}` opens {parts.scheme}:// URLs" if parts.scheme in DEFAULT_PORTS else ""
        raise ValueError(f"{example}{other}")
    if not host or not host.strip("."):
        raise ValueError(f"{example}; it names no host")
    if parts.username is not None:
        raise ValueError("must not contain a user name; send an Authorization header instead")
    if parts.fragment or text.endswith("#"):
        raise ValueError("must not have a #fragment: it is never sent")
    if port not in (None, DEFAULT_PORTS[scheme]):
        raise ValueError(f"must not name port {port}: the lab's sites listen at port {DEFAULT_PORTS[scheme]}")
    if not is_address(host):
        host_name(parts.netloc.split(":")[0])
    return text if parts.path else text.replace(parts.netloc, f"{parts.netloc}/", 1)


def resolver(text: str) -> str:
    """A resolver to ask: a site's name, an address, or both as `address#name`."""
    place, hash_mark, name = text.partition("#")
    if hash_mark:
        return f"{address(place)}#{host_name(name)}"
    if text.startswith("https://"):
        raise ValueError(f"must be the resolver's name alone, such as {url_host(text)}; `over: doh` makes the URL")
    return address(text) if is_address(text) else host_name(text)


def resolver_parts(text: str) -> tuple[str | None, str | None]:
    """The address and the name of a resolver; one of them may be None."""
    place, hash_mark, name = text.partition("#")
    if hash_mark:
        return place, name
    return (text, None) if is_address(text) else (None, text)


def http_version(value: object) -> object:
    """The text of an HTTP version that may be written as a number: 2, 2.0 and "2" are one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    return f"{value:g}"


def url_host(text: str) -> str:
    return urlsplit(text).hostname or ""


def header_name(text: str) -> str:
    if not _TOKEN.fullmatch(text):
        raise ValueError("is not a header name (letters, digits and hyphens, such as X-Account)")
    return text


def header_value(text: str) -> str:
    if any((ord(character) < 32 and character != "\t") or ord(character) > 126 for character in text):
        raise ValueError("a header value is one line of printable ASCII")
    return text


def argument(text: str) -> str:
    """One argument of a program."""
    if "\0" in text:
        raise ValueError("must be without the character of code 0, which ends an argument")
    return text


def option_line(text: str) -> str:
    """One line of a VPN's configuration."""
    if not text.strip() or any(ord(character) < 32 and character != "\t" for character in text):
        raise ValueError("must be one line of configuration, such as `persist-tun`")
    return text.strip()


def file_name(text: str) -> str:
    """A file in a directory of its own."""
    if not _FILE_NAME.fullmatch(text):
        raise ValueError("must be the name of a file: letters, digits, -, _ and dots, not starting with a dot")
    return text


def tap_name(text: str) -> str:
    if not _TAP_NAME.fullmatch(text):
        raise ValueError("a tap's name becomes a file name: a-z, 0-9, -, _ and dots, not starting with a dot")
    return text


def interface(text: str) -> str:
    if not _INTERFACE.fullmatch(text) or text in (".", ".."):
        raise ValueError("an interface name has 1 to 15 characters without spaces, slashes or colons")
    return text


def topology(text: str) -> str:
    if not _TOPOLOGY.fullmatch(text):
        raise ValueError("must be a topology's name such as client-isp-server, or ./file.py:Class")
    return text

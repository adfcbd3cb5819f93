"""Secrets are compared in constant time: no `==` on a tag, HMAC, cookie, password or token anywhere in `vpn`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

VPN = Path(__file__).resolve().parents[2] / "vpn"
_SECRET = re.compile(
    r"(?:^|_)(?:tag|hmac|mac|cookie|password|passphrase|token|secret|expected|signature|digest_octets|pre_master|key)$"
)
# where the name sounds like a secret and is none
_INNOCENT = {
    ("peer_info.py", "name == key"): "a name in KEY=VALUE lines",
    ("directives.py", "tag == CONNECTION"): "a tag of a configuration file",
    ("doorkeeper.py", "(parse_opcode(untrusted) in WITH_CLIENT_KEY) != self._with_client_key"): "two truth values",
    ("authority.py", "private.public_key() != parsed.public_key()"): "public keys",
}


def sources() -> Iterator[tuple[Path, ast.AST]]:
    for path in sorted(VPN.rglob("*.py")):
        yield path, ast.parse(path.read_text())


def sounds_secret(node: ast.expr) -> bool:
    """Whether the compared value is named, or taken from something named, like a secret."""
    if isinstance(node, ast.Subscript):
        return sounds_secret(node.value)
    if isinstance(node, ast.Call):
        return sounds_secret(node.func)
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return bool(_SECRET.search(name.lower().lstrip("_")))


def comparisons(tree: ast.AST) -> Iterator[ast.Compare]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
            yield node


def test_no_secret_is_compared_by_an_operator_that_stops_at_the_first_difference() -> None:
    found = []
    for path, tree in sources():
        for node in comparisons(tree):
            text = ast.unparse(node)
            if any(map(sounds_secret, (node.left, *node.comparators))) and (path.name, text) not in _INNOCENT:
                found.append(f"{path.relative_to(VPN)}:{node.lineno}: {text}")
    assert not found, "\n".join(found)


def test_every_check_of_an_authenticator_uses_compare_digest() -> None:
    """Where an HMAC is computed in a module that opens something, it is compared there."""
    compared = {
        str(path.relative_to(VPN))
        for path, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "compare_digest"
    }
    assert compared == {
        "crypto/auth_token.py",
        "crypto/client_key.py",
        "crypto/cookie.py",
        "crypto/wrapping.py",
        "dataplane/cbc.py",
    }


def test_the_search_finds_what_it_looks_for() -> None:
    for text in ("packet.tag == expected", "self._secret != other", "message.password == known", "tag[:8] == x"):
        (node,) = comparisons(ast.parse(text))
        assert any(map(sounds_secret, (node.left, *node.comparators))), text
    (harmless,) = comparisons(ast.parse("name == word"))
    assert not any(map(sounds_secret, (harmless.left, *harmless.comparators)))

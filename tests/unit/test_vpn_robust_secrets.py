"""No key, password or token shows in what a programmer, a log or an error would print."""

from __future__ import annotations

import base64
import gc
import re
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.fuzz.corpus import key_texts
from tests.fuzz.mutation import Mutator
from tests.sim.inner import ip_packet
from tests.sim.network import Node, World
from tests.sim.pki import client_certificate, server_certificate
from tests.sim.setups import KEY, SERVER, SERVER_KEY, client_settings, events, pair, protections, server_settings
from tests.unit.secret_windows import Secrets
from vpn.config.directives import parse_text
from vpn.config.errors import Place
from vpn.config.files import FileReader
from vpn.config.options import check_directives, role_of
from vpn.config.peers import build_configuration
from vpn.crypto.static_key import KeyHalf, build_static_key, parse_client_key, parse_server_key, parse_static_key
from vpn.driver.story import tell_any, tell_client, tell_server
from vpn.events import AdmissionRequested, Connected, Renegotiated
from vpn.settings import Cipher, ClientOverrides, DataSettings, StaticKeySettings
from vpn.static_key_core import StaticKeyCore
from vpn.wire.key_method import KeyMessage

PASSWORD = "correct horse battery staple"


def private_number(pem: str) -> bytes:
    """What is secret of a private key: the rest of its file stands in the certificate as well."""
    key = load_pem_private_key(pem.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key.private_numbers().private_value.to_bytes(32, "big")


def reachable(root: object) -> Iterator[object]:
    """Every object of the project's own classes that can be reached from `root`."""
    waiting, seen = [root], {id(root)}
    while waiting:
        value = waiting.pop()
        if type(value).__module__.startswith("vpn."):
            yield value
        for item in gc.get_referents(value):
            known = isinstance(item, type | Enum) or type(item).__name__ in ("module", "function", "builtin_function")
            if id(item) not in seen and not known:
                seen.add(id(item))
                waiting.append(item)


def connected(name: str, cipher: Cipher) -> tuple[Node, Node]:
    """Two ends that have used all kinds of keys: of the wrapping, of TLS, of the data channel before and after."""
    world = World()
    ours, theirs = protections(name)
    data = DataSettings(data_ciphers=(cipher,))
    settings = client_settings(control=ours, data=data, username="alice", password=PASSWORD)
    serving = server_settings(control=theirs, data=data, external_admission=True, auth_token_lifetime=600.0)
    client, server = pair(world, settings, serving)
    core: Any = server.core
    assert world.run(lambda: bool(events(server, AdmissionRequested)), seconds=10)
    core.admit(1, ClientOverrides(), world.now, world.unix_time)
    assert world.run(lambda: bool(events(client, Connected)), seconds=10)
    ours_core: Any = client.core
    ours_core.receive_packet(ip_packet("10.8.0.2", "10.8.0.1", 1), world.now)
    ours_core.request_renegotiation(world.now)
    assert world.run(lambda: bool(events(client, Renegotiated)), seconds=10)
    return client, server


def secrets_in(nodes: tuple[Node, ...]) -> Secrets:
    found = [KEY, SERVER_KEY, PASSWORD.encode()]
    found += [private_number(issued.key) for issued in (client_certificate(), server_certificate())]
    for node in nodes:
        for value in reachable(node.core):
            if isinstance(value, KeyHalf):
                found += [value.cipher, value.hmac]
            elif isinstance(value, KeyMessage):
                found += [value.pre_master, value.random1, value.random2]
            elif type(value).__name__ in ("CookieJar", "TokenMint"):
                found.append(value._secret)  # type: ignore[attr-defined]  # read, to know what to look for
    for event in (event for node in nodes for event in events(node, Connected)):
        assert event.options.auth_token
        found.append(event.options.auth_token.encode())
    return Secrets(found)


@pytest.mark.parametrize("cipher", [Cipher.AES_256_GCM, Cipher.AES_256_CBC])
@pytest.mark.parametrize("name", ["none", "tls-auth", "tls-crypt", "tls-crypt-v2"])
def test_no_object_of_a_running_session_shows_a_secret_nor_does_any_line_told_of_it(name: str, cipher: Cipher) -> None:
    nodes = connected(name, cipher)
    secrets = secrets_in(nodes)
    assert len(secrets) > 500
    seen: set[str] = set()
    for node in nodes:
        for value in (*reachable(node.core), *node.events):
            seen.add(type(value).__name__)
            for text in (repr(value), str(value)):
                assert not secrets.shown_in(text), f"{type(value).__name__} shows a secret"
        for event in node.events:
            for line in (*tell_client(event), *tell_server(event), *tell_any(event)):
                assert not secrets.shown_in(line), line
    assert {"SessionSetup", "DataKey", "KeyMessage", "TlsSettings", "ControlProtection", "PushedOptions"} <= seen


def test_a_static_key_end_shows_no_secret() -> None:
    world = World()
    core = StaticKeyCore(StaticKeySettings(KEY), SERVER, random_bytes=world.random_bytes)
    core.start(world.now, world.unix_time)
    secrets = Secrets([KEY])
    for value in reachable(core):
        assert not secrets.shown_in(repr(value)), type(value).__name__


def refusal(parse: Callable[[str], object], text: str) -> str:
    """What the parser says against the text, if anything."""
    try:
        parse(text)
    except ValueError as error:
        return f"{error} {error!r}"
    return ""


def test_errors_of_key_files_quote_nothing_of_the_key() -> None:
    mutator = Mutator("errors of key files")
    texts = key_texts()
    secrets = Secrets([KEY, SERVER_KEY])
    refused = 0
    for _ in range(3000):
        text = mutator.datagram(texts).decode("utf-8", "surrogateescape")
        for parse in (parse_static_key, parse_client_key, parse_server_key):
            said = refusal(parse, text)
            refused += bool(said)
            assert not secrets.shown_in(said)
    assert refused > 3000


def test_errors_and_objects_of_a_configuration_quote_no_inline_key() -> None:
    mutator = Mutator("errors of configurations")
    key = build_static_key(KEY)
    whole = f"client\ndev tun\nremote 192.0.2.1\n<ca>\nx\n</ca>\n<tls-crypt>\n{key}</tls-crypt>\n<key>\n{key}</key>\n"
    secrets = Secrets([KEY])
    reported = 0
    for _ in range(1500):
        # whole lines that go missing or come twice leave keys outside of their blocks: what the reader then says of
        # a line must not be the line
        lines = whole.splitlines()
        if mutator.chance(0.8):
            del lines[mutator.below(len(lines))]
        text = (
            "\n".join(lines) if mutator.chance(0.5) else mutator.datagram([whole.encode()]).decode("utf-8", "replace")
        )
        directives, problems = parse_text(text, "x.ovpn")
        options = check_directives(directives, role_of(directives))
        if not problems and not options.problems:
            build_configuration(options, FileReader(Path("/nonexistent")), Place("x.ovpn"))
        for shown in (*map(str, (*problems, *options.problems)), *options.warnings, *map(repr, options.entries)):
            reported += 1
            found = secrets.shown_in(re.sub(r"x\.ovpn:\d+", "", shown))
            assert not found, shown
    assert reported > 1000


def test_the_search_finds_a_secret_however_it_is_written() -> None:
    issued = client_certificate()
    assert Secrets([private_number(issued.key)]).shown_in(repr(issued.key))
    assert not Secrets([private_number(issued.key)]).shown_in(repr(issued.certificate))
    secrets = Secrets([KEY])
    part = KEY[100:112]
    for text in (repr(part), part.hex(), f"x{part.hex()}", "QUFB" + base64.b64encode(part).decode()):
        assert secrets.shown_in(text), text
    assert not secrets.shown_in("nothing to see: 0011223344556677, b'hello world'")

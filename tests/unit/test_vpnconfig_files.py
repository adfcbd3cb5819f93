"""Configuration files: words and blocks as openvpn cuts them, and every mistake named with its place."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from vpn.config.directives import parse_arguments, parse_text
from vpn.config.errors import ConfigurationError
from vpn.config.load import load_configuration
from vpn.config.words import WordError, split_words
from vpn.pki.commands import run_pki
from vpn.settings import ClientSettings, ServerSettings, StaticKeySettings


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki") / "keys"
    assert run_pki(["init", str(folder), "--server", "vpn.example", "--client", "alice"]) == 0
    return folder


WORDS = [
    ("", []),
    ("   # all comment", []),
    ("; all comment", []),
    ("verb 3 # comment", ["verb", "3"]),
    ("setenv a#b c;d", ["setenv", "a#b", "c;d"]),
    ('push "route 10.0.0.0 255.0.0.0"', ["push", "route 10.0.0.0 255.0.0.0"]),
    ("push 'a \"b\" \\c'", ["push", 'a "b" \\c']),
    (r'up "C:\\Program Files\\x"', ["up", r"C:\Program Files\x"]),
    (r"up a\ b", ["up", "a b"]),
    (r'push "say \"hi\""', ["push", 'say "hi"']),
    ('setenv a ""', ["setenv", "a", ""]),
    ('a"b c"d', ["ab cd"]),
    ("\tdev\ttun0\t", ["dev", "tun0"]),
]


@pytest.mark.parametrize(("line", "words"), WORDS)
def test_a_line_is_cut_into_words(line: str, words: list[str]) -> None:
    assert split_words(line) == words


@pytest.mark.interop
@pytest.mark.parametrize("words", [w for _, w in WORDS if len(w) == 2 and w[0] == "push"])
def test_openvpn_cuts_the_same_words(words: list[str], tmp_path: Path) -> None:
    """openvpn's complaint about a protocol quotes the word it read: the same line through both readers."""
    line = next(line for line, cut in WORDS if cut == words).replace("push", "proto", 1)
    config = tmp_path / "words.conf"
    config.write_text(f"{line}\n")
    said = subprocess.run(["openvpn", "--config", str(config)], capture_output=True, text=True, timeout=20).stdout
    assert f"Bad protocol: '{split_words(line)[1]}'." in said


@pytest.mark.interop
@pytest.mark.parametrize("line", ['push "open', "push 'open", r"up C:\dir", "a b\\"])
def test_a_line_that_openvpn_refuses_is_refused(line: str, tmp_path: Path) -> None:
    with pytest.raises(WordError):
        split_words(line)
    config = tmp_path / "bad.conf"
    config.write_text(f"{line}\n")
    done = subprocess.run(["openvpn", "--config", str(config)], capture_output=True, text=True, timeout=20)
    assert done.returncode != 0


def test_inline_blocks_keep_their_lines_and_end_at_their_tag() -> None:
    directives, problems = parse_text("verb 1\n<ca>\n# not a comment\nline two\n  </ca>\ndev tun\n", "f")
    assert not problems
    assert [(d.name, d.arguments, d.inline, d.place.line) for d in directives] == [
        ("verb", ("1",), False, 1),
        ("ca", ("# not a comment\nline two\n",), True, 2),
        ("dev", ("tun",), False, 6),
    ]


def test_a_block_without_an_end_is_a_mistake_with_its_line() -> None:
    _, problems = parse_text("dev tun\n<key>\nsecret stuff\n", "f")
    assert [str(problem) for problem in problems] == ["f:2: key: the block <key> has no </key>"]


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm() -> None:
    directives, problems = parse_text("\ufeffdev tun\r\nverb 3\r\n", "f")
    assert not problems
    assert [(d.name, d.arguments) for d in directives] == [("dev", ("tun",)), ("verb", ("3",))]


@pytest.mark.parametrize("character", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_nothing_but_a_line_feed_ends_a_line(character: str) -> None:
    directives, problems = parse_text(f"verb 3 # old:{character}verb 4\nport 5\n", "x")
    assert [(directive.name, directive.place.line) for directive in directives] == [("verb", 1), ("port", 2)]
    assert not problems


def test_command_line_words_become_directives() -> None:
    directives, problems = parse_arguments(["--verb", "4", "--nobind", "--push", "route 1.2.3.4"])
    assert not problems
    assert [(d.name, d.arguments) for d in directives] == [
        ("verb", ("4",)),
        ("nobind", ()),
        ("push", ("route 1.2.3.4",)),
    ]
    assert "before any --option" in str(parse_arguments(["stray"])[1][0])


def problems_of(text: str, tmp_path: Path, *arguments: str) -> list[str]:
    path = tmp_path / "bad.conf"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(path, arguments)
    return [str(problem).removeprefix(f"{tmp_path}/") for problem in caught.value.problems]


def test_all_mistakes_are_named_at_once_with_file_line_option_and_the_nearest_spelling(tmp_path: Path) -> None:
    text = "clinet\nremote 1.2.3.4 99999\nup /bin/x\nverb three\nfragment 1300\nnobind extra\n"
    assert problems_of(text, tmp_path, "--redirect-gatway") == [
        "bad.conf:1: clinet: unknown option; did you mean client?",
        "bad.conf:2: remote: '99999': a port is a number from 1 to 65535",
        "bad.conf:3: up: not supported: scripts are not supported here; watch the log or --status",
        "bad.conf:4: verb: 'three': a whole number is needed",
        "bad.conf:5: fragment: not supported: packets are not cut below the tunnel; lower tun-mtu or use mssfix",
        "bad.conf:6: nobind: 'extra' is one word too many; the option takes no argument",
        "command line: redirect-gatway: unknown option; did you mean redirect-gateway?",
    ]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    missing = problems_of("client\ndev tun\n", tmp_path)
    assert {line.split(": ")[1] for line in missing} == {"ca", "cert", "key", "remote"}


def test_a_server_option_in_a_clients_file_is_a_mistake(tmp_path: Path) -> None:
    found = problems_of("client\nmax-clients 3\n", tmp_path)
    assert found == ["bad.conf:2: max-clients: belongs only in the configuration of a server"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("route 10.0.0.1 255.0.0.0", "bits set outside of the netmask"),
        ("route www/example", "neither an IPv4 address nor a host name"),
        ("route 10.0.0.0 255.0.255.0", "netmask"),
        ("route-ipv6 2001:db8::", "2001:db8:8::/64 is needed"),
        ("data-ciphers AES-256-GCM:BF-CBC", "'BF-CBC': not a supported cipher"),
        ("auth MD5", "unknown digest"),
        ("auth none", "without authentication"),
        ("dev tap0", "not tap"),
        ("dev tun-with-a-very-long-name", "1 to 15 octets"),
        ("tls-version-max 1.1", "below 1.2"),
        ("mssfix 100", "below 576"),
        ("http-proxy 1.2.3.4 80", "proxy"),
        ("crl-verify /nonexistent/crl", "No such file"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(line: str, reason: str, keys: Path, tmp_path: Path) -> None:
    base = f"client\nremote 1.2.3.4\nca {keys}/ca.crt\ncert {keys}/client.crt\nkey {keys}/client.key\n"
    found = problems_of(base + line + "\n", tmp_path)
    assert len(found) == 1
    assert reason in found[0]
    assert found[0].startswith(f"bad.conf:6: {line.split()[0]}: ")


def test_an_option_that_may_be_ignored_is_ignored_only_when_unknown(keys: Path, tmp_path: Path) -> None:
    base = f"client\nremote 1.2.3.4\nca {keys}/ca.crt\ncert {keys}/client.crt\nkey {keys}/client.key\n"
    path = tmp_path / "ok.conf"
    path.write_text(
        base + "ignore-unknown-option future-one\nfuture-one 1 2\nsetenv opt other-one 3\nsetenv opt verb 5\n"
    )
    assert load_configuration(path).driver.output.verb == 5


def test_files_inside_files_are_read_up_to_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "loop.conf"
    path.write_text(f"config {path}\n")
    with pytest.raises(ConfigurationError, match="more than 10 files inside each other"):
        load_configuration(path)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\0" * 10, b"dev tun\nverb \xff\n", b"x" * 200_000])
def test_a_file_that_is_no_configuration_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.conf"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError):
        load_configuration(path)


def test_roles_follow_from_the_options(keys: Path, tmp_path: Path) -> None:
    identity = f"ca {keys}/ca.crt\ncert {keys}/server.crt\nkey {keys}/server.key\n"
    texts: dict[type, str] = {
        ClientSettings: f"client\nremote ::1\n{identity}",
        ServerSettings: f"server 10.8.0.0 255.255.255.0\ntopology subnet\n{identity}",
        StaticKeySettings: f"secret {keys}/static.key 1\nremote 1.2.3.4\nifconfig 10.8.0.2 10.8.0.1\n",
    }
    for kind, text in texts.items():
        path = tmp_path / "role.conf"
        path.write_text(text)
        assert type(load_configuration(path).core) is kind


def test_no_secret_shows_in_the_repr_of_a_configuration(keys: Path, tmp_path: Path) -> None:
    for profile in ("tls-crypt", "tls-crypt-v2", "tls-auth"):
        path = tmp_path / f"{profile}.ovpn"
        assert run_pki(["profile", str(keys), "--remote", "::1", "--control", profile, "--out", str(path)]) == 0
        configuration = load_configuration(path)
        shown = repr(configuration)
        assert "PRIVATE KEY" not in shown
        core = configuration.core
        assert isinstance(core, ClientSettings)
        for secret in (core.control.static_key, core.control.wrapped_client_key):
            assert not secret or (secret.hex() not in shown and repr(secret) not in shown)

"""Every function that reads what a peer or a file says, as a target: octets in, and the only errors it may raise.

A target that returns has done its duty; any other exception is a finding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.fuzz import corpus
from vpn.config.client_file import parse_client_file
from vpn.config.directives import parse_arguments, parse_text
from vpn.config.errors import ConfigurationError, Place
from vpn.config.files import FileReader
from vpn.config.options import check_directives, role_of
from vpn.config.peers import build_configuration
from vpn.crypto.auth_token import PREFIX, TokenMint
from vpn.crypto.client_key import unwrap_client_key
from vpn.crypto.cookie import CookieJar
from vpn.crypto.static_key import parse_client_key, parse_server_key, parse_static_key, split_key
from vpn.crypto.wrapping import NotAuthentic, PlainWrapper, TlsAuthWrapper, TlsCryptWrapper, Wrapper
from vpn.dataplane.channel import DataChannel, Negotiated, make_data_key
from vpn.dataplane.framing import remove_framing
from vpn.dataplane.inner import InnerRoutes, destination, source
from vpn.dataplane.mss import MssLimits
from vpn.driver.merge import merge_options
from vpn.drops import Drops
from vpn.negotiation import NoSharedCipher, agree_as_server, cipher_as_client
from vpn.push import PushedOptions
from vpn.push_parser import BadPush, PushCollector, build_push_replies, filter_options, parse_options
from vpn.settings import Cipher, Compression, DataSettings, Digest, KeyDirection, PullFilter
from vpn.wire.control import ControlBody
from vpn.wire.early import EarlyFlags
from vpn.wire.key_method import KeyMessage
from vpn.wire.message import AuthFailure, RestartRequest, is_message, parse_messages
from vpn.wire.occ import options_cipher, parse_occ
from vpn.wire.packet import ControlHeader, KeyId, Malformed, Opcode, PeerId, parse_opcode
from vpn.wire.peer_info import PeerInfo
from vpn.wire.stream import Deframer, frame
from vpn.wire.wrapped import ReplayStamp, TlsAuthPacket, TlsCryptPacket, WrappedClientKey, split_client_key

_KEY = bytes(range(256))
_SERVER_KEY = bytes(range(128))
_KEYS = split_key(_KEY, KeyDirection.NORMAL)
_DATA = DataSettings()


@dataclass(frozen=True, slots=True)
class Target:
    """`corpus` is what to mutate for it; empty: the recorded datagrams."""

    name: str
    read: Callable[[bytes], object]
    allowed: tuple[type[Exception], ...] = ()
    corpus: Sequence[bytes] = ()

    def feed(self, untrusted: bytes) -> None:
        with contextlib.suppress(*self.allowed):
            self.read(untrusted)


def text_of(untrusted: bytes) -> str:
    return untrusted.decode("utf-8", "surrogateescape")


def _wire_targets() -> list[Target]:
    malformed = (Malformed,)
    targets = [
        Target("opcode", parse_opcode, malformed),
        Target("control header", ControlHeader.parse, malformed),
        Target("replay stamp", ReplayStamp.parse, malformed),
        Target("tls-crypt packet", TlsCryptPacket.parse, malformed),
        Target("early flags", EarlyFlags.parse, malformed, (bytes.fromhex("000100020001"),)),
        Target("wrapped key", WrappedClientKey.parse, malformed, corpus.wrapped_keys()),
        Target("cut off wrapped key", split_client_key, malformed),
        Target("occ", parse_occ),
        Target("TCP stream", _read_stream, malformed, [frame(packet) for packet in corpus.recorded_datagrams()]),
    ]
    for octets in (20, 32, 48, 64):
        read: Callable[[bytes], object] = partial(TlsAuthPacket.parse, hmac_octets=octets)
        targets.append(Target(f"tls-auth packet {octets}", read, malformed))
    bodies = [packet[9:] for packet in corpus.recorded_datagrams()]
    for opcode in (Opcode.CONTROL_V1, Opcode.ACK_V1):
        read = partial(ControlBody.parse, opcode=opcode)
        targets.append(Target(f"control body {opcode.name}", read, malformed, bodies))
    return targets


def _read_stream(untrusted: bytes) -> None:
    whole, cut = Deframer(), Deframer()
    middle = len(untrusted) // 2
    packets = whole.feed(untrusted)
    if cut.feed(untrusted[:middle]) + cut.feed(untrusted[middle:]) != packets:
        raise AssertionError("a stream in two pieces gives other packets")


def _crypto_targets() -> list[Target]:
    refusals = (Malformed, NotAuthentic)
    mint = TokenMint(b"s" * 32, 60, 60)
    token = mint.issue("user", b"i" * 12, 1, 1).encode()
    wrappers: list[tuple[str, Wrapper]] = [
        ("none", PlainWrapper()),
        ("tls-auth", TlsAuthWrapper(_KEYS, Digest.SHA256, 1)),
        ("tls-crypt", TlsCryptWrapper(_KEYS, 1)),
    ]
    jar = CookieJar(b"s" * 32, 60)
    keys = corpus.key_texts()
    return [
        *(Target(f"unwrap {name}", wrapper.open_first, refusals) for name, wrapper in wrappers),
        Target("unwrap a client's key", lambda o: unwrap_client_key(o, _SERVER_KEY), refusals, corpus.wrapped_keys()),
        Target("auth-token", lambda o: mint.check(text_of(o[:3]), text_of(o), 1), (), (token, PREFIX.encode())),
        Target("cookie", lambda o: jar.verify(o[:8], ("192.0.2.1", 1), o[8:16], 1)),  # type: ignore[arg-type]
        Target("static key", lambda o: parse_static_key(text_of(o)), (Malformed,), keys),
        Target("client key file", lambda o: parse_client_key(text_of(o)), (Malformed,), keys),
        Target("server key file", lambda o: parse_server_key(text_of(o)), (Malformed,), keys),
    ]


def _message_targets() -> list[Target]:
    head = bytes((0, 0, 0, 0, 2)) + bytes(48 + 64)
    texts = b"".join(len(t + b"\0").to_bytes(2, "big") + t + b"\0" for t in (corpus.OPTIONS_STRINGS[0], b"user", b"pw"))
    keys = (head + texts + b"\0\0", head[48:] + texts)
    return [
        Target("client's key message", lambda o: KeyMessage.parse(o, from_client=True), (Malformed,), keys),
        Target("server's key message", lambda o: KeyMessage.parse(o, from_client=False), (Malformed,), keys),
        Target("control messages", _read_messages, (BadPush,), corpus.MESSAGES),
        Target("peer info and options string", _negotiate, (), corpus.PEER_INFOS + corpus.OPTIONS_STRINGS),
    ]


def _read_messages(untrusted: bytes) -> None:
    collector = PushCollector.empty()
    for text in parse_messages(untrusted):
        AuthFailure.parse(text).build()
        RestartRequest.parse(text).build()
        if is_message(text, "PUSH_REPLY"):
            collector.add(text)
    build_push_replies(collector.options)
    filters = (PullFilter("ignore", "route"), PullFilter("reject", "zzz"))
    parse_options(filter_options(collector.options, filters, nopull=True))
    pushed = parse_options(collector.options)
    merge_options(PushedOptions(), pushed)
    try:
        cipher_as_client(pushed, "", _DATA)
    except NoSharedCipher:
        return


def _negotiate(untrusted: bytes) -> None:
    text = text_of(untrusted)
    info = PeerInfo.parse(text)
    options_cipher(text)
    try:
        agree_as_server(info, text, _DATA, key_export=True, dynamic_tls_crypt=True)
    except NoSharedCipher:
        return


def _data_targets() -> list[Target]:
    targets = []
    for cipher in (Cipher.AES_256_GCM, Cipher.CHACHA20_POLY1305, Cipher.AES_256_CBC):
        for peer_id in (None, PeerId(0)):
            channel = DataChannel(Drops())
            negotiated = Negotiated(cipher, True, peer_id, Compression.NONE)
            channel.install(make_data_key(KeyId(0), _KEYS, negotiated, _DATA, bytes), 0.0)
            targets.append(Target(f"data {cipher} {peer_id}", partial(_open, channel)))
    limits = MssLimits(1000, 980)
    routes: InnerRoutes[str] = InnerRoutes()
    inner = tuple(bytes.fromhex(text) for text in _INNER)
    return [
        *targets,
        Target("inner addresses", lambda o: routes.find((destination(o) or b"") + (source(o) or b"")), (), inner),
        Target("MSS", lambda o: limits.clamp_batch([o]), (), inner),
        *(Target(f"framing {kind}", partial(_unframe, kind), (), inner) for kind in Compression),
    ]


# a SYN with an MSS option over each IP version
_INNER = (
    (
        "4500003c1c4640004006b1e60a0800020a080001d20400500000000000000000a002faf0fe300000020405b40402080a0000000000000000"
        "01030307"
    ),
    (
        "600000000028064020010db800080000000000000000000220010db8000800000000000000000001d2040050000000000000000080a002fa"
        "f0fe300000020405a00402080a000000000000000001030307"
    ),
)


def _unframe(kind: Compression, untrusted: bytes) -> None:
    remove_framing([untrusted], kind, Drops())


def _open(channel: DataChannel, untrusted: bytes) -> None:
    if untrusted and channel.open([untrusted], 1.0).packets:
        raise AssertionError("a forged data packet was opened")


def _configuration_targets() -> list[Target]:
    texts = corpus.CONFIGURATIONS
    return [
        Target("configuration", _read_configuration, (), texts),
        Target("client file", lambda o: parse_client_file(text_of(o), "x"), (ConfigurationError,), corpus.CLIENT_FILES),
        Target("command line", lambda o: parse_arguments(text_of(o).split(" ")), (), texts),
    ]


def _read_configuration(untrusted: bytes) -> None:
    # as load_configuration does it, with the text at hand; no file below this directory exists
    directives, problems = parse_text(untrusted.decode("utf-8", "replace").replace("\0", " "), "fuzz")
    options = check_directives(directives, role_of(directives))
    if not problems and not options.problems:
        build_configuration(options, FileReader(Path("/nonexistent")), Place("fuzz"))


def all_targets() -> tuple[Target, ...]:
    """Every target, in a fixed order."""
    return (*_wire_targets(), *_crypto_targets(), *_message_targets(), *_data_targets(), *_configuration_targets())


__all__ = ["Target", "all_targets", "text_of"]

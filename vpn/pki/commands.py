"""The command line of the PKI: `python -m vpn pki init DIR --server NAME --client NAME …`, and its single steps.

Every command works in one key directory with fixed file names, the ones OpenVPN's manuals use: `ca.crt`, `ca.key`,
`server.crt`, `server.key`, `client.crt`, `client.key`, `NAME.crt`, `NAME.key`, `crl.pem`, `tls-crypt.key`,
`static.key`, `tls-crypt-v2-server.key`, `tls-crypt-v2-client.key`. Nothing is ever overwritten, but for the CRL.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from vpn.crypto.client_key import ClientKey, timestamp_metadata, wrap_client_key
from vpn.crypto.static_key import (
    KEY_OCTETS,
    SERVER_KEY_OCTETS,
    build_client_key,
    build_server_key,
    build_static_key,
    parse_server_key,
)
from vpn.pki.authority import (
    CA_DAYS,
    CERTIFICATE_DAYS,
    Identity,
    Purpose,
    Validity,
    build_crl,
    issue,
    make_authority,
)
from vpn.pki.private_files import PUBLIC_MODE, PkiError, create_file, make_directory, read_file, replace_file
from vpn.pki.profiles import Control, ProfileMaterial, ProfileTarget, build_profile
from vpn.wire.packet import Malformed

DEFAULT_CA_NAME = "VPN testbed CA"
_CONTROL_FILES = {
    Control.NONE: None,
    Control.TLS_AUTH: "static.key",
    Control.TLS_CRYPT: "tls-crypt.key",
    Control.TLS_CRYPT_V2: "tls-crypt-v2-client.key",
}


def run_pki(argv: Sequence[str]) -> int:
    """Runs one PKI command; returns the exit code (0 done, 1 could not, 2 usage)."""
    arguments = _parser().parse_args(argv)
    action: Callable[[argparse.Namespace], None] = arguments.action
    try:
        action(arguments)
    except (PkiError, Malformed) as error:
        print(f"vpn pki: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m vpn pki", description="Keys and certificates for a lab's tunnels.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_init(commands)
    _add_certificate_commands(commands)
    _add_key_commands(commands)
    profile = _add(commands, "profile", _profile, "print a client's profile with everything inline")
    profile.add_argument("--client", default="client", metavar="FILE", help="stem of the client's files (client)")
    profile.add_argument("--remote", required=True, metavar="ADDRESS", help="where the server is reached")
    profile.add_argument("--port", type=int, default=1194)
    profile.add_argument("--proto", default="udp", choices=["udp", "udp4", "udp6", "tcp", "tcp4", "tcp6"])
    profile.add_argument("--cipher", default="AES-256-GCM")
    profile.add_argument("--control", type=Control, default=Control.TLS_CRYPT, choices=list(Control))
    profile.add_argument("--out", type=Path, metavar="FILE", help="write it there (0600) instead of to stdout")
    return parser


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    action: Callable[[argparse.Namespace], None],
    help_text: str,
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=help_text, description=help_text)
    parser.add_argument("directory", type=Path, metavar="DIR", help="the key directory")
    parser.set_defaults(action=action)
    return parser


def _add_init(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    init = _add(commands, "init", _init, "make everything for one server and its clients")
    init.add_argument("--server", required=True, metavar="NAME")
    init.add_argument("--client", required=True, nargs="+", action="extend", metavar="NAME")
    init.add_argument("--days", type=int, default=CERTIFICATE_DAYS)


def _add_certificate_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    authority = _add(commands, "ca", _make_ca, "make a certificate authority and its empty CRL")
    authority.add_argument("--name", default=DEFAULT_CA_NAME)
    authority.add_argument("--days", type=int, default=CA_DAYS)
    certificate = _add(commands, "issue", _issue, "issue a certificate with a new key")
    certificate.add_argument("name", metavar="NAME", help="common name and alternative name")
    certificate.add_argument("--purpose", type=Purpose, required=True, choices=list(Purpose))
    certificate.add_argument("--file", metavar="STEM", help="file name without .crt and .key (NAME)")
    certificate.add_argument("--days", type=int, default=CERTIFICATE_DAYS)
    certificate.add_argument(
        "--start", type=int, default=0, metavar="DAYS", help="first day, from today; may be negative"
    )
    revoke = _add(commands, "revoke", _revoke, "revoke a certificate: sign a CRL that lists it")
    revoke.add_argument("file", metavar="STEM", help="file name without .crt")
    _add(commands, "crl", _crl, "sign the CRL afresh")


def _add_key_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    static = _add(commands, "static-key", _static_key, "make a static key (secret, tls-auth, tls-crypt)")
    static.add_argument("--file", default="static.key", metavar="NAME")
    server = _add(commands, "tls-crypt-v2-server", _v2_server, "make a tls-crypt-v2 server key")
    server.add_argument("--file", default="tls-crypt-v2-server.key", metavar="NAME")
    client = _add(commands, "tls-crypt-v2-client", _v2_client, "make a tls-crypt-v2 client key")
    client.add_argument("--server-file", default="tls-crypt-v2-server.key", metavar="NAME")
    client.add_argument("--file", default="tls-crypt-v2-client.key", metavar="NAME")


def _init(arguments: argparse.Namespace) -> None:
    directory: Path = arguments.directory
    now = datetime.now(UTC)
    make_directory(directory)
    authority = make_authority(DEFAULT_CA_NAME, Validity.of_days(now, CA_DAYS))
    validity = Validity.of_days(now, arguments.days)
    names = [_safe_stem(name) for name in arguments.client[1:]]
    members = [("server", arguments.server, Purpose.SERVER), ("client", arguments.client[0], Purpose.CLIENT)]
    members += [(name, name, Purpose.CLIENT) for name in names]
    _store_identity(directory, "ca", authority)
    for stem, name, purpose in members:
        _store_identity(directory, stem, issue(authority, name, purpose, validity))
    create_file(directory / "crl.pem", build_crl(authority, now), PUBLIC_MODE)
    for name in ("tls-crypt.key", "static.key"):
        _store_text(directory / name, build_static_key(secrets.token_bytes(KEY_OCTETS)))
    server_key = secrets.token_bytes(SERVER_KEY_OCTETS)
    _store_text(directory / "tls-crypt-v2-server.key", build_server_key(server_key))
    _store_text(directory / "tls-crypt-v2-client.key", _new_v2_client_key(server_key, now))


def _make_ca(arguments: argparse.Namespace) -> None:
    now = datetime.now(UTC)
    make_directory(arguments.directory)
    authority = make_authority(arguments.name, Validity.of_days(now, arguments.days))
    _store_identity(arguments.directory, "ca", authority)
    create_file(arguments.directory / "crl.pem", build_crl(authority, now), PUBLIC_MODE)


def _issue(arguments: argparse.Namespace) -> None:
    stem = _safe_stem(arguments.file or arguments.name)
    validity = Validity.of_days(datetime.now(UTC), arguments.days, arguments.start)
    identity = issue(_load_authority(arguments.directory), arguments.name, arguments.purpose, validity)
    _store_identity(arguments.directory, stem, identity)


def _revoke(arguments: argparse.Namespace) -> None:
    path = arguments.directory / f"{_safe_stem(arguments.file)}.crt"
    try:
        certificate = x509.load_pem_x509_certificate(read_file(path))
    except ValueError:
        raise PkiError(f"{path}: not a PEM certificate") from None
    _sign_crl(arguments.directory, certificate.serial_number)


def _crl(arguments: argparse.Namespace) -> None:
    _sign_crl(arguments.directory, None)


def _sign_crl(directory: Path, serial_number: int | None) -> None:
    path = directory / "crl.pem"
    previous = read_file(path) if path.exists() else None
    crl = build_crl(_load_authority(directory), datetime.now(UTC), previous, serial_number)
    replace_file(path, crl)


def _static_key(arguments: argparse.Namespace) -> None:
    make_directory(arguments.directory)
    _store_text(arguments.directory / arguments.file, build_static_key(secrets.token_bytes(KEY_OCTETS)))


def _v2_server(arguments: argparse.Namespace) -> None:
    make_directory(arguments.directory)
    key = secrets.token_bytes(SERVER_KEY_OCTETS)
    _store_text(arguments.directory / arguments.file, build_server_key(key))


def _v2_client(arguments: argparse.Namespace) -> None:
    server_file = arguments.directory / arguments.server_file
    server_key = parse_server_key(_read_text(server_file))
    _store_text(arguments.directory / arguments.file, _new_v2_client_key(server_key, datetime.now(UTC)))


def _profile(arguments: argparse.Namespace) -> None:
    directory: Path = arguments.directory
    control: Control = arguments.control
    control_file = _CONTROL_FILES[control]
    material = ProfileMaterial(
        ca=_read_text(directory / "ca.crt"),
        certificate=_read_text(directory / f"{arguments.client}.crt"),
        key=_read_text(directory / f"{arguments.client}.key"),
        control_key=_read_text(directory / control_file) if control_file else "",
    )
    target = ProfileTarget(arguments.remote, arguments.port, arguments.proto, arguments.cipher, control)
    profile = build_profile(target, material)
    if arguments.out is None:
        sys.stdout.write(profile)
    else:
        _store_text(arguments.out, profile)


def _load_authority(directory: Path) -> Identity:
    return Identity.from_pem(read_file(directory / "ca.crt"), read_file(directory / "ca.key"))


def _new_v2_client_key(server_key: bytes, now: datetime) -> str:
    client_key = secrets.token_bytes(KEY_OCTETS)
    wrapped = wrap_client_key(ClientKey(client_key, timestamp_metadata(int(now.timestamp()))), server_key)
    return build_client_key(client_key, wrapped)


def _store_identity(directory: Path, stem: str, identity: Identity) -> None:
    create_file(directory / f"{stem}.key", identity.key_pem())
    create_file(directory / f"{stem}.crt", identity.certificate_pem(), PUBLIC_MODE)


def _store_text(path: Path, text: str) -> None:
    create_file(path, text.encode("ascii"))


def _read_text(path: Path) -> str:
    try:
        return read_file(path).decode("ascii")
    except UnicodeDecodeError:
        raise PkiError(f"{path}: not a text file") from None


def _safe_stem(name: str) -> str:
    """Names become file names; one with a slash or a leading dot would leave the key directory or hide."""
    if not name or name.startswith(".") or "/" in name or "\0" in name:
        raise PkiError(f"{name!r}: not usable as a file name")
    return name

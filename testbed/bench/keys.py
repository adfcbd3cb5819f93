"""The keys of one benchmark run, made beforehand so that no contender's start pays for them.

They live in a directory that only its owner may enter, and in memory; both are gone when the run ends.
"""

from __future__ import annotations

import subprocess
from collections.abc import Collection
from pathlib import Path

from testbed.bench.contenders import Keys
from testbed.children import lean_environment
from testbed.tunnels.programs import find_program
from testbed.tunnels.start import KeyMaker
from testbed.tunnels.wireguard import make_key_pair


def make_keys(kinds: Collection[str], directory: Path) -> Keys:
    """The keys that contenders of these kinds (`Contender.keys`) need; OpenVPN's are files below `directory`.

    Errors: TunnelFailed, RuntimeError with the words of the program that could not make them
    """
    return Keys(
        openvpn=str(KeyMaker(directory / "openvpn", lean_environment()).wait()) if "openvpn" in kinds else "",
        wireguard=(_wireguard_pair(), _wireguard_pair()) if "wireguard" in kinds else (),
        fastd=(_fastd_pair(), _fastd_pair()) if "fastd" in kinds else (),
        rsa=(_rsa_pair(), _rsa_pair()) if "rsa" in kinds else (),
    )


def _wireguard_pair() -> tuple[str, str]:
    pair = make_key_pair()
    return pair.private, pair.public


def _rsa_pair() -> tuple[str, str]:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = serialization.Encoding.PEM
    own = private.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    public = private.public_key().public_bytes(pem, serialization.PublicFormat.PKCS1)
    return own.decode(), public.decode()


def _fastd_pair() -> tuple[str, str]:
    """fastd's keys are points of a curve of its own: it makes them itself."""
    program = find_program("fastd") or "fastd"
    done = subprocess.run([program, "--generate-key"], capture_output=True, text=True, timeout=20, check=False)
    words = dict(line.split(": ") for line in done.stdout.splitlines() if line.startswith(("Secret", "Public")))
    if done.returncode or len(words) != 2:
        raise RuntimeError(f"fastd could not make a key: {(done.stderr or done.stdout)[-300:]}")
    return words["Secret"], words["Public"]

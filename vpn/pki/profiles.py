"""One `.ovpn` file with everything a client needs inline, from the files of a key directory.

Pure text building: the caller reads the files and writes the result. OpenVPN's own format, so that every OpenVPN
program reads it; the options are those of the manual.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Control(StrEnum):
    """How the control channel is protected, by its name in scenario files and profiles."""

    NONE = "none"
    TLS_AUTH = "tls-auth"
    TLS_CRYPT = "tls-crypt"
    TLS_CRYPT_V2 = "tls-crypt-v2"


@dataclass(frozen=True, slots=True)
class ProfileMaterial:
    """PEM texts of one client. `control_key` is the static key or the tls-crypt-v2 client key; empty without one."""

    ca: str
    certificate: str
    key: str
    control_key: str = ""

    def __repr__(self) -> str:
        return "ProfileMaterial(…)"


@dataclass(frozen=True, slots=True)
class ProfileTarget:
    remote: str
    port: int = 1194
    proto: str = "udp"
    cipher: str = "AES-256-GCM"
    control: Control = Control.TLS_CRYPT


def build_profile(target: ProfileTarget, material: ProfileMaterial) -> str:
    """The text of a client profile for `target`."""
    lines = [
        "client",
        "dev tun",
        f"proto {target.proto}",
        f"remote {target.remote} {target.port}",
        "nobind",
        "persist-tun",
        "remote-cert-tls server",
        f"data-ciphers {target.cipher}",
        "verb 3",
    ]
    if target.control is Control.TLS_AUTH:
        lines.append("key-direction 1")
    blocks = [("ca", material.ca), ("cert", material.certificate), ("key", material.key)]
    if target.control is not Control.NONE:
        blocks.append((target.control.value, material.control_key))
    for tag, content in blocks:
        lines += [f"<{tag}>", content.strip(), f"</{tag}>"]
    return "\n".join(lines) + "\n"

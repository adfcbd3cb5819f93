"""Configuration texts for both ends, read by our program and by openvpn alike, and the keys they name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.interop.tunnel_lab import INNER_SERVER, INNER_SERVER6, SERVER
from vpn.pki.commands import run_pki

PUSH_ALL = (
    "redirect-gateway def1 ipv6",
    f"dhcp-option DNS {INNER_SERVER}",
    f"dhcp-option DNS6 {INNER_SERVER6}",
)
PUSH_SPLIT = ("route 10.20.0.0 255.255.255.0", "route-ipv6 2001:db8:20::/64")


def make_keys(folder: Path) -> Path:
    """A key directory with everything for one server and the clients `alice` (client.crt) and `bob`."""
    if run_pki(["init", str(folder), "--server", "vpn.example", "--client", "alice", "bob"]):
        raise AssertionError("the PKI could not be made")
    return folder


@dataclass(frozen=True, slots=True)
class Setup:
    """What the two texts differ in from test to test."""

    keys: Path
    push: tuple[str, ...] = PUSH_ALL
    address: str = SERVER
    proto: str = "udp"
    control: str = "tls-crypt"
    cipher: str = "AES-256-GCM"
    both: tuple[str, ...] = ()
    server_only: tuple[str, ...] = ()
    client_only: tuple[str, ...] = ()
    client_name: str = "client"

    def server(self) -> str:
        tcp = self.proto.startswith("tcp")
        return _text(
            "mode server",
            "tls-server",
            "dev tun0",
            f"proto {self.proto}{'-server' if tcp else ''}",
            f"local {self.address}",
            "port 1194",
            "topology subnet",
            "server 10.8.0.0 255.255.255.0",
            "server-ipv6 2001:db8:8::/64",
            f"ca {self.keys}/ca.crt",
            f"cert {self.keys}/server.crt",
            f"key {self.keys}/server.key",
            "dh none",
            *self._control("server"),
            f"data-ciphers {self.cipher}",
            "keepalive 10 60",
            *(f'push "{option}"' for option in self.push),
            "verb 3",
            *([] if tcp else ["explicit-exit-notify 1"]),
            "duplicate-cn",
            *self.both,
            *self.server_only,
        )

    def client(self) -> str:
        return _text(
            "client",
            "dev tun0",
            f"proto {self.proto}",
            f"remote {self.address} 1194",
            "nobind",
            f"ca {self.keys}/ca.crt",
            f"cert {self.keys}/{self.client_name}.crt",
            f"key {self.keys}/{self.client_name}.key",
            "remote-cert-tls server",
            *self._control("client"),
            f"data-ciphers {self.cipher}",
            "verb 3",
            *self.both,
            *self.client_only,
        )

    def _control(self, role: str) -> list[str]:
        files = {
            "none": "",
            "tls-auth": f"static.key {0 if role == 'server' else 1}",
            "tls-crypt": "tls-crypt.key",
            "tls-crypt-v2": f"tls-crypt-v2-{role}.key",
        }
        return [f"{self.control} {self.keys}/{files[self.control]}"] if files[self.control] else []


def _text(*lines: str) -> str:
    return "\n".join(lines) + "\n"

"""The programs a benchmark compares: for each, the files of both ends, their commands, and the address inside. Pure.

All get the same job: one client, one server, a key made beforehand, inner network 10.8.0.0/24 with the server at .1,
and no route but that. Each runs with its own defaults, unless its title says otherwise: what its users get.

Sources: the manuals of OpenVPN 2.6, wireguard-go and wg(8), tinc.conf(5), fastd 22.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from testbed.bench.model import BASELINE
from testbed.tunnels import wireguard
from testbed.tunnels.ends import End
from testbed.tunnels.openvpn_config import TunnelSettings, client_config, server_config
from topologies.line import CLIENT, SERVER

INNER_SERVER, INNER_CLIENT = "10.8.0.1", "10.8.0.2"
TUNED = ("sndbuf 2097152", "rcvbuf 2097152", "txqueuelen 5000")
JUMBO = ("tun-mtu 48000", "mssfix 0")
FASTD_MTU_OCTETS = 1426


@dataclass(frozen=True, slots=True)
class Keys:
    """What was made for this run, as the programs' files spell it. Shape: `openvpn` is a directory of `vpn pki init`;
    pairs are (server, client), each (private, public)."""

    openvpn: str = ""
    wireguard: tuple[tuple[str, str], ...] = ()
    fastd: tuple[tuple[str, str], ...] = ()
    rsa: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        return "Keys(…)"  # private keys stay out of logs and tracebacks


@dataclass(frozen=True, slots=True)
class Ends:
    server: End
    client: End
    address: str = INNER_SERVER  # where the client reaches the server through the tunnel


@dataclass(frozen=True, slots=True)
class Contender:
    """One row of the table. Shape: `packages` are the programs it needs with the package of each; `rivals` are those
    with whom it is compared, measure by measure; `folder` is where both its commands run.

    Units: `settle` is how long it may need, after the first answer, until it runs at its own speed: seconds.
    """

    name: str
    title: str
    make: Callable[[Keys], Ends] | None  # None: no tunnel
    packages: Mapping[str, str] = field(default_factory=dict)
    keys: str = ""  # which of `Keys` it needs
    settle: float = 0.0
    rivals: tuple[str, ...] = ()
    folder: str = "/"


def own_contender(server: str, client: str, address: str, folder: str, rivals: tuple[str, ...]) -> Contender:
    """A user's own VPN: two command lines, in which `{server}` and `{client}` are the outer addresses."""

    def words(command: str) -> tuple[str, ...]:
        return tuple(word.replace("{server}", SERVER).replace("{client}", CLIENT) for word in shlex.split(command))

    ends = Ends(End(words(server)), End(words(client)), address)
    return Contender("own", "your own command", lambda _: ends, rivals=rivals, folder=folder)


def _openvpn_pair(
    server: str,
    client: str,
    *,
    cipher: str = "AES-256-GCM",
    transport: str = "udp",
    extra: tuple[str, ...] = (),
) -> Callable[[Keys], Ends]:
    def make(keys: Keys) -> Ends:
        settings = TunnelSettings(SERVER, keys.openvpn, cipher, "tls-crypt", "tls", transport, (), False)
        tail = "".join(f"{line}\n" for line in extra)
        return Ends(
            _openvpn_end(server, "server.conf", server_config(settings) + tail),
            _openvpn_end(client, "client.conf", client_config(settings) + tail),
        )

    return make


def _openvpn_end(program: str, file: str, text: str) -> End:
    command = ("openvpn", "--config") if program == "openvpn" else (sys.executable, "-m", "vpn", "run")
    return End((*command, f"{{dir}}/{file}"), {file: text})


def _wireguard(keys: Keys) -> Ends:
    server, client = (wireguard.KeyPair(*pair) for pair in keys.wireguard)
    client_end = wireguard.client_end(
        client, server, device="wg0", endpoint=SERVER, prefixes=(), dns_in_tunnel=False, around=(None, "")
    )
    return Ends(wireguard.server_end(server, client), client_end)


def _tinc(keys: Keys) -> Ends:
    hosts = {
        "hosts/server": f"Address = {SERVER}\nSubnet = {INNER_SERVER}/32\n{keys.rsa[0][1]}",
        "hosts/client": f"Subnet = {INNER_CLIENT}/32\n{keys.rsa[1][1]}",
    }
    return Ends(
        _tinc_end("server", INNER_SERVER, keys.rsa[0][0], hosts, ""),
        _tinc_end("client", INNER_CLIENT, keys.rsa[1][0], hosts, "ConnectTo = server\n"),
    )


def _tinc_end(name: str, address: str, private: str, hosts: Mapping[str, str], connect: str) -> End:
    up = f"#!/bin/sh\nip address add {address}/24 dev $INTERFACE\nip link set $INTERFACE up\n"
    config = f"Name = {name}\nAddressFamily = ipv4\nDevice = /dev/net/tun\nInterface = tinc0\n{connect}"
    argv = ("tincd", "-c", "{dir}", "-D", "--pidfile={dir}/pid")
    return End(argv, {"tinc.conf": config, "tinc-up": up, "rsa_key.priv": private, **hosts})


def _fastd(keys: Keys) -> Ends:
    (server_secret, server_public), (client_secret, client_public) = keys.fastd
    peer_client = f'peer "client" {{ key "{client_public}"; }}'
    peer_server = f'peer "server" {{ key "{server_public}"; remote {SERVER}:10000; }}'
    return Ends(
        _fastd_end(INNER_SERVER, INNER_CLIENT, server_secret, f"bind {SERVER}:10000;", peer_client),
        _fastd_end(INNER_CLIENT, INNER_SERVER, client_secret, "", peer_server),
    )


def _fastd_end(address: str, other: str, secret: str, bind: str, peer: str) -> End:
    config = f"""mode tun;
interface "fastd0";
method "aes128-ctr+umac";
mtu {FASTD_MTU_OCTETS};
secret "{secret}";
{bind}
{peer}
on up "ip address add {address} peer {other} dev fastd0; ip link set fastd0 up";
"""
    return End(("fastd", "--config", "{dir}/fastd.conf"), {"fastd.conf": config})


_OPENVPN = {"openvpn": "openvpn"}
CONTENDERS: Mapping[str, Contender] = {
    entry.name: entry
    for entry in (
        Contender(BASELINE, "no tunnel", None),
        Contender(
            "vpn",
            "ours, AES-256-GCM, UDP",
            _openvpn_pair("vpn", "vpn"),
            keys="openvpn",
            rivals=("openvpn", "openvpn-tuned", "wireguard-go", "tinc", "fastd", BASELINE),
        ),
        Contender(
            "openvpn", "openvpn as it comes, AES-256-GCM, UDP", _openvpn_pair("openvpn", "openvpn"), _OPENVPN, "openvpn"
        ),
        Contender(
            "openvpn-tuned",
            "openvpn, buffers of 2 MiB and a queue of 5000",
            _openvpn_pair("openvpn", "openvpn", extra=TUNED),
            _OPENVPN,
            "openvpn",
        ),
        Contender(
            "wireguard-go",
            "wireguard-go",
            _wireguard,
            wireguard.PACKAGES,
            "wireguard",
        ),
        Contender("tinc", "tinc", _tinc, {"tincd": "tinc", "ip": "iproute2"}, "rsa", settle=4.0),
        Contender("fastd", "fastd, aes128-ctr+umac", _fastd, {"fastd": "fastd", "ip": "iproute2"}, "fastd"),
        Contender(
            "vpn-chacha",
            "ours, CHACHA20-POLY1305",
            _openvpn_pair("vpn", "vpn", cipher="CHACHA20-POLY1305"),
            keys="openvpn",
            rivals=("openvpn-chacha",),
        ),
        Contender(
            "openvpn-chacha",
            "openvpn, CHACHA20-POLY1305",
            _openvpn_pair("openvpn", "openvpn", cipher="CHACHA20-POLY1305"),
            _OPENVPN,
            "openvpn",
        ),
        Contender(
            "vpn-tcp",
            "ours over TCP",
            _openvpn_pair("vpn", "vpn", transport="tcp"),
            keys="openvpn",
            rivals=("openvpn-tcp",),
        ),
        Contender(
            "openvpn-tcp",
            "openvpn over TCP",
            _openvpn_pair("openvpn", "openvpn", transport="tcp"),
            _OPENVPN,
            "openvpn",
        ),
        Contender(
            "vpn-to-openvpn",
            "our client, openvpn's server",
            _openvpn_pair("openvpn", "vpn"),
            _OPENVPN,
            "openvpn",
            rivals=("openvpn",),
        ),
        Contender(
            "openvpn-to-vpn",
            "openvpn's client, our server",
            _openvpn_pair("vpn", "openvpn"),
            _OPENVPN,
            "openvpn",
            rivals=("openvpn",),
        ),
        Contender(
            "vpn-48000",
            "ours, tun-mtu 48000",
            _openvpn_pair("vpn", "vpn", extra=JUMBO),
            keys="openvpn",
            rivals=("openvpn-48000",),
        ),
        Contender(
            "openvpn-48000",
            "openvpn, tun-mtu 48000",
            _openvpn_pair("openvpn", "openvpn", extra=JUMBO),
            _OPENVPN,
            "openvpn",
        ),
    )
}
DEFAULT = (BASELINE, "vpn", "openvpn", "openvpn-tuned", "wireguard-go", "tinc", "fastd")
SETS: Mapping[str, tuple[str, ...]] = {
    "pairs": (
        "openvpn",
        "vpn-to-openvpn",
        "openvpn-to-vpn",
        "vpn-chacha",
        "openvpn-chacha",
        "vpn-tcp",
        "openvpn-tcp",
        "vpn-48000",
        "openvpn-48000",
    ),
}

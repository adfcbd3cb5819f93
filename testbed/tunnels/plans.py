"""From a scenario's `tunnel` to what is started at each end: the way of each program.

A plan has everything `start` needs: argument lists, directories with the files in place, and how an end says that it is
up. Keys and files are made for this run alone, in the bubble's own tmpfs, and vanish with it.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.scenario.values import Command, TunnelSpec
from testbed.tunnels import wireguard
from testbed.tunnels.ends import End, with_values, write_files
from testbed.tunnels.openvpn_config import TunnelSettings, client_config, server_config
from testbed.tunnels.programs import PROGRAMS, READY, READY_WITH_ERRORS

if TYPE_CHECKING:
    from testbed.lab.node import Node

ROLES = ("server", "client")


@dataclass(frozen=True, slots=True)
class EndPlan:
    """One end to be started, and how it is known to be up.

    Shape: `ready` is a text in its output, `device` an interface that then has an address, `answering` an address that
        answers through that device; what is empty is not waited for. `incomplete` in the output means that it failed
        after all. `untrapped` says that SIGTERM itself may be what ends it.
    """

    role: str
    program: str
    node: Node
    argv: tuple[str, ...]
    cwd: str = "/"
    ready: str = ""
    incomplete: str = ""
    device: str = ""
    answering: str = ""
    untrapped: bool = False


@dataclass(frozen=True, slots=True)
class TunnelPlan:
    """Both ends. Shape: `server_first` waits for the server before the client is started."""

    server: EndPlan
    client: EndPlan
    keylog: Path
    server_first: bool = True

    def end(self, role: str) -> EndPlan:
        return self.client if role == "client" else self.server


@dataclass(frozen=True, slots=True)
class Places:
    """Where a tunnel runs. Shape: addresses are the nodes' outer ones; `work` is the bubble's own directory."""

    client: Node
    server: Node
    client_address: str
    server_address: str
    work: Path

    def node(self, role: str) -> Node:
        return self.client if role == "client" else self.server


def needs_pki(tunnel: TunnelSpec) -> bool:
    """Whether certificates and OpenVPN's keys have to be made."""
    if tunnel.command is None:
        return tunnel.client != "wireguard"
    texts = (*tunnel.command.argv.client, *tunnel.command.argv.server, *(text for *_, text in tunnel.command.files))
    return any("{keys}" in text for text in texts)


def plan_tunnel(tunnel: TunnelSpec, places: Places, keys: Path) -> TunnelPlan:
    """What to start for a scenario's tunnel. Shape: `keys` is the directory that `vpn pki init` made, where needed."""
    if tunnel.command is not None:
        return _command_plan(tunnel.command, tunnel.device, places, keys)
    if tunnel.client == "wireguard":
        return _wireguard_plan(tunnel, places)
    return _openvpn_plan(tunnel, places, keys)


def _openvpn_plan(tunnel: TunnelSpec, places: Places, keys: Path) -> TunnelPlan:
    settings = TunnelSettings(
        server=places.server_address,
        keys=str(keys),
        cipher=tunnel.cipher,
        control=tunnel.control,
        mode=tunnel.mode,
        transport=tunnel.transport,
        routes=None if isinstance(tunnel.routes, str) else tunnel.routes,
        dns_in_tunnel=tunnel.dns == "tunnel",
    )
    keylog = places.work / "tunnel.keylog"
    programs = {"client": tunnel.client, "server": tunnel.server}
    # One end's TLS secrets are enough: the client's, or where its program writes none, the server's.
    able = [role for role in ("client", "server") if PROGRAMS[programs[role]].keylog_option]
    logs_keys = able[0] if able and tunnel.mode == "tls" else ""
    ends = {}
    for role, text in (("server", server_config(settings)), ("client", client_config(settings))):
        path = places.work / f"{role}.conf"
        path.write_text(text + "".join(f"{line}\n" for line in tunnel.options.of(role)))
        argv = PROGRAMS[programs[role]].command(
            str(path), client=role == "client", keylog=str(keylog) if role == logs_keys else None
        )
        node = places.node(role)
        ends[role] = EndPlan(role, programs[role], node, tuple(argv), ready=READY, incomplete=READY_WITH_ERRORS)
    return TunnelPlan(ends["server"], ends["client"], keylog, server_first=tunnel.mode == "tls")


def _wireguard_plan(tunnel: TunnelSpec, places: Places) -> TunnelPlan:
    server, client = wireguard.make_key_pair(), wireguard.make_key_pair()
    way = places.client.egress(places.server_address)
    ends = {
        "server": wireguard.server_end(server, client),
        "client": wireguard.client_end(
            client,
            server,
            device=tunnel.device,
            endpoint=places.server_address,
            prefixes=tunnel.prefixes,
            dns_in_tunnel=tunnel.dns == "tunnel",
            around=(way["gateway"], str(way["interface"])),
        ),
    }
    plans = {}
    for role, end in ends.items():
        placed = _place(end, places.work / role, {})
        plans[role] = EndPlan(role, "wireguard-go", places.node(role), placed.argv, ready=wireguard.READY)
    return TunnelPlan(plans["server"], replace(plans["client"], device=tunnel.device), places.work / "tunnel.keylog")


def _command_plan(command: Command, device: str, places: Places, keys: Path) -> TunnelPlan:
    values = {"server": places.server_address, "client": places.client_address, "keys": str(keys)}
    plans = {}
    for role in ROLES:
        files = {name: text for end, name, text in command.files if end == role}
        placed = _place(End(command.argv.of(role), files), places.work / role, values)
        plans[role] = EndPlan(
            role=role,
            program=shlex.join(command.argv.of(role)[:1]),
            node=places.node(role),
            argv=placed.argv,
            cwd=command.folder,
            ready=next(iter(command.ready.of(role)), ""),
            device=device if role == "client" else "",
            answering=(command.address or "") if role == "client" else "",
            untrapped=True,
        )
    return TunnelPlan(plans["server"], plans["client"], places.work / "tunnel.keylog")


def _place(end: End, folder: Path, values: Mapping[str, str]) -> End:
    folder.mkdir(mode=0o700)
    placed = with_values(end, {**values, "dir": str(folder)})
    write_files(folder, placed)
    return placed

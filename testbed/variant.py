"""One variant, inside its bubble: build, listen, serve, tunnel, act, and bring home what there is to know.

This is what the conductor runs. It hands back plain JSON values; the capture files and logs are in the run directory.
Whatever it starts dies with the bubble, so nothing here undoes anything: it only ends what must end in good order for
its last words (taps, services, tunnel) to be complete.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from testbed.capture import tap
from testbed.children import Child, ChildFailed, child_environment, lean_environment, module_argv
from testbed.control_tap import DeviceWatch, append, summed
from testbed.evidence import is_before_tunnel_server
from testbed.ground_truth.key_files import read_key
from testbed.internet import CLIENT, Roles, lookup_warning, services_request
from testbed.lab.bubble import Conductor
from testbed.lab.build import Lab
from testbed.lab.model import LabPlan
from testbed.lab.node import Node
from testbed.rundir import RunDirectory
from testbed.scenario.values import CLIENT_TUN, TapSpec, Variant
from testbed.timeline import Timeline
from testbed.tunnels.plans import Places, needs_pki, plan_tunnel
from testbed.tunnels.start import KeyMaker, Tunnel
from testbed.workload.trust import BUNDLE_TARGETS, write_bundle

WORK_DIRECTORY = Path("/run/testbed")  # in the bubble's own tmpfs
CA_CERTIFICATE = WORK_DIRECTORY / "ca.pem"
CA_BUNDLE = WORK_DIRECTORY / "ca-bundle.pem"
KEYLOG = WORK_DIRECTORY / "keys.log"
START_TIMEOUT = 20.0
_QUICK_RING_OCTETS = 2 << 20
_FURTHER = "+"  # behind the control tap's name: no tap of a scenario can have it in its own
# Which key file the map needs, by what wraps the control channel; the keys of TLS are in the key log.
KEY_FILES = {
    "static-key": "static.key",
    "tls-auth": "",  # nothing is encrypted
    "tls-crypt": "tls-crypt.key",
    "tls-crypt-v2": "tls-crypt-v2-client.key",
    "none": "",
}


@dataclass(frozen=True, slots=True)
class VariantJob:
    """Everything one variant needs.

    Shape: `secret` keys the canaries of this variant; with `keep` services and tunnel stay up for the lab to be held.
    """

    variant: Variant
    plan: LabPlan
    roles: Roles
    run_directory: RunDirectory
    secret: bytes
    keep: bool


class VariantRun:
    """The parts of one running variant."""

    def __init__(self, job: VariantJob, conductor: Conductor) -> None:
        self._job = job
        self._conductor = conductor
        self._directory = job.run_directory
        self._name = job.variant.name
        self._taps: dict[str, Child] = {}
        self._clock: dict[str, float] = {}
        self._warnings: list[str] = [text for text in [lookup_warning(job.variant, job.roles)] if text]
        self._began_at: float | None = None  # the workload, in Unix seconds
        self._keys: KeyMaker | None = None
        self._tunnel: Tunnel | None = None
        self._watch: DeviceWatch | None = None
        self._client: Node | None = None
        WORK_DIRECTORY.mkdir(mode=0o700, exist_ok=True)
        os.close(self._directory.make_directory(self._name))
        self._log_fd = self._directory.make_directory(f"{self._name}/logs")

    def run(self) -> dict[str, Any]:
        """The story of the variant."""
        variant = self._job.variant
        if variant.tunnel is not None and needs_pki(variant.tunnel):
            self._keys = KeyMaker(WORK_DIRECTORY / "keys", lean_environment())
        self._phase("lab")
        lab = Lab.build(self._job.plan, before_up=self._open_taps)
        self._conductor.publish(lab.namespace_descriptors())
        client = self._client = lab.node(CLIENT)
        self._phase("services")
        services = self._start_services(lab)
        self._trust_lab_authority(client)
        if variant.tunnel is not None:
            self._phase("tunnel")
            self._start_tunnel(lab)
            self._open_tap(client, TapSpec(CLIENT_TUN, CLIENT), variant.tunnel.device)
            self._watch = DeviceWatch(client, variant.tunnel.device)
        seen = self._ask_kernel(client)
        self._phase("workload")
        timeline = Timeline(variant.events, lab, self._tunnel, self._log_fd, self._tell_event, self._tap_new_device)
        actions, facts = self._run_workload(client, timeline)
        ways = self._ways_to_sites(client)
        events = timeline.close()
        self._warnings += [f"event {event['words']}: {event['error']}" for event in events if not event["ok"]]
        self._phase("closing")
        if not self._job.keep:
            if self._tunnel is not None:
                self._warnings += self._tunnel.close()
            services.stop()
        self._keep_tls_keys()
        taps = self._with_one_control({name: child.stop() for name, child in self._taps.items()})
        self._phase("end")
        return {
            **seen,
            "actions": actions,
            "facts": facts,
            "egress_after": [way for way in ways if way not in seen["egress"]],
            "events": events,
            "workload_began_at": self._began_at,
            "taps": [self._tap_record(name, counts) for name, counts in taps.items()],
            "tunnel": self._tunnel_measured(),
            "tunnel_keys": self._tunnel_keys(),
            "metrics": self._seconds_by_phase(),
            "warnings": self._warnings,
        }

    # -- in the order of the story ------------------------------------------------------------------------------------

    def _phase(self, name: str) -> None:
        self._clock[name] = time.monotonic()
        self._conductor.send({"event": "phase", "phase": name})

    def _open_taps(self, lab: Lab) -> None:
        for planned, spec in zip(self._job.plan.taps, self._job.variant.taps, strict=True):
            self._open_tap(lab.node(planned.node), spec, planned.interface)

    def _open_tap(self, node: Node, spec: TapSpec, interface: str) -> None:
        ring_octets = spec.ring_octets or tap.DEFAULT_RING_OCTETS
        snap_octets = spec.snap_octets or 0
        packet_socket = node.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        tap.open_ring(packet_socket, interface, ring_octets=ring_octets, snap_octets=snap_octets)
        output = self._directory.create_file(f"{self._name}/{spec.name}.pcapng")
        argv = module_argv(
            "testbed.capture",
            *("--socket", str(packet_socket.fileno())),
            *("--output", str(output)),
            *("--interface-name", f"{node.name}:{interface}"),
            *("--ring-octets", str(ring_octets)),
            *("--snap-octets", str(snap_octets)),
        )
        # A tap told to stop before it can listen would end without emptying its ring: it unblocks the signal itself.
        former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        self._taps[spec.name] = self._spawn(f"tap-{spec.name}", argv, pass_fds=(packet_socket.fileno(), output))
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
        packet_socket.close()
        os.close(output)

    def _tap_new_device(self) -> None:
        """Where the tunnel's device is another one than before, tap it too: the control tap ended with the old one."""
        if self._watch is None or self._client is None or not self._watch.is_new():
            return
        # A small ring, which a busy machine has at once: what leaves before it is there is missing.
        spec = TapSpec(f"{CLIENT_TUN}{_FURTHER}{len(self._taps)}", CLIENT, ring_octets=_QUICK_RING_OCTETS)
        try:
            self._open_tap(self._client, spec, self._device())
        except tap.TapError as error:  # gone again already
            self._warnings.append(f"the tunnel's new device was not tapped: {error}")

    def _with_one_control(self, taps: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """The control tap's counts and capture as one, whatever number of devices the tunnel had."""
        further = [name for name in taps if name.startswith(f"{CLIENT_TUN}{_FURTHER}")]
        for name in further:
            append(self._directory.fd, f"{self._name}/{CLIENT_TUN}.pcapng", f"{self._name}/{name}.pcapng")
            taps[CLIENT_TUN] = summed(taps[CLIENT_TUN], taps[name])
        return {name: counts for name, counts in taps.items() if name not in further}

    def _start_services(self, lab: Lab) -> Child:
        nodes = {name: node.netns_fd for name, node in lab.nodes.items()}
        request = services_request(
            self._job.variant,
            self._job.roles,
            nodes=nodes,
            log_directory=self._log_fd,
            ca_certificate=str(CA_CERTIFICATE),
        )
        services = self._spawn(
            "services",
            module_argv("testbed.services"),
            pass_fds=(*nodes.values(), self._log_fd),
            text=request.to_json(),
        )
        answer = services.read_line(START_TIMEOUT)
        if not answer or not answer.get("ready"):
            raise services.failure(f"could not start: {(answer or {}).get('error', 'no answer')}")
        return services

    def _trust_lab_authority(self, client: Node) -> None:
        """Make every program in the client's node believe the lab's certificates, `curl` in a shell included."""
        write_bundle(CA_CERTIFICATE, CA_BUNDLE)
        for target in BUNDLE_TARGETS:
            if target.is_file():
                client.bind_file(CA_BUNDLE, target)

    def _start_tunnel(self, lab: Lab) -> None:
        spec, roles = self._job.variant.tunnel, self._job.roles
        if spec is None:
            raise ValueError("this variant has no tunnel")
        keys = self._keys.wait() if self._keys is not None else WORK_DIRECTORY
        places = Places(
            client=lab.node(CLIENT),
            server=lab.node(roles.vpn_node),
            client_address=self._client_addresses()[0],
            server_address=roles.vpn_address,
            work=WORK_DIRECTORY,
        )
        self._tunnel = Tunnel(plan_tunnel(spec, places, keys), self._log_fd, child_environment())

    def _ask_kernel(self, client: Node) -> dict[str, Any]:
        return {
            "interfaces": client.interfaces(),
            "routes": client.routes(),
            "egress": self._ways_to_sites(client),
        }

    def _ways_to_sites(self, client: Node) -> list[dict[str, Any]]:
        sites = self._job.variant.sites.values()
        return [{"site": site.name, **client.egress(address)} for site in sites for address in site.addresses]

    def _tell_event(self, words: str) -> None:
        self._conductor.send({"event": "fault", "words": words})

    def _run_workload(self, client: Node, timeline: Timeline) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The records and the facts of all actions, as the workload process tells them."""
        actions = self._job.variant.workload
        child = self._spawn("workload", module_argv("testbed.workload"), node=client, text=self._workload_request())
        records, facts = [], []
        silence = START_TIMEOUT + max((action.timeout + (action.at or 0.0) for action in actions), default=0.0)
        while (event := timeline.next_line(child, silence)) is not None:
            if event["event"] == "began":
                self._began_at = float(event["time"])
                timeline.begin(self._began_at)
            self._conductor.send({key: event[key] for key in ("event", "id") if key in event})
            if event["event"] == "error":
                raise child.failure(f"refused its request: {event['error']}")
            facts += event.get("facts", ())
            if event["event"] == "end":
                records.append(event["record"])
        child.wait()
        if len(records) != len(actions):
            raise ChildFailed(f"the workload ended after {len(records)} of {len(actions)} actions")
        return records, facts

    def _workload_request(self) -> str:
        variant = self._job.variant
        request = {
            "variant": variant.name,
            "secret": self._job.secret.hex(),
            "actions": [asdict(action) for action in variant.workload],
            "sites": {site.name: site.addresses for site in variant.sites.values()},
            "client_addresses": self._client_addresses(),
            "tunnel_device": self._device(),
            "ca_certificate": str(CA_CERTIFICATE),
            "ca_bundle": str(CA_BUNDLE),
            "keylog": str(KEYLOG),
        }
        return json.dumps(request)

    def _client_addresses(self) -> list[str]:
        interfaces = self._job.plan.node(CLIENT).interfaces
        return [address.partition("/")[0] for interface in interfaces for address in interface.addresses]

    def _keep_tls_keys(self) -> None:
        """Bring the TLS secrets of the client's programs and tunnel home: the bubble's files vanish with it."""
        logs = [KEYLOG, *([self._tunnel.keylog] if self._tunnel else [])]
        text = "".join(log.read_text() for log in logs if log.exists())
        self._directory.write_text(f"{self._name}/keys.log", text, secret=True)

    # -- what it leaves -----------------------------------------------------------------------------------------------

    def _tap_record(self, name: str, counts: dict[str, Any]) -> dict[str, Any]:
        planned = {entry.name: entry for entry in self._job.plan.taps}.get(name)
        return {
            "name": name,
            "node": planned.node if planned else CLIENT,
            "interface": planned.interface if planned else self._device(),
            "file": f"{self._name}/{name}.pcapng",
            "before_tunnel_server": is_before_tunnel_server(planned.node if planned else CLIENT, self._job.roles),
            **{key: int(counts[key]) for key in ("packets", "octets", "dropped")},
        }

    def _device(self) -> str:
        return self._job.variant.tunnel.device if self._job.variant.tunnel else ""

    def _tunnel_measured(self) -> dict[str, Any] | None:
        if self._tunnel is None:
            return None
        return {
            "server_address": self._job.roles.vpn_address,
            "client_ready_seconds": self._tunnel.client.ready_after,
            "server_ready_seconds": self._tunnel.server.ready_after,
        }

    def _tunnel_keys(self) -> dict[str, str]:
        """The tunnel's own keys in hexadecimal digits, for the map from inner to outer packets; never written down."""
        spec = self._job.variant.tunnel
        if spec is None or self._keys is None:
            return {}
        name = KEY_FILES.get("static-key" if spec.mode == "static-key" else spec.control)
        path = self._keys.directory / name if name else None
        key = read_key(path.read_text()) if path and path.is_file() else None
        return {Path(name).stem: key.hex()} if name and key else {}

    def _seconds_by_phase(self) -> dict[str, float]:
        names, times = list(self._clock), list(self._clock.values())
        return {
            f"{name}_seconds": round(end - start, 6) for name, start, end in zip(names, times, times[1:], strict=False)
        }

    def _spawn(
        self, name: str, argv: list[str], *, node: Node | None = None, pass_fds: tuple[int, ...] = (), text: str = ""
    ) -> Child:
        error_fd = self._directory.create_file(f"{self._name}/logs/{name}.stderr")
        pipe = subprocess.PIPE
        if node is not None:
            process = node.spawn(
                argv, env=child_environment(), stdin=pipe, stdout=pipe, stderr=error_fd, pass_fds=pass_fds, cwd="/"
            )
        else:
            environment = lean_environment()
            process = subprocess.Popen(
                argv, env=environment, stdin=pipe, stdout=pipe, stderr=error_fd, pass_fds=pass_fds, cwd="/"
            )
        return Child(name, process, error_fd, text)


def run_variant(job: VariantJob, conductor: Conductor) -> dict[str, Any]:
    """Run one variant in the bubble this process is in. Returns plain JSON values."""
    return VariantRun(job, conductor).run()

"""The story of a run: read the scenario, plan each variant's lab, run it in a bubble, observe, judge, write down.

prepare          scenario file + topology -> `Prepared` (pure but for reading files; nothing is built)
carried_out      each variant in a bubble of its own, then the verdict and the reports -> `Finished`
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from testbed import __version__, timeline
from testbed.aftermath import Afterwards, Mapped, map_tunnel, why_not_merged, write_captures
from testbed.dissection.shown import shown_packets
from testbed.evidence import read_evidence
from testbed.internet import CLIENT, Roles, lab_request, roles_of
from testbed.lab.bubble import Bubble
from testbed.lab.errors import HostCannot
from testbed.lab.host import fair_congestion_control, require_tun
from testbed.lab.model import LabPlan, LabPlanError
from testbed.lab.plan import plan_lab
from testbed.lab.sysctls import with_congestion_control
from testbed.lab.topology import load_topology
from testbed.report.html import render_html
from testbed.report.json import to_json
from testbed.report.junit import render_junit, render_junit_unfinished
from testbed.report.progress import Phase, Progress
from testbed.report.words import action_in_words
from testbed.result import ActionRecord, RunResult, TapRecord, VariantResult
from testbed.rundir import Owner, RunDirectory, check_report_place, write_report
from testbed.scenario.check import TopologyShape
from testbed.scenario.dump import dump_scenario
from testbed.scenario.errors import Mistake, ScenarioErrors, nearest, one_of
from testbed.scenario.load import load_scenario
from testbed.scenario.shipped import find_scenario
from testbed.scenario.values import CLIENT_TUN, Event, Scenario, TopologyRef, TunnelSpec, Variant
from testbed.stopping import Stopped
from testbed.tunnels.programs import missing_program, needed_programs
from testbed.variant import VariantJob, run_variant
from testbed.verdict import Judgement, VariantEvidence
from testbed.verdict.judge import judge

TAP_KEYS = tuple(field.name for field in fields(TapRecord))
_PHASES = {"lab": Phase.LAB, "services": Phase.SERVICES, "tunnel": Phase.TUNNEL}


@dataclass(frozen=True, slots=True)
class Prepared:
    """A checked scenario and what will be built for it, before anything is."""

    scenario: Scenario
    seed: int
    plans: dict[str, LabPlan]
    roles: dict[str, Roles]


@dataclass(frozen=True, slots=True)
class Order:
    """How a person wants a run done. Shape: `out` None makes runs/<time>-<name>/."""

    out: Path | None = None
    keep: bool = False
    quiet: bool = False
    junit: Path | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """What a run left. Shape: `held` is the last variant's bubble, where it was to be kept."""

    result: RunResult
    json_text: str
    directory: Path
    held: Bubble | None


def prepare(name_or_path: str, overrides: Sequence[str], only: Sequence[str], seed: int | None) -> Prepared:
    """Read and check the scenario and plan its variants, or those in `only`. Errors: ScenarioErrors, LabPlanError."""
    scenario = load_scenario(find_scenario(name_or_path), overrides, nodes=_topology_shape)
    unknown = [name for name in only if name not in scenario.variants]
    if unknown:
        known = tuple(scenario.variants)
        words = f"no such variant; there are {', '.join(known)}"
        raise ScenarioErrors(Mistake(scenario.file, 0, 0, name, f"{words}{nearest(name, known)}") for name in unknown)
    chosen = [variant for name, variant in scenario.variants.items() if not only or name in only]
    roles = {variant.name: roles_of(_load(variant.topology)) for variant in chosen}
    seed = scenario.seed if seed is None else seed
    plans = {
        variant.name: plan_lab(_load(variant.topology), lab_request(variant, roles[variant.name], seed))
        for variant in chosen
    }
    if strangers := list(_leases_of_strangers(scenario, plans)):
        raise ScenarioErrors(strangers)
    return Prepared(scenario, seed, plans, roles)


def _leases_of_strangers(scenario: Scenario, plans: Mapping[str, LabPlan]) -> Iterator[Mistake]:
    """Events in which a node that is no neighbour of the client is to give it a lease: its broadcasts end there."""
    for name, plan in plans.items():
        near = [interface.peer for interface in plan.node(CLIENT).interfaces]
        for event in scenario.variants[name].events:
            if event.verb == "lease" and event.target not in near:
                path = f"variants.{name}.events"
                words = f"value {event.target}: gives the client no lease, for they share no link; {one_of(near)}"
                yield Mistake(scenario.file, 0, 0, f"{path}: lease", words)


def describe_plans(prepared: Prepared) -> str:
    """What `--dry-run` prints of each variant: every address, route, rule and sysctl, and what happens when."""
    built = {name: with_congestion_control(plan, fair_congestion_control()) for name, plan in prepared.plans.items()}
    variants = prepared.scenario.variants
    return "\n".join(
        f"variant {name}\n{plan.describe()}{timeline.described(variants[name])}" for name, plan in built.items()
    )


@contextmanager
def carried_out(prepared: Prepared, order: Order) -> Iterator[Finished]:
    """Run the scenario and write its directory; a lab that is kept stays until the block ends.

    Errors: HostCannot, RunDirectoryRefused, LabFailed.
    """
    owner = Owner.of_this_process(dict(os.environ))
    with ExitStack() as stack:
        junit = stack.enter_context(_JunitFile(order.junit, prepared.scenario.name, owner)) if order.junit else None
        _check_host(prepared)
        directory = RunDirectory.create(prepared.scenario.name, owner, order.out)
        stack.callback(directory.close)
        stack.callback(directory.give_to_owner)
        unfinished = stack.enter_context(_Unfinished(directory))
        directory.begin()
        directory.write_text("scenario.yaml", dump_scenario(prepared.scenario))
        progress = Progress(tuple(prepared.plans), sys.stderr, silent=order.quiet, clock=time.monotonic)
        stack.callback(progress.close)
        run = ScenarioRun(prepared, directory, progress, stack, keep=order.keep)
        result = run.result()
        progress.close()
        json_text = to_json(result)
        directory.write_text("result.json", json_text)
        shown = shown_packets(result, Path(f"/proc/self/fd/{directory.fd}"))
        directory.write_text("report.html", render_html(result, shown.packets, shown.lists, shown.inside, shown.others))
        directory.finish()
        unfinished.whole = True
        if junit is not None:
            junit.judged(result)
        directory.give_to_owner()
        yield Finished(result, json_text, directory.path, run.held)


class _JunitFile:
    """A run's JUnit file. From the start it says that the run has no end: what an earlier one left may be green."""

    def __init__(self, path: Path, scenario: str, owner: Owner) -> None:
        check_report_place(path)
        self._path, self._scenario, self._owner = path, scenario, owner
        self._judged = False

    def __enter__(self) -> Self:
        self._write(render_junit_unfinished(self._scenario, "the run did not come to its end"))
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, Exception) and not self._judged:
            self._write(render_junit_unfinished(self._scenario, str(error)))

    def judged(self, result: RunResult) -> None:
        self._write(render_junit(result))
        self._judged = True

    def _write(self, text: str) -> None:
        write_report(self._path, text, self._owner)


class _Unfinished:
    """Once every lab has ended: removes what a run wrote that was stopped, and names what one that failed has left."""

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self.whole = False  # all of a run's files are there

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if self.whole or error is None:
            return
        if isinstance(error, (KeyboardInterrupt, Stopped, HostCannot, OSError)):
            self._directory.discard()
            why = f"{error}: " if isinstance(error, Stopped) else ""
            sys.stderr.write(f"testbed: {why}removed the unfinished run {self._directory.path}\n")
            if isinstance(error, Stopped):
                error.told = True
        else:
            full = ", whose file system is full" if self._directory.is_full else ""
            sys.stderr.write(f"testbed: logs and captures until then are in {self._directory.path}{full}\n")


class ScenarioRun:
    """One run of a prepared scenario: a bubble per variant, then one judgement over all."""

    def __init__(
        self, prepared: Prepared, directory: RunDirectory, progress: Progress, stack: ExitStack, *, keep: bool
    ) -> None:
        self._prepared = prepared
        self._directory = directory
        self._progress = progress
        self._stack = stack
        self._keep = keep
        self.held: Bubble | None = None  # the last variant's bubble, if it is to be kept

    def result(self) -> RunResult:
        """Run every variant, observe, judge. Errors: HostCannot, LabFailed."""
        returned: dict[str, dict[str, Any]] = {}
        evidence: dict[str, VariantEvidence] = {}
        maps: dict[str, Mapped] = {}
        for name in self._prepared.plans:
            try:
                returned[name] = self._run_in_bubble(self._prepared.scenario.variants[name])
            except Exception:
                self._progress.finished(name, ok=False)
                raise
            self._progress.phase(name, Phase.OBSERVE)
            evidence[name] = read_evidence(
                self._directory.fd, self._prepared.scenario.variants[name], self._prepared.roles[name], returned[name]
            )
            maps[name] = map_tunnel(self._directory, evidence[name], returned[name])
            evidence[name] = maps[name].told(evidence[name])
            failed = sum(not record["ok"] for record in returned[name]["actions"])
            reason = f"{failed} of {len(returned[name]['actions'])} actions failed"
            self._progress.finished(name, ok=not failed, reason=reason)
        judgement = judge(evidence.values(), self._prepared.scenario.expectations)
        result = self._summed_up(returned, judgement, maps)
        captures = self._write_captures(result, returned, maps)
        too_large = why_not_merged(result)
        return replace(result, captures=captures, warnings=(*result.warnings, *([too_large] if too_large else [])))

    def _write_captures(
        self, result: RunResult, returned: Mapping[str, dict[str, Any]], maps: Mapping[str, Mapped]
    ) -> tuple[dict[str, Any], ...]:
        before = {tap["name"] for values in returned.values() for tap in values["taps"] if tap["before_tunnel_server"]}
        run = Afterwards(
            result=result,
            plans=self._prepared.plans,
            variants=self._prepared.scenario.variants,
            maps=maps,
            keys={name: values["tunnel_keys"] for name, values in returned.items()},
            before_server=frozenset(before - {CLIENT_TUN}),
        )
        return write_captures(self._directory, run)

    def _run_in_bubble(self, variant: Variant) -> dict[str, Any]:
        keep = self._keep and variant.name == list(self._prepared.plans)[-1]
        job = VariantJob(
            variant=variant,
            plan=self._prepared.plans[variant.name],
            roles=self._prepared.roles[variant.name],
            run_directory=self._directory,
            secret=_canary_secret(self._prepared, variant.name),
            keep=keep,
        )
        bubble = self._stack.enter_context(Bubble())
        returned: dict[str, Any] = bubble.run(
            lambda conductor: run_variant(job, conductor),
            lambda event: self._tell(variant, event),
            keep=keep,
            kept_descriptors=(self._directory.fd,),
        )
        if keep:
            self.held = bubble
        else:
            bubble.close()
        return returned

    def _tell(self, variant: Variant, event: Mapping[str, Any]) -> None:
        if event["event"] == "fault":
            self._progress.fault(variant.name, event["words"])
        elif event["event"] == "phase" and event["phase"] in _PHASES:
            self._progress.phase(variant.name, _PHASES[event["phase"]])
        elif event["event"] == "start":
            ids = [action.id for action in variant.workload]
            if event["id"] in ids:
                action = variant.workload[ids.index(event["id"])]
                words = action_in_words(action)
                self._progress.action(variant.name, ids.index(action.id) + 1, len(ids), words)

    def _summed_up(
        self, returned: Mapping[str, dict[str, Any]], judgement: Judgement, maps: Mapping[str, Mapped]
    ) -> RunResult:
        scenario = self._prepared.scenario
        variants = {
            name: _variant_result(scenario.variants[name], values, judgement, maps[name])
            for name, values in returned.items()
        }
        warnings = [f"{name}: {text}" for name, values in returned.items() for text in values["warnings"]]
        return RunResult(
            scenario={
                "name": scenario.name,
                "title": scenario.title,
                "description": scenario.description,
                "file": scenario.file,
                "topology": _drawn(next(iter(self._prepared.plans.values()), None)),
            },
            seed=self._prepared.seed,
            ok=all(expectation.holds for expectation in judgement.expectations),
            variants=variants,
            expectations=judgement.expectations,
            environment=environment(),
            warnings=(*warnings, *judgement.warnings),
        )


def _drawn(plan: LabPlan | None) -> dict[str, Any]:
    """What a drawing of the lab needs: nodes with their interfaces, whom each leads to, and its addresses."""
    nodes = () if plan is None else plan.nodes
    return {
        node.name: {
            end.name: {"peer": end.peer, "addresses": [text.partition("/")[0] for text in end.addresses]}
            for end in node.interfaces
        }
        for node in nodes
    }


def _canary_secret(prepared: Prepared, variant: str) -> bytes:
    """What the variant's canaries are derived from: the same seed makes the same ones, so that two runs compare."""
    return hashlib.sha256(f"canaries/{prepared.seed}/{prepared.scenario.name}/{variant}".encode()).digest()


def _variant_result(variant: Variant, values: Mapping[str, Any], judgement: Judgement, mapped: Mapped) -> VariantResult:
    tunnel = None
    if variant.tunnel is not None:
        tunnel = {**_tunnel_settings(variant.tunnel), **(values["tunnel"] or {})}
    return VariantResult(
        name=variant.name,
        tunnel=tunnel,
        actions=tuple(ActionRecord(**record) for record in values["actions"]),
        interfaces=tuple(values["interfaces"]),
        routes=tuple(values["routes"]),
        egress=tuple(values["egress"]),
        egress_after=tuple(values["egress_after"]),
        taps=tuple(TapRecord(**{key: record[key] for key in TAP_KEYS}) for record in values["taps"]),
        exposure=judgement.exposures[variant.name],
        leaks=judgement.leaks[variant.name],
        correlations=judgement.correlations[variant.name],
        metrics=values["metrics"] | mapped.metrics,
        ground_truth=mapped.summary,
        events=tuple(values["events"]),
    )


def _tunnel_settings(spec: TunnelSpec) -> dict[str, Any]:
    """The settings as JSON values, without what does not concern the program; a command's files stay out of it."""
    keys = {"wireguard": ("transport", "cipher"), "command": ()}.get(
        spec.client, ("mode", "transport", "cipher", "control")
    )
    settings: dict[str, Any] = {key: getattr(spec, key) for key in ("client", "server", *keys, "dns")}
    settings["routes"] = spec.routes if isinstance(spec.routes, str) else list(spec.routes)
    settings["interface"] = spec.device
    for name, lines in (("options", spec.options), ("command", spec.command and spec.command.argv)):
        if lines and (lines.client or lines.server):
            settings[name] = {"client": list(lines.client), "server": list(lines.server)}
    return settings


def environment() -> dict[str, Any]:
    """Where a result was made: the command, versions that matter, and whether it was root or a user namespace."""
    return {
        **command_line(sys.argv, as_root=os.geteuid() == 0),
        "testbed": __version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "mode": "root" if os.geteuid() == 0 else "user namespace",
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def command_line(argv: Sequence[str], *, as_root: bool) -> dict[str, str]:
    """The command that repeats the run, where this process is the command line's; under another program, nothing."""
    program = Path(argv[0]) if argv else Path()
    if program.name != "testbed" and program.parts[-2:] != ("testbed", "__main__.py"):
        return {}
    return {"command": ("sudo " if as_root else "") + shlex.join(["testbed", *argv[1:]])}


def _check_host(prepared: Prepared) -> None:
    """Find out before anything is built what this host lacks. Errors: HostCannot."""
    tunnels = [variant.tunnel for name in prepared.plans if (variant := prepared.scenario.variants[name]).tunnel]
    for program in sorted({event.argv[0] for name in prepared.plans for event in _runs(prepared, name)}):
        if fix := missing_program(program):
            raise HostCannot(f"an event of the scenario runs {program}, which is not installed", fix)
    if not tunnels:
        return
    require_tun()
    for program in sorted({name for tunnel in tunnels if tunnel for name in needed_programs(tunnel)}):
        fix = missing_program(program)
        if fix:
            raise HostCannot(f"the scenario's tunnel needs {program}, which is not installed", fix)


def _runs(prepared: Prepared, variant: str) -> Iterator[Event]:
    return (event for event in prepared.scenario.variants[variant].events if event.argv)


def _topology_shape(reference: TopologyRef) -> TopologyShape:
    """What the scenario's check asks of a topology. Errors: ValueError, as the check expects."""
    try:
        topo = _load(reference)
    except LabPlanError as error:
        raise ValueError(str(error)) from error
    plan = plan_lab(topo)
    addresses = {
        address.partition("/")[0]: node.name
        for node in plan.nodes
        for interface in node.interfaces
        for address in interface.addresses
    }
    return TopologyShape(frozenset(node.name for node in plan.nodes), addresses)


def _load(reference: TopologyRef) -> Any:
    return load_topology(reference.name, reference.params)

"""The command line: one function a command. Exit codes are in `exits`.

Heavy parts are imported by the command that needs them, so that `--help` stays quick.
"""

from __future__ import annotations

import gc
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from testbed import __version__
from testbed.exits import Exit, errors_become_exit_codes, fail
from testbed.output import open_standard_streams, print_json, print_json_parts, print_text, show_result
from testbed.stopping import heed_signals

if TYPE_CHECKING:
    from testbed.lab.bubble import Bubble


app = typer.Typer(
    name="testbed",
    help="A small Internet, a real VPN tunnel in it, and proof of what an observer learned.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ScenarioArgument = Annotated[
    str, typer.Argument(metavar="SCENARIO", help="A scenario file, or the name of a shipped one.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, such as tunnel.dns=isp. Repeatable."),
]
LabOption = Annotated[
    str | None, typer.Option("--lab", metavar="ID", help="Which lab, if several run (see `testbed ps`).")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")]


@app.command()
def run(
    scenario: ScenarioArgument,
    variant: Annotated[list[str] | None, typer.Option(help="Run only this variant. Repeatable.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write here instead of runs/<time>-<name>/.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**63 - 1, help="Use this seed instead of the scenario's.")
    ] = None,
    overrides: SetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan of each variant and stop.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Hold the last variant's lab until Ctrl-C.")] = False,
    as_json: JsonOption = False,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the expectations as JUnit XML.")
    ] = None,
) -> None:
    """Run a scenario and show what each observer learned, with the packets that prove it."""
    from testbed import run as running

    prepared = running.prepare(scenario, overrides or [], variant or [], seed)
    if dry_run:
        print_text(running.describe_plans(prepared))
        return
    order = running.Order(out=out, keep=keep, quiet=as_json, junit=junit)
    with running.carried_out(prepared, order) as finished:
        if as_json:
            print_text(finished.json_text)
        else:
            show_result(finished.result, finished.directory)
        if finished.held is not None:
            _hold(finished.held)
    raise typer.Exit(Exit.OK if finished.result.ok else Exit.EXPECTATION_FAILED)


@app.command()
def check(scenario: ScenarioArgument, overrides: SetOption = None) -> None:
    """Validate a scenario; builds nothing and needs no privilege."""
    from testbed import run as running

    prepared = running.prepare(scenario, overrides or [], [], None)
    checked, names = prepared.scenario, ", ".join(prepared.plans)
    print_text(f"{checked.file}: no mistake; variants {names}; {len(checked.expectations)} expectations\n")


@app.command("list")
def list_shipped(as_json: JsonOption = False) -> None:
    """The scenarios that ship."""
    from testbed.scenario.shipped import list_scenarios

    shipped = list_scenarios()
    if as_json:
        print_json([{"name": entry.name, "title": entry.title, "file": str(entry.path)} for entry in shipped])
        return
    width = max((len(entry.name) for entry in shipped), default=0)
    print_text("".join(f"{entry.name:<{width}}  {entry.title}\n" for entry in shipped))


@app.command()
def observe(
    capture: Annotated[Path, typer.Argument(metavar="CAPTURE", help="A pcapng or pcap file.")],
    as_json: JsonOption = False,
) -> None:
    """What an observer reads from any capture file."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a large capture needs numpy, and numpy no threads
    from testbed.observer import observe as observe_capture
    from testbed.report.observation import observation_text

    if not capture.is_file():
        what = "is a directory" if capture.is_dir() else "is no file" if capture.exists() else "no such file"
        fail(Exit.BAD_INPUT, f"{capture}: {what}; give a pcapng or pcap capture")
    _check_capture(capture)
    observation = observe_capture(capture, keep_streams=False)
    gc.freeze()  # nothing of it is garbage: no search for any when this ends, which takes long after a large capture
    if as_json:
        print_json_parts(observation.parts())
    else:
        print_text(observation_text(observation))


@app.command()
def show(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The directory of an earlier run.")],
    as_json: JsonOption = False,
) -> None:
    """Show a stored run again."""
    from testbed.report.json import ResultError, from_json
    from testbed.rundir import why_unfinished

    if found := why_unfinished(directory):
        fail(Exit.BAD_INPUT, f"{directory}: {found}")
    stored = directory / "result.json"
    if not stored.is_file():
        what = "holds no result.json, as a finished run does" if directory.is_dir() else "no such directory"
        fail(Exit.BAD_INPUT, f"{directory}: {what}; give the directory that a run wrote")
    octets = stored.read_bytes()
    try:
        result = from_json(octets)
    except ResultError as error:
        fail(Exit.BAD_INPUT, f"{stored}: {error}")
    if as_json:
        print_text(octets.decode())
    else:
        show_result(result, directory)


@app.command()
def shell(node: Annotated[str, typer.Argument(help="The node to enter.")] = "client", lab: LabOption = None) -> None:
    """A shell in a node of a running lab."""
    _enter(lab, node, [os.environ.get("SHELL") or "/bin/sh"])


@app.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def execute(
    node: Annotated[str, typer.Argument(help="The node to run in.")],
    command: Annotated[list[str], typer.Argument(metavar="COMMAND...", help="The command and its arguments.")],
    lab: LabOption = None,
) -> None:
    """Run a command in a node of a running lab; its exit code becomes ours."""
    # Whether the separator before the command comes through depends on where it stands.
    _enter(lab, node, command[1:] if command[0] == "--" and command[1:] else command)


@app.command()
def ps(as_json: JsonOption = False) -> None:
    """The labs that run now."""
    from testbed.lab.registry import list_labs

    labs = list_labs()
    if as_json:
        print_json([{"id": lab.lab_id, "uid": lab.uid} for lab in labs])
    else:
        print_text("".join(f"{lab.lab_id}  (uid {lab.uid})\n" for lab in labs) or "no lab is running\n")


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """What this host can do, and the command that mends what it cannot."""
    from dataclasses import asdict

    from testbed.doctor import can_run, examine, render

    checks = examine()
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        print_text(render(checks))
    raise typer.Exit(Exit.OK if can_run(checks) else Exit.HOST_CANNOT)


@app.command()
def bench(
    contenders: Annotated[
        list[str] | None, typer.Argument(metavar="[CONTENDER]...", help="Which tunnels, or `pairs`; see --list.")
    ] = None,
    own_server: Annotated[
        str | None, typer.Option(metavar="COMMAND", help="Your own VPN's server, as it runs in the server's node.")
    ] = None,
    own_client: Annotated[
        str | None, typer.Option(metavar="COMMAND", help="Its client; {server} and {client} are the outer addresses.")
    ] = None,
    own_address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="The server's IPv4 address inside your tunnel.")
    ] = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(metavar="GROUP", help="tcp, cost, packets, trips, links or no-gro. Repeatable; all of them."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="How often each is measured, in turn.")] = 3,
    seconds: Annotated[int, typer.Option(min=1, max=600, help="How long each TCP measurement takes.")] = 2,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write bench.json, bench.txt, bench.md and bench.svg there.")
    ] = None,
    limit: Annotated[
        float | None, typer.Option(min=0.1, metavar="MINUTES", help="Begin nothing that would take longer than that.")
    ] = None,
    as_json: JsonOption = False,
    list_them: Annotated[bool, typer.Option("--list", help="Say which tunnels can be measured, and stop.")] = False,
) -> None:
    """Tunnels side by side, in one run: throughput, packets a second, round trips, CPU, memory, bad lines.

    A VPN of your own is two commands that stay in the foreground, without a shell; both run in this directory, each in
    its own node. To paste, two openvpn that share a key (docs/benchmarks.md has WireGuard, with a script at each end):

    \b
    openvpn --genkey secret bench.key
    sudo testbed bench openvpn --rounds 1 --own-address 10.9.0.1 \\
      --own-server 'openvpn --dev tun --secret bench.key --cipher AES-256-CBC
                    --ifconfig 10.9.0.1 10.9.0.2' \\
      --own-client 'openvpn --dev tun --secret bench.key --cipher AES-256-CBC
                    --ifconfig 10.9.0.2 10.9.0.1 --remote {server}'
    """
    from testbed.bench import command
    from testbed.rundir import check_output_directory

    if list_them:
        print_text(command.listing())
        return
    if out is not None:
        check_output_directory(out)
    own = (own_server, own_client, own_address)
    try:
        order = command.order(contenders or [], own, measure or [], rounds, seconds, limit)
    except command.BadOrder as error:
        fail(Exit.BAD_INPUT, str(error))
    finished = command.carry_out(order, out, quiet=as_json)
    print_text(finished.json_text if as_json else finished.text)
    raise typer.Exit(Exit.LAB_FAILED if finished.result.problems else Exit.OK)


@app.command()
def lesson(
    name: Annotated[
        str | None, typer.Argument(metavar="[LESSON]", help="A lesson; without it, which there are.")
    ] = None,
    grade: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Grade a class: a CSV file with a line of letters per pupil.")
    ] = None,
    sheet: Annotated[bool, typer.Option("--sheet", help="Print the questions to hand out; runs nothing.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the run here instead of runs/<time>-<name>/.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Predict what an observer sees, then see it: lessons on packets captured just now."""
    from testbed.lesson import command
    from testbed.lesson.answers import LessonBroken
    from testbed.lesson.grade import BadAnswers

    if name is None:
        if grade or sheet or out:
            fail(Exit.BAD_INPUT, "say which lesson; `testbed lesson` lists them")
        print_text(command.listing(as_json=as_json))
        return
    if sheet and (grade or as_json):
        fail(Exit.BAD_INPUT, "--sheet prints the questions and nothing else: leave out --grade and --json")
    if as_json and grade is None:
        fail(Exit.BAD_INPUT, "--json prints the grades of a class: give --grade FILE too")
    prepared = command.prepare_lesson(name)
    if sheet:
        print_text(command.questions(prepared))
        return
    try:
        pupils = command.class_answers(grade, prepared) if grade else ()
        with command.carried_out(prepared, out, quiet=as_json) as ready:
            if grade is None:
                command.taught(ready)
            else:
                print_text(command.graded(ready, pupils, as_json=as_json))
    except BadAnswers as error:
        fail(Exit.BAD_INPUT, str(error))
    except LessonBroken as error:
        fail(Exit.EXPECTATION_FAILED, str(error))


@app.command()
def schema() -> None:
    """The JSON Schema of the scenario file."""
    from testbed.scenario.schema import scenario_schema

    print_json(scenario_schema())


def _version(wanted: bool) -> None:
    if wanted:
        print_text(f"testbed {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A small Internet, a real VPN tunnel in it, and proof of what an observer learned."""


def main(*, interrupts: bool = False) -> NoReturn:
    """Run a command and exit with its code; `interrupts` says whether a Ctrl-C is heeded (not under nohup)."""
    open_standard_streams()
    with errors_become_exit_codes():
        heed_signals(interrupts=interrupts)
        app()
    raise SystemExit(Exit.OK)


def _hold(bubble: Bubble) -> None:
    """Keep a lab until Ctrl-C; the words go to stderr, so that --json stays clean."""
    sys.stdout.flush()
    sys.stderr.write(
        f"testbed: lab {bubble.lab_id} is held. In another terminal: testbed shell client, testbed exec web ss -tln, "
        "testbed ps. Ctrl-C ends it.\n"
    )
    with suppress(KeyboardInterrupt):
        bubble.hold()


def _enter(lab: str | None, node: str, argv: list[str]) -> NoReturn:
    from testbed.lab.registry import exec_in, list_labs

    running = [record.lab_id for record in list_labs()]
    if lab is None and len(running) != 1:
        if running:
            fail(Exit.BAD_INPUT, f"{len(running)} labs run ({', '.join(running)}): say which with --lab")
        fail(Exit.BAD_INPUT, "no lab is running; start one with: testbed run SCENARIO --keep")
    raise SystemExit(exec_in(lab or running[0], node, argv))


def _check_capture(capture: Path) -> None:
    """Refuse what is no capture at all; a damaged one is read as far as it goes."""
    from testbed.capture.reader import begins_capture

    try:
        with capture.open("rb") as file:
            first = file.read(4)
    except PermissionError:
        raise
    except OSError as error:
        fail(Exit.BAD_INPUT, f"{capture}: cannot be read: {error.strerror or error}; give a capture")
    if not begins_capture(first):
        what = "neither pcapng nor pcap" if first else "the file is empty"
        fail(Exit.BAD_INPUT, f"{capture}: {what}; give a capture")

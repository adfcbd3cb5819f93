"""The command line: one function a command, and the one place that turns errors into exit codes.

Exit codes: 0 every expectation holds · 1 one does not · 2 bad scenario or usage · 3 this host cannot run it (with the
fix) · 4 the lab failed · 130 interrupted. Heavy parts are imported by the command that needs them, so that `--help`
stays quick.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from testbed import __version__

if TYPE_CHECKING:
    from testbed.lab.bubble import Bubble
    from testbed.result import RunResult


# Errors that are the machine's: not a fault of this program, whose traceback would help.
_OF_THE_HOST = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.EROFS,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
)


class Exit(IntEnum):
    """What a command's exit code says."""

    OK = 0
    EXPECTATION_FAILED = 1
    BAD_INPUT = 2
    HOST_CANNOT = 3
    LAB_FAILED = 4
    INTERRUPTED = 130


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
        _print(running.describe_plans(prepared))
        return
    order = running.Order(out=out, keep=keep, quiet=as_json, junit=junit)
    with running.carried_out(prepared, order) as finished:
        if as_json:
            _print(finished.json_text)
        else:
            _show(finished.result, finished.directory)
        if finished.held is not None:
            _hold(finished.held)
    raise typer.Exit(Exit.OK if finished.result.ok else Exit.EXPECTATION_FAILED)


@app.command()
def check(scenario: ScenarioArgument, overrides: SetOption = None) -> None:
    """Validate a scenario; builds nothing and needs no privilege."""
    from testbed import run as running

    prepared = running.prepare(scenario, overrides or [], [], None)
    checked, names = prepared.scenario, ", ".join(prepared.plans)
    _print(f"{checked.file}: no mistake; variants {names}; {len(checked.expectations)} expectations\n")


@app.command("list")
def list_shipped(as_json: JsonOption = False) -> None:
    """The scenarios that ship."""
    from testbed.scenario.shipped import list_scenarios

    shipped = list_scenarios()
    if as_json:
        _print_json([{"name": entry.name, "title": entry.title, "file": str(entry.path)} for entry in shipped])
        return
    width = max((len(entry.name) for entry in shipped), default=0)
    _print("".join(f"{entry.name:<{width}}  {entry.title}\n" for entry in shipped))


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
        _fail(Exit.BAD_INPUT, f"{capture}: {what}; give a pcapng or pcap capture")
    _check_capture(capture)
    observation = observe_capture(capture)
    gc.freeze()  # nothing of it is garbage: no search for any when this ends, which takes long after a large capture
    if as_json:
        _print_json(observation.to_dict())
    else:
        _print(observation_text(observation))


@app.command()
def show(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The directory of an earlier run.")],
    as_json: JsonOption = False,
) -> None:
    """Show a stored run again."""
    from testbed.report.json import ResultError, from_json

    stored = directory / "result.json"
    if not stored.is_file():
        what = "holds no result.json, as a finished run does" if directory.is_dir() else "no such directory"
        _fail(Exit.BAD_INPUT, f"{directory}: {what}; give the directory that a run wrote")
    octets = stored.read_bytes()
    try:
        result = from_json(octets)
    except ResultError as error:
        _fail(Exit.BAD_INPUT, f"{stored}: {error}")
    if as_json:
        _print(octets.decode())
    else:
        _show(result, directory)


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
        _print_json([{"id": lab.lab_id, "uid": lab.uid} for lab in labs])
    else:
        _print("".join(f"{lab.lab_id}  (uid {lab.uid})\n" for lab in labs) or "no lab is running\n")


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """What this host can do, and the command that mends what it cannot."""
    from dataclasses import asdict

    from testbed.doctor import can_run, examine, render

    checks = examine()
    if as_json:
        _print_json([asdict(check) for check in checks])
    else:
        _print(render(checks))
    raise typer.Exit(Exit.OK if can_run(checks) else Exit.HOST_CANNOT)


@app.command()
def bench(
    contenders: Annotated[
        list[str] | None, typer.Argument(metavar="[CONTENDER]...", help="Which tunnels; see --list.")
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
        list[str] | None, typer.Option(metavar="GROUP", help="tcp, cost, packets or links. Repeatable; all of them.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="How often each is measured, in turn.")] = 3,
    seconds: Annotated[int, typer.Option(min=1, max=600, help="How long each TCP measurement takes.")] = 2,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write bench.json, bench.txt and bench.svg there.")
    ] = None,
    as_json: JsonOption = False,
    list_them: Annotated[bool, typer.Option("--list", help="Say which tunnels can be measured, and stop.")] = False,
) -> None:
    """Tunnels side by side, in one run: throughput, packets a second, round trips, CPU, memory, bad lines."""
    from testbed.bench import command
    from testbed.rundir import check_output_directory

    if list_them:
        _print(command.listing())
        return
    if out is not None:
        check_output_directory(out)
    try:
        order = command.order(contenders or [], (own_server, own_client, own_address), measure or [], rounds, seconds)
    except command.BadOrder as error:
        _fail(Exit.BAD_INPUT, str(error))
    finished = command.carry_out(order, out, quiet=as_json)
    _print(finished.json_text if as_json else finished.text)
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
            _fail(Exit.BAD_INPUT, "say which lesson; `testbed lesson` lists them")
        _print(command.listing(as_json=as_json))
        return
    if sheet and (grade or as_json):
        _fail(Exit.BAD_INPUT, "--sheet prints the questions and nothing else: leave out --grade and --json")
    if as_json and grade is None:
        _fail(Exit.BAD_INPUT, "--json prints the grades of a class: give --grade FILE too")
    prepared = command.prepare_lesson(name)
    if sheet:
        _print(command.questions(prepared))
        return
    try:
        pupils = command.class_answers(grade, prepared) if grade else ()
        with command.carried_out(prepared, out, quiet=as_json) as ready:
            if grade is None:
                command.taught(ready)
            else:
                _print(command.graded(ready, pupils, as_json=as_json))
    except BadAnswers as error:
        _fail(Exit.BAD_INPUT, str(error))
    except LessonBroken as error:
        _fail(Exit.EXPECTATION_FAILED, str(error))


@app.command()
def schema() -> None:
    """The JSON Schema of the scenario file."""
    from testbed.scenario.schema import scenario_schema

    _print_json(scenario_schema())


def _version(wanted: bool) -> None:
    if wanted:
        _print(f"testbed {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A small Internet, a real VPN tunnel in it, and proof of what an observer learned."""


def main(on_interrupt: Callable[[int, FrameType | None], object] | None = None) -> NoReturn:
    """Run a command and exit with its code; from here on a Ctrl-C is answered by `on_interrupt`, if given."""
    _open_standard_streams()
    with _errors_become_exit_codes():
        if on_interrupt is not None:
            signal.signal(signal.SIGINT, on_interrupt)
        app()
    raise SystemExit(Exit.OK)


@contextmanager
def _errors_become_exit_codes() -> Iterator[None]:
    """Turn the errors a person can act on into one message and a code; others keep their traceback."""
    try:
        yield
    except KeyboardInterrupt:
        _fail(Exit.INTERRUPTED, "interrupted")
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        _fail(code, _in_words(error))


@contextmanager
def _reader_may_leave() -> Iterator[None]:
    """Print all of it, or as much as the reader of a pipe wants (`| head`): what was found stays the exit code."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _print_nowhere()
    except OSError:
        _print_nowhere()  # else Python tries the same again at its end
        raise


def _print_nowhere() -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def _open_standard_streams() -> None:
    """Put /dev/null where a service manager closed one of the standard three, or other files get their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))


def _exit_code(error: Exception) -> Exit | None:
    from testbed.children import ChildFailed
    from testbed.lab.errors import HostCannot, LabFailed, NoSuchLab
    from testbed.lab.model import LabPlanError
    from testbed.report.json import ResultError
    from testbed.rundir import RunDirectoryRefused
    from testbed.scenario.errors import ScenarioErrors

    if isinstance(error, (ScenarioErrors, LabPlanError, RunDirectoryRefused, ResultError, NoSuchLab)):
        return Exit.BAD_INPUT
    if isinstance(error, PermissionError) and error.filename:
        return Exit.BAD_INPUT
    if isinstance(error, HostCannot):
        return Exit.HOST_CANNOT
    if isinstance(error, (LabFailed, ChildFailed)) or (isinstance(error, OSError) and error.errno in _OF_THE_HOST):
        return Exit.LAB_FAILED
    return None


def _in_words(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else f"cannot go on: {error.strerror}"
    return str(error)


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
            _fail(Exit.BAD_INPUT, f"{len(running)} labs run ({', '.join(running)}): say which with --lab")
        _fail(Exit.BAD_INPUT, "no lab is running; start one with: testbed run SCENARIO --keep")
    raise SystemExit(exec_in(lab or running[0], node, argv))


def _show(result: RunResult, directory: Path) -> None:
    from rich.console import Console

    from testbed.report.terminal import render_terminal

    class Terminal(Console):
        def on_broken_pipe(self) -> None:
            self.quiet = True  # rich would exit with code 1, which means that an expectation does not hold

    with _reader_may_leave():
        render_terminal(result, Terminal(highlight=False), html_path=str(directory / "report.html"))


def _print(text: str) -> None:
    with _reader_may_leave():
        sys.stdout.write(text)


def _print_json(value: object) -> None:
    _print(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _fail(code: Exit, message: str) -> NoReturn:
    """End with one message; what steers a terminal, such as an escape in a file's name, is shown as its code."""
    from testbed.report.text import visible

    plain = "\n".join(visible(line) for line in message.split("\n"))
    sys.stderr.write(f"testbed: {plain}\n")
    raise SystemExit(code)


def _check_capture(capture: Path) -> None:
    """Refuse what is no capture at all; a damaged one is read as far as it goes."""
    from testbed.capture.reader import begins_capture

    with capture.open("rb") as file:
        first = file.read(4)
    if not begins_capture(first):
        what = "neither pcapng nor pcap" if first else "the file is empty"
        _fail(Exit.BAD_INPUT, f"{capture}: {what}; give a capture")

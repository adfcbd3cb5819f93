"""What stands behind `testbed bench`: the words of the command line become an order, the result becomes files."""

from __future__ import annotations

import difflib
import ipaddress
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.bench.contenders import CONTENDERS, DEFAULT, SETS, Contender, own_contender
from testbed.bench.model import BASELINE, GROUPS, BenchResult
from testbed.bench.plot import bench_plot
from testbed.bench.run import Order, bench, missing_packages
from testbed.bench.text import bench_markdown, bench_text
from testbed.lab.errors import HostCannot
from testbed.rundir import Owner
from testbed.tunnels.programs import find_program

_NARROWEST, _WIDEST = 40, 120
OWN_OPTIONS = ("--own-server", "--own-client", "--own-address")


class BadOrder(ValueError):
    """Words of the command line that make no sense; says which, and what would."""


@dataclass(frozen=True, slots=True)
class Finished:
    result: BenchResult
    text: str
    json_text: str


def order(
    names: Sequence[str],
    own: tuple[str | None, str | None, str | None],
    groups: Sequence[str],
    rounds: int,
    seconds: int,
    limit_minutes: float | None = None,
) -> Order:
    """The order that these words mean. Shape: `own` as `OWN_OPTIONS`. Errors: BadOrder."""
    for group in groups:
        if group not in GROUPS:
            raise BadOrder(f"--measure {group}: {_unknown(group, list(GROUPS))}")
    has_own = any(own)
    wanted = list(dict.fromkeys([BASELINE, *_spelled_out(names or ([] if has_own else DEFAULT))]))
    contenders = [CONTENDERS[name] for name in wanted]
    contenders += [_own(own, tuple(reversed(wanted)))] if has_own else []
    limit_s = None if limit_minutes is None else limit_minutes * 60
    return Order(tuple(contenders), tuple(dict.fromkeys(groups or GROUPS)), rounds, seconds, limit_s)


def _spelled_out(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        if name not in CONTENDERS and name not in SETS:
            raise BadOrder(f"no contender is called {name!r}: {_unknown(name, [*CONTENDERS, *SETS])}")
        yield from SETS.get(name, (name,))


def _own(own: tuple[str | None, str | None, str | None], rivals: tuple[str, ...]) -> Contender:
    server, client, address = own
    if not (server and client and address):
        lacking = [option for option, value in zip(OWN_OPTIONS, own, strict=True) if not value]
        raise BadOrder(f"a VPN of your own needs all of {', '.join(OWN_OPTIONS)}; missing: {', '.join(lacking)}")
    try:
        ipaddress.IPv4Address(address)
    except ValueError:
        raise BadOrder(f"--own-address {address}: give the server's IPv4 address inside the tunnel") from None
    try:
        return own_contender(server, client, address, os.getcwd(), rivals)
    except ValueError as error:
        raise BadOrder(f"the command of your own VPN cannot be split into words: {error}") from None


def _unknown(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, 1)
    return (f"did you mean {near[0]}? " if near else "") + f"Known are {', '.join(known)}"


def listing() -> str:
    """Every contender, what it is, and what it lacks here."""
    width = max(len(name) for name in (*CONTENDERS, *SETS))
    lines = []
    for name, entry in CONTENDERS.items():
        packages = missing_packages(entry)
        lacks = f"  (missing: sudo apt-get install {' '.join(packages)})" if packages else ""
        lines.append(f"{name:<{width}}  {entry.title}{lacks}\n")
    lines += [f"{name:<{width}}  {', '.join(members)}\n" for name, members in SETS.items()]
    return "".join(lines) + f"measured unless named: {', '.join(DEFAULT)}\n"


def carry_out(wanted: Order, out: Path | None, *, quiet: bool) -> Finished:
    """Measure, and write the files. Errors: HostCannot, LabFailed; OSError if a file cannot be written."""
    if find_program("iperf3") is None:
        raise HostCannot("iperf3, which makes the TCP streams, is not installed", fix="sudo apt-get install iperf3")
    result = bench(wanted, _silent if quiet else _progress)
    width = max(_NARROWEST, min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns))
    json_text = json.dumps(result.to_dict(), indent=2, ensure_ascii=False) + "\n"
    finished = Finished(result, bench_text(result, width), json_text)
    if out is not None:
        files = {
            "bench.json": finished.json_text,
            "bench.txt": bench_text(result),
            "bench.md": bench_markdown(result),
            "bench.svg": bench_plot(result),
        }
        for name, text in files.items():
            _write(out / name, text)
    return finished


def _write(path: Path, text: str) -> None:
    flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    owner, new = Owner.of_this_process(dict(os.environ)), not path.exists()
    with open(os.open(path, flags, 0o644), "w", encoding="utf-8") as file:
        if owner.hand_over and new:
            os.fchown(file.fileno(), owner.uid, owner.gid)
        file.write(text)


def _silent(_: str) -> None:
    pass


def _progress(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()

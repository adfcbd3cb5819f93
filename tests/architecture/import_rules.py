"""Reads who imports whom, and who reaches for socket, clock, randomness or another process, from the source alone.

Every module of the project is parsed, never imported: `references` lists each thing it imports or uses by dotted name
(`time.monotonic`, `testbed.facts.Kind`), with aliases resolved; a rule is a function of such references. Imports
inside functions and under TYPE_CHECKING count too: a part that knows another's types knows the part.

Does not see what a name assembled at run time imports. Pure modules may therefore import dynamically only from below
their own package, as `import_module(f"{__name__}.part")` visibly does.

Sources: docs/ARCHITECTURE.md "Who may import whom".
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT_PACKAGES = ("testbed", "vpn", "topologies", "scenarios")

# Is a module pure? The longest name that it is or lies below decides; what is not listed is not pure.
PURITY = {
    "vpn": True,
    "vpn.driver": False,
    "vpn.__main__": False,
    "vpn.cli": False,
    "vpn.config.load": False,
    "vpn.pki": False,
    "testbed.facts": True,
    "testbed.result": True,
    "testbed.scenario": True,
    "testbed.lab.plan": True,
    "testbed.lab.draft": True,
    "testbed.lab.links": True,
    "testbed.lab.impair.model": True,
    "testbed.lab.impair.options": True,
    "testbed.lab.impair.shaper": True,
    "testbed.lab.model": True,
    "testbed.lab.sysctls": True,
    "testbed.capture.pcapng": True,
    "testbed.capture.reader": True,
    "testbed.capture.source": True,
    "testbed.capture.columns": True,
    "testbed.observer": True,
    "testbed.verdict": True,
    "testbed.ground_truth": True,
    "testbed.annotate": True,
    "testbed.capture.merge": True,
    "testbed.report": True,
}

# What a pure module may not touch: whole modules, or single names of modules that are harmless otherwise.
WORLD = (
    *(
        "socket",
        "socketserver",
        "select",
        "selectors",
        "asyncio",
        "ssl",
        "http.client",
        "http.server",
        "urllib.request",
    ),
    *("subprocess", "multiprocessing", "concurrent", "threading", "signal", "pty", "fcntl", "ctypes"),
    *("importlib.import_module", "importlib.util", "importlib.machinery", "__import__"),
    *("random", "secrets", "uuid", "tempfile", "numpy.random", "cryptography.fernet"),
    *("time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "time.perf_counter", "time.perf_counter_ns"),
    *("time.clock_gettime", "time.clock_gettime_ns", "time.process_time", "time.sleep"),
    *("time.localtime", "time.ctime"),
    *("datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today", "datetime.date.today"),
    *("os.urandom", "os.getrandom", "os.fork", "os.forkpty", "os.system", "os.popen", "os.kill", "os.environ"),
    *(
        "os.execv",
        "os.execve",
        "os.execvp",
        "os.execvpe",
        "os.posix_spawn",
        "os.posix_spawnp",
        "os.setns",
        "os.unshare",
    ),
    *("pyroute2", "scapy", "httpx", "hypercorn", "mininet.net", "mininet.node", "mininet.util"),
)
MAKES_KEYS = ("generate_key", "generate_private_key", "generate_parameters")

# Packages that pure modules lie in: importing the module runs them, so they must import nothing (a test looks).
WAY_TO_PURE = ("testbed", "testbed.lab", "testbed.lab.impair", "testbed.capture")
CAPTURE_FILES = tuple(f"testbed.capture.{part}" for part in ("pcapng", "reader", "source", "columns"))
OBSERVER_MAY_KNOW = ("testbed.facts", *CAPTURE_FILES, "testbed.observer")
TOPOLOGY_TOP_LEVEL = ("mininet.topo", *(sys.stdlib_module_names - {"distutils"}))  # gone in Python 3.12
ONE_WRAPPER = {
    "pyroute2": ("testbed.lab.netlink", "vpn.driver.netlink"),
    "OpenSSL": ("vpn.tls",),
}


@dataclass(frozen=True, slots=True)
class Reference:
    """One use of something by dotted name. `imported` tells an import from a use of what was imported."""

    name: str
    line: int
    imported: bool
    at_top: bool = True


@dataclass(frozen=True, slots=True)
class Module:
    name: str
    path: Path
    references: tuple[Reference, ...]
    is_package: bool = False


@dataclass(frozen=True, slots=True)
class Violation:
    path: Path
    line: int
    rule: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}"


def within(name: str, roots: Iterable[str]) -> bool:
    """Whether a dotted name is one of the roots or lies below one."""
    return any(name == root or name.startswith(root + ".") for root in roots)


def find_modules(root: Path) -> list[Module]:
    """Every module of the project's packages under `root`, parsed."""
    found = []
    for package in PROJECT_PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            found.append(read_module(name, path.relative_to(root), path.read_text("utf-8"), is_package=is_package))
    return found


def read_module(name: str, path: Path, source: str, *, is_package: bool = False) -> Module:
    tree = ast.parse(source, str(path))
    package = name if is_package else name.rpartition(".")[0]
    return Module(name, path, tuple(_references(tree, package)), is_package)


def _references(tree: ast.Module, package: str) -> Iterator[Reference]:
    top = set(map(id, tree.body))
    aliases: dict[str, str] = {"__import__": "__import__"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                aliases[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
                yield Reference(alias.name, node.lineno, imported=True, at_top=id(node) in top)
        elif isinstance(node, ast.ImportFrom):
            source = _absolute(node, package)
            for alias in node.names:
                aliases[alias.asname or alias.name] = f"{source}.{alias.name}"
                yield Reference(f"{source}.{alias.name}", node.lineno, imported=True, at_top=id(node) in top)
    lazy = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call) and _stays_below_itself(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and id(node) not in lazy:
            dotted = _dotted(node)
            head, _, rest = dotted.partition(".")
            if head in aliases:
                yield Reference(f"{aliases[head]}.{rest}".rstrip("."), node.lineno, imported=False)
            elif isinstance(node, ast.Attribute) and node.attr in MAKES_KEYS:
                yield Reference(node.attr, node.lineno, imported=False)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    base = package.split(".")
    base = base[: len(base) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


def _stays_below_itself(call: ast.Call) -> bool:
    """Whether a call's argument is f"{__name__}.…"."""
    match call.args:
        case [
            ast.JoinedStr(values=[ast.FormattedValue(value=ast.Name(id="__name__")), ast.Constant(value=str(text)), *_])
        ]:
            return text.startswith(".")
    return False


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = _dotted(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return ""


def is_pure(name: str) -> bool:
    while name and name not in PURITY:
        name = name.rpartition(".")[0]
    return PURITY.get(name, False)


def violations(modules: Iterable[Module]) -> list[Violation]:
    """Everything in the modules that ARCHITECTURE.md forbids, in order of file and line."""
    known = {module.name for module in modules}
    found = {
        Violation(module.path, reference.line, rule)
        for module in modules
        for reference in module.references
        for rule in _broken_rules(module, reference, known)
    }
    return sorted(found, key=lambda violation: (str(violation.path), violation.line, violation.rule))


def _broken_rules(module: Module, reference: Reference, known: set[str]) -> Iterator[str]:
    if reference.imported:
        yield from _broken_import_rules(module, reference, known)
    if is_pure(module.name):
        if within(reference.name, WORLD):
            yield f"{module.name} is pure and may not use {reference.name}"
        if reference.name.rpartition(".")[2] in MAKES_KEYS:
            yield f"{module.name} is pure and may not draw keys with {reference.name}"


def _broken_import_rules(module: Module, reference: Reference, known: set[str]) -> Iterator[str]:
    target = _module_of(reference.name, known)
    if within(module.name, ["vpn"]) and within(target, ["testbed"]):
        yield f"vpn never imports testbed: {target}"
    if within(module.name, ["testbed"]) and within(target, ["vpn"]):
        yield f"testbed starts vpn as a process and never imports it: {target}"
    is_project = within(reference.name, PROJECT_PACKAGES)
    if within(module.name, ["testbed.observer"]) and is_project and not within(reference.name, OBSERVER_MAY_KNOW):
        yield f"the observer has only the wire and may not know {reference.name}"
    if is_pure(module.name) and target in known and not is_pure(target) and target not in WAY_TO_PURE:
        yield f"{module.name} is pure and may not import {target}, which is not"
    if within(module.name, ["topologies"]) and reference.at_top and not within(reference.name, TOPOLOGY_TOP_LEVEL):
        yield f"a topology file imports only mininet.topo and the standard library at the top, not {reference.name}"
    for library, wrappers in ONE_WRAPPER.items():
        if within(reference.name, [library]) and module.name not in wrappers:
            yield f"{library} is imported in {' and '.join(wrappers)} only"


def _module_of(name: str, known: set[str]) -> str:
    """The project module that a dotted name leads to: `testbed.facts` for `testbed.facts.Kind`."""
    while name and name not in known and "." in name:
        name = name.rpartition(".")[0]
    return name

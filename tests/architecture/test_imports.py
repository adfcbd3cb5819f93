"""The import rules of docs/ARCHITECTURE.md hold in every module, and the checker sees each kind of violation."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture.import_rules import PURITY, WAY_TO_PURE, Module, find_modules, is_pure, read_module, violations

ROOT = Path(__file__).resolve().parents[2]


def check(name: str, source: str, *others: Module) -> list[str]:
    return [violation.rule for violation in violations([read_module(name, Path("x.py"), source), *others])]


def test_every_module_of_the_project_keeps_the_import_rules() -> None:
    found = violations(find_modules(ROOT))
    assert not found, "\n" + "\n".join(map(str, found))


def test_every_part_named_in_the_rules_exists() -> None:
    names = {module.name for module in find_modules(ROOT)}
    missing = [part for part in PURITY if not any(name == part or name.startswith(part + ".") for name in names)]
    assert not missing


def test_packages_that_pure_modules_lie_in_import_nothing() -> None:
    packages = [module for module in find_modules(ROOT) if module.name in WAY_TO_PURE]
    busy = {package.name for package in packages for use in package.references if not use.name.startswith("__future__")}
    assert not busy


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("vpn.session", "from testbed.facts import Kind"),
        ("vpn.driver.loop", "def f():\n    import testbed"),
        ("testbed.tunnels.vpn", "from vpn.pki import make_ca"),
        ("testbed.observer.flows", "from testbed.lab.plan import plan_lab"),
        ("testbed.observer.flows", "from testbed import workload"),
        ("testbed.observer.flows", "if TYPE_CHECKING:\n    from testbed.scenario.model import Variant"),
        ("testbed.observer.flows", "from ..tunnels import start"),
        ("testbed.lab.build", "import pyroute2"),
        ("vpn.session", "from OpenSSL import SSL"),
        ("vpn.driver.loop", "import OpenSSL.SSL"),
        ("topologies.ring", "from mininet.node import Node"),
        ("topologies.ring", "from distutils.version import StrictVersion"),
    ],
)
def test_the_checker_catches_a_forbidden_import(module: str, source: str) -> None:
    assert check(module, source)


@pytest.mark.parametrize(
    "source",
    [
        "import socket",
        "import time\nnow = time.monotonic()",
        "import time as t\nnow = t.time()",
        "from time import monotonic as now",
        "from datetime import datetime\nx = datetime.now()",
        "import datetime as d\nx = d.datetime.utcnow()",
        "import os\nx = os.urandom(8)",
        "from os import urandom",
        "import secrets",
        "from random import Random",
        "import subprocess",
        "import asyncio",
        "import http.client",
        "from urllib import request",
        "import importlib\nimportlib.import_module('socket')",
        "import importlib\nimportlib.import_module(f'{__name__}{name}')",
        "__import__('socket')",
        "x = AESGCM.generate_key(256)",
        "from cryptography.hazmat.primitives.asymmetric import ec\nec.generate_private_key(ec.SECP256R1())",
    ],
)
def test_the_checker_catches_the_world_in_a_pure_module(source: str) -> None:
    assert check("vpn.session", source)
    assert not check("vpn.driver.loop", source)


def test_the_checker_catches_a_pure_module_that_leans_on_one_that_is_not() -> None:
    driver = read_module("vpn.driver.clock", Path("clock.py"), "import time")
    assert check("vpn.session", "from vpn.driver.clock import now", driver)
    assert check("vpn.session", "from .driver import clock", driver)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("vpn.session", "import time\nx = time.strftime('%H')\nimport os.path\nfrom datetime import datetime, UTC"),
        ("vpn.session", "import socketlike\ntime = 3\ntime.monotonic"),
        ("vpn.tls", "from OpenSSL import SSL"),
        ("testbed.scenario", "import importlib\nimportlib.import_module(f'{__name__}.load')"),
        ("testbed.report.html", "from importlib.resources import files"),
        ("vpn.config.security", "from vpn.crypto.static_key import parse_static_key"),
        ("testbed.lab.netlink", "import pyroute2"),
        ("testbed.observer.flows", "from testbed.facts import Kind\nfrom testbed.capture.pcapng import read"),
        (
            "topologies.ring",
            "import sys\nfrom mininet.topo import Topo\ndef router():\n    from mininet.node import Node",
        ),
    ],
)
def test_the_checker_accepts_what_the_rules_allow(module: str, source: str) -> None:
    assert not check(module, source)


def test_the_parts_of_the_vpn_that_meet_the_world_are_the_listed_ones() -> None:
    assert is_pure("vpn.session")
    assert is_pure("vpn.config.model")
    assert not any(map(is_pure, ("vpn.driver.loop", "vpn.pki", "vpn.config.load", "vpn.__main__", "testbed.lab.build")))

"""Bad scenarios and bad places: each a clear error, exit code 2, and nothing built or written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.scenarios.running import Ran, run_testbed

GOOD = """title: T
sites:
  www.example.com: {address: 93.184.216.34, node: web, http: true}
tunnel: {program: vpn}
workload: [{http: http://www.example.com/}]
taps: [isp]
variants: {without: {tunnel: null}, with: {}}
expect: [{variant: with, observer: isp, sees: [tunnel]}]
"""

BOMB = "title: T\na: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)

BAD_FILES = {
    "empty": ("", ["title"]),
    "not YAML": ("title: [unclosed\n", ["scenario.yaml:"]),
    "a list": ("- one\n- two\n", ["scenario.yaml:1:1"]),
    "wrong types": (GOOD.replace("http: true", "http: 3"), ["scenario.yaml:3:", "sites.www.example.com.http"]),
    "unknown key": (GOOD.replace("workload:", "worklaod:"), ["scenario.yaml:5:1", "did you mean workload"]),
    "unknown node": (GOOD.replace("node: web", "node: wbe"), ["scenario.yaml:3:", "wbe", "did you mean web"]),
    "overlapping addresses": (
        GOOD.replace("\ntunnel:", "\n  b.example.com: {address: 93.184.216.34, node: private, http: true}\ntunnel:"),
        ["93.184.216.34"],
    ),
    "a rate of -1": (GOOD + "links: {client-isp: {bw: -1}}\n", ["links.client-isp.bw", "-1"]),
    "a YAML bomb": (BOMB, ["scenario.yaml"]),
    "one megabyte": (GOOD + "#" + "x" * 1_000_000, ["scenario.yaml", "KB"]),
    "a variant called as a file of the run": (
        GOOD.replace("with: {}", '"result.json": {}').replace("variant: with", "variant: result.json"),
        ["scenario.yaml:7:", "variants.result.json"],
    ),
    "a program's argument with a zero": (
        GOOD.replace("workload: [", 'workload: [{run: [echo, "a\\0b"]}, '),
        ["scenario.yaml:5:25", "workload[0].run[1]"],
    ),
    "an escape in a key": (GOOD.replace("without:", '"w\\e[31m\\u202e":'), ["variants.w\\x1b[31m\\u202e"]),
    "static key with AEAD": (
        GOOD.replace("{program: vpn}", "{program: vpn, mode: static-key, cipher: AES-256-GCM}"),
        ["tunnel.cipher"],
    ),
    "host bits in a route": (
        GOOD.replace("{program: vpn}", "{program: vpn, routes: [10.20.0.10/24]}"),
        ["10.20.0.0/24"],
    ),
    "a control character": (
        'title: "T\\x1b[31m"\n' + GOOD.split("\n", 1)[1].replace("web", "w\\x1b[2Jb"),
        ["scenario.yaml"],
    ),
}


def run(text: str, cwd: Path) -> Ran:
    (cwd / "scenario.yaml").write_text(text)
    return run_testbed("run", "scenario.yaml", cwd=cwd)


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_one_clear_error_and_builds_nothing(case: str, tmp_path: Path) -> None:
    text, expected = BAD_FILES[case]
    ran = run(text, tmp_path)
    assert ran.code == 2, ran.stdout + ran.stderr
    assert ran.stdout == ""
    assert "Traceback" not in ran.stderr
    assert "\x1b" not in ran.stderr
    for words in expected:
        assert words in ran.stderr, ran.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scenario.yaml"]


def test_all_mistakes_of_a_file_come_at_once(tmp_path: Path) -> None:
    text = (
        GOOD.replace("node: web", "node: wbe")
        .replace("sees: [tunnel]", "sees: [tunel]")
        .replace("http: true", "htp: 1")
    )
    ran = run(text, tmp_path)
    assert ran.code == 2
    assert ran.stderr.count("scenario.yaml:") >= 3, ran.stderr


def test_a_scenario_that_does_not_exist_names_the_nearest(tmp_path: Path) -> None:
    ran = run_testbed("run", "what-a-vpn-hidse", cwd=tmp_path)
    assert ran.code == 2
    assert "did you mean what-a-vpn-hides" in ran.stderr


def test_an_unknown_variant_is_refused(tmp_path: Path) -> None:
    ran = run_testbed("run", "what-a-vpn-hides", "--variant", "wiht", cwd=tmp_path)
    assert ran.code == 2
    assert "did you mean with" in ran.stderr


def test_a_wrong_override_names_its_key(tmp_path: Path) -> None:
    ran = run_testbed("check", "what-a-vpn-hides", "--set", "tunnel.ciper=x", cwd=tmp_path)
    assert ran.code == 2
    assert "ciper" in ran.stderr
    assert "cipher" in ran.stderr


def test_a_run_directory_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    ran = run_testbed("run", "what-a-vpn-hides", cwd=tmp_path, out=tmp_path / "out")
    assert ran.code == 2
    assert "is a link" in ran.stderr
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.root
def test_a_run_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    os.chown(tmp_path / "out", 12345, 12345)
    ran = run_testbed("run", "what-a-vpn-hides", cwd=tmp_path, out=tmp_path / "out")
    assert ran.code == 2
    assert "another user" in ran.stderr


def test_usage_errors_are_exit_code_2(tmp_path: Path) -> None:
    assert run_testbed("rnu", cwd=tmp_path).code == 2
    assert run_testbed("run", cwd=tmp_path).code == 2
    assert run_testbed("show", tmp_path, cwd=tmp_path).code == 2
    assert run_testbed("observe", tmp_path / "none.pcapng", cwd=tmp_path).code == 2
    assert run_testbed("exec", "--lab", "none", "client", "true", cwd=tmp_path).code == 2


def test_a_file_that_cannot_be_read_as_a_capture_is_exit_code_2_in_one_line(tmp_path: Path) -> None:
    ran = run_testbed("observe", "/proc/self/mem", cwd=tmp_path)
    assert ran.code == 2
    assert ran.stderr.count("\n") == 1
    assert "/proc/self/mem: cannot be read: Input/output error" in ran.stderr

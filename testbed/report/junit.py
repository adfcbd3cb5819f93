"""Expectations as JUnit XML, the form in which CI systems show which of them failed.

One `testsuite` per variant, one `testcase` per expectation, attributes and child order as in Jenkins' `junit-10.xsd`,
which GitHub's and GitLab's readers accept too. A run that failed for another reason than an expectation (a tap
dropped packets, an action did not work) has a case of its own with an `error`, so that a failed run never reads as a
green file.

Characters that XML cannot hold are spelled out by `text.visible`: the document is well-formed whatever was captured.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from xml.etree import ElementTree

from testbed.report.text import visible
from testbed.result import ExpectationResult, RunResult, VariantResult


def render_junit(result: RunResult) -> str:
    """The JUnit document of a run."""
    root = ElementTree.Element("testsuites")
    scenario = str(result.scenario.get("name", "scenario"))
    names = dict.fromkeys([*result.variants, *(row.variant for row in result.expectations)])
    for name in names:
        rows = [row for row in result.expectations if row.variant == name]
        root.append(_suite(scenario, name, rows, result.variants.get(name), result.seed))
    if not result.ok and all(row.holds for row in result.expectations):
        reason = "; ".join(result.warnings) or "the run failed although every expectation holds"
        root.append(_run_failed(scenario, reason))
    return _document(root)


def render_junit_unfinished(scenario: str, reason: str) -> str:
    """The document of a run that judged nothing: the host could not, the lab failed, or somebody stopped it."""
    root = ElementTree.Element("testsuites")
    root.append(_run_failed(scenario, reason))
    return _document(root)


def _document(root: ElementTree.Element) -> str:
    _sum_up(root)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _element(tag: str, text: str = "", **attributes: str) -> ElementTree.Element:
    element = ElementTree.Element(tag, {key: visible(value) for key, value in attributes.items()})
    element.text = "\n".join(map(visible, text.split("\n"))) or None
    return element


def _suite(
    scenario: str, name: str, rows: Sequence[ExpectationResult], variant: VariantResult | None, seed: int
) -> ElementTree.Element:
    failures = sum(not row.holds for row in rows)
    suite = _element(
        "testsuite",
        name=f"{scenario}.{name}",
        tests=str(len(rows)),
        failures=str(failures),
        errors="0",
        skipped="0",
        **_when(variant),
    )
    properties = _element("properties")
    properties.append(_element("property", name="seed", value=str(seed)))
    suite.append(properties)
    suite.extend(_case(scenario, row) for row in rows)
    return suite


def _when(variant: VariantResult | None) -> dict[str, str]:
    if variant is None or not variant.actions:
        return {"time": "0.000"}
    start = min(action.started_at for action in variant.actions)
    end = max(action.ended_at for action in variant.actions)
    stamp = datetime.fromtimestamp(start, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return {"time": f"{end - start:.3f}", "timestamp": stamp}


def _case(scenario: str, row: ExpectationResult) -> ElementTree.Element:
    name = f"{row.observer} {row.relation} {row.selector}"
    case = _element("testcase", classname=f"{scenario}.{row.variant}", name=name, time="0.000")
    if not row.holds:
        case.append(_element("failure", _with_evidence(row), message=row.reason, type=row.relation))
    return case


def _with_evidence(row: ExpectationResult) -> str:
    proof = [f"{item.file} frame {item.frame}: {item.filter}" for item in row.evidence]
    return "\n".join([row.reason, *dict.fromkeys(proof)])  # facts of one packet share their proof


def _run_failed(scenario: str, reason: str) -> ElementTree.Element:
    suite = _element(
        "testsuite", name=f"{scenario}.run", tests="1", failures="0", errors="1", skipped="0", time="0.000"
    )
    case = _element("testcase", classname=f"{scenario}.run", name="the run itself succeeds", time="0.000")
    case.append(_element("error", reason, message=reason.partition("\n")[0], type="run"))
    suite.append(case)
    return suite


def _sum_up(root: ElementTree.Element) -> None:
    for count in ("tests", "failures", "errors"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in root)))

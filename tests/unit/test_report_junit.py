"""JUnit XML: well-formed whatever was captured, in the form that CI systems read."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

from testbed.report.junit import render_junit, render_junit_unfinished
from testbed.result import Evidence, ExpectationResult
from tests.unit.test_report_sample import sample_result

# Attributes and children of Jenkins' junit-10.xsd, as far as we write them.
ATTRIBUTES = {
    "testsuites": {"tests", "failures", "errors"},
    "testsuite": {"name", "tests", "failures", "errors", "skipped", "time", "timestamp"},
    "properties": set(),
    "property": {"name", "value"},
    "testcase": {"classname", "name", "time"},
    "failure": {"message", "type"},
    "error": {"message", "type"},
}


def test_there_is_a_suite_per_variant_and_a_case_per_expectation() -> None:
    root = ElementTree.fromstring(render_junit(sample_result()))
    assert [suite.get("name") for suite in root] == [
        f"what-a-vpn-hides.{name}" for name in ("without", "with", "split")
    ]
    assert [(suite.get("tests"), suite.get("failures")) for suite in root] == [("2", "0"), ("3", "0"), ("1", "1")]
    assert dict(root.attrib) == {"tests": "6", "failures": "1", "errors": "0"}
    (failure,) = root.iter("failure")
    assert "no control" in str(failure.get("message"))


def test_only_elements_and_attributes_of_the_schema_are_written() -> None:
    for element in ElementTree.fromstring(render_junit(sample_result())).iter():
        assert set(element.attrib) <= ATTRIBUTES[element.tag]
    for suite in ElementTree.fromstring(render_junit(sample_result())):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", str(suite.get("timestamp")))


def test_characters_that_xml_cannot_hold_do_not_break_the_document() -> None:
    reason = 'nul \x00 bell \x07 surrogate \ud800 end \uffff ]]> <b> & "quoted" \x85'
    row = ExpectationResult("with\x01", "isp\x1b", "hides", "http-url (value \x02)", False, reason)
    text = render_junit(replace(sample_result(), expectations=(row,)))
    root = ElementTree.fromstring(text.encode())
    (failure,) = root.iter("failure")
    assert str(failure.get("message")).startswith(
        'nul \\x00 bell \\x07 surrogate \\ud800 end \\uffff ]]> <b> & "quoted"'
    )


def test_a_run_that_failed_for_another_reason_is_never_a_green_file() -> None:
    result = replace(sample_result(ok=True), ok=False, warnings=("the tap isp dropped 12 packets",))
    root = ElementTree.fromstring(render_junit(result))
    assert root.get("errors") == "1"
    (error,) = root.iter("error")
    assert error.get("message") == "the tap isp dropped 12 packets"


def test_a_run_that_holds_has_neither_failure_nor_error() -> None:
    root = ElementTree.fromstring(render_junit(sample_result(ok=True)))
    assert (root.get("failures"), root.get("errors")) == ("0", "0")


def test_a_measured_expectation_is_a_case_with_its_number_and_its_proof() -> None:
    proof = (Evidence("with/isp.pcapng", 7, 12.5, "dns"),)
    rows = (
        ExpectationResult("with", "isp", "leaks", "none", False, "1 leaked: dns-name www.example.com", proof),
        ExpectationResult("with", "isp", "first_leak_after", ">= 2s", True, "nothing leaked"),
    )
    root = ElementTree.fromstring(render_junit(replace(sample_result(), expectations=rows)))
    assert [case.get("name") for case in root.iter("testcase")] == ["isp leaks none", "isp first_leak_after >= 2s"]
    (failure,) = root.iter("failure")
    assert failure.get("type") == "leaks"
    assert "with/isp.pcapng frame 7: dns" in str(failure.text)


def test_a_proof_that_several_facts_share_stands_there_once_in_a_line_of_its_own() -> None:
    proof = (Evidence("with/isp.pcapng", 7, 12.5, "http"), Evidence("with/isp.pcapng", 7, 12.5, "http"))
    row = ExpectationResult("with", "isp", "leaks", "none", False, "2 leaked", proof)
    (failure,) = ElementTree.fromstring(render_junit(replace(sample_result(), expectations=(row,)))).iter("failure")
    assert failure.text == "2 leaked\nwith/isp.pcapng frame 7: http"


def test_a_run_without_an_end_is_an_error_with_its_reason() -> None:
    root = ElementTree.fromstring(render_junit_unfinished("gate", "the tunnel did not come up\x00"))
    assert (root.get("tests"), root.get("errors")) == ("1", "1")
    (error,) = root.iter("error")
    assert error.get("message") == "the tunnel did not come up\\x00"

"""Lessons without a lab: which answer a run makes right, what mistakes in a file say, grading, and the terminal."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap

from testbed.lesson.answers import LessonBroken, holds, right_choice
from testbed.lesson.command import prepare_lesson
from testbed.lesson.exhibits import Exhibits
from testbed.lesson.grade import BadAnswers, Grades, grades_text, read_answers
from testbed.lesson.page import lesson_page
from testbed.lesson.teach import teach
from testbed.lesson.text import exhibit
from testbed.result import (
    ActionRecord,
    Exposure,
    FactRef,
    RunResult,
    TapRecord,
    VariantResult,
    Verdict,
)
from testbed.scenario.errors import ScenarioErrors
from testbed.scenario.lesson_values import Choice, Condition, Show, Step
from testbed.scenario.load import parse_scenario

SHOW = Show("without", "packet", "isp", "1-dns", "DNS", None, 12)
NAME_SEEN = Condition("seen", "dns-name", "without")


def a_run(folder: Path) -> Exhibits:
    """A run of one variant in which the isp recorded one DNS question, and no other packet."""
    (folder / "without").mkdir()
    question = DNS(rd=1, qd=DNSQR(qname="www.example.com\x1b[2J"))
    frame = Ether() / IP(src="192.168.0.13", dst="192.168.0.1") / UDP(sport=40000, dport=53) / question
    frame.time = 1000.5
    wrpcap(str(folder / "without/isp.pcap"), [frame])
    rows = (
        Exposure("isp", FactRef("dns-name", "www.example.com", "1-dns", "www.example.com"), Verdict.SEEN),
        Exposure("isp", FactRef("http-url", "http://a/", "2-http"), Verdict.HIDDEN),
        Exposure("isp", FactRef("http-url", "http://b/", "3-http"), Verdict.UNPROVEN),
    )
    variant = VariantResult(
        name="without",
        tunnel=None,
        actions=(ActionRecord("1-dns", "dns", "www.example.com", True, 1000.0, 1001.0),),
        interfaces=({"name": "lo", "state": "up", "mtu": 65536, "addresses": ["127.0.0.1/8"]},),
        routes=({"family": 4, "destination": "0.0.0.0/0", "gateway": "192.168.0.1", "interface": "eth0", "metric": 0},),
        egress=({"site": "www.example.com", "address": "93.184.216.34", "interface": "eth0"},),
        taps=(TapRecord("isp", "isp", "isp-eth0", "without/isp.pcap", 1, len(frame), 0),),
        exposure=rows,
        leaks=(),
        metrics={},
    )
    result = RunResult({"name": "x"}, 1, True, {"without": variant}, (), {})
    return Exhibits(result, folder)


def a_step(*choices: Choice, show: Show = SHOW) -> Step:
    return Step("A step", "Know this.", "What?", choices, (show,), "Because.")


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (NAME_SEEN, True),
        (replace(NAME_SEEN, action="2-http"), False),
        (replace(NAME_SEEN, site="www.example.com"), True),
        (replace(NAME_SEEN, observer="lan"), False),
        (Condition("hidden", "dns-name", "without"), False),
        (Condition("hidden", "http-url", "without", action="2-http"), True),
        (Condition("hidden", "http-url", "without"), False),  # one of them is unproven
        (Condition("hidden", "tls-name", "without"), False),  # nothing to hide is not hidden
        (Condition("field", "User Datagram Protocol/destination port", "without", equals="53"), True),
        (Condition("field", "User Datagram Protocol/destination port", "without", equals="5"), False),
        (Condition("layer", "Domain Name System", "without"), True),
        (Condition("layer", "Transmission Control Protocol", "without"), False),
        (Condition("egress", "eth0", "without", site="www.example.com"), True),
        (Condition("egress", "tun0", "without", site="www.example.com"), False),
        (Condition("packets", "1", "without", protocol="DNS"), True),
        (Condition("packets", ">= 1", "without", has="www.example.com"), True),
        (Condition("packets", "> 1", "without"), False),
        (Condition("packets", "0", "without", protocol="TCP"), True),
        (Condition("larger", "without", "without", than="without"), False),
    ],
    ids=lambda value: f"{value.form}-{value.value}" if isinstance(value, Condition) else str(value),
)
def test_a_condition_holds_by_what_the_run_recorded(condition: Condition, expected: bool, tmp_path: Path) -> None:
    assert holds(condition, a_step(), a_run(tmp_path)) is expected


def test_the_right_choice_is_the_one_whose_condition_holds_else_the_otherwise(tmp_path: Path) -> None:
    exhibits = a_run(tmp_path)
    hidden = Choice("nothing", Condition("hidden", "dns-name", "without"))
    assert right_choice(a_step(hidden, Choice("the name", NAME_SEEN)), exhibits) == 1
    assert right_choice(a_step(Choice("never", None), hidden, Choice("else", "otherwise")), exhibits) == 2


@pytest.mark.parametrize("choices", [(Choice("a", NAME_SEEN), Choice("b", NAME_SEEN)), (Choice("a", None),)])
def test_a_run_that_makes_none_or_several_answers_right_is_no_lesson(
    choices: tuple[Choice, ...], tmp_path: Path
) -> None:
    with pytest.raises(LessonBroken, match="one answer must be right"):
        right_choice(a_step(*choices), a_run(tmp_path))


def test_a_count_that_is_none_and_a_packet_that_is_not_there_are_named(tmp_path: Path) -> None:
    exhibits = a_run(tmp_path)
    with pytest.raises(LessonBroken, match="is no count"):
        holds(Condition("packets", "many", "without"), a_step(), exhibits)
    with pytest.raises(LessonBroken, match="no packet of this run"):
        holds(Condition("layer", "x", "without"), a_step(show=replace(SHOW, protocol="TCP")), exhibits)


@pytest.mark.parametrize("what", ["packet", "packets", "interfaces", "routes"])
def test_what_is_shown_cannot_steer_the_terminal_and_is_never_empty(what: str, tmp_path: Path) -> None:
    text = "\n".join(exhibit(replace(SHOW, what=what), a_run(tmp_path)))
    assert text
    assert "\x1b" not in text


def test_a_pupil_is_told_what_was_right_and_how_many(tmp_path: Path) -> None:
    step = a_step(Choice("nothing", None), Choice("the name", NAME_SEEN))
    out = io.StringIO()
    points = teach([step, step, step], [1, 1, 1], a_run(tmp_path), io.StringIO("b\nx\na\n"), out, 80)
    assert points == 1
    said = out.getvalue()
    assert said.count("✓  Right: b) the name") == 1
    assert said.count("✗  You said a; it is b) the name") == 1
    assert said.count("-  It is b) the name") == 1  # the input ended
    assert said.count("Because.") == 3
    assert "1 of 3 predicted." in said


def test_a_wrong_answer_is_told_why_and_a_right_one_is_not(tmp_path: Path) -> None:
    step = a_step(Choice("nothing", None, "It is in clear."), Choice("the name", NAME_SEEN, "never shown"))
    out, exhibits = io.StringIO(), a_run(tmp_path)
    teach([step, step], [1, 1], exhibits, io.StringIO("a\nb\n"), out, 80)
    assert out.getvalue().count("a) It is in clear.") == 1
    assert "never shown" not in out.getvalue()
    page = lesson_page("A lesson", [step], [1], exhibits)
    assert "<b>Not a):</b> It is in clear." in page
    assert "never shown" not in page


def test_an_answer_that_is_no_choice_is_told_which_there_are(tmp_path: Path) -> None:
    out = io.StringIO()
    teach([a_step(Choice("one", NAME_SEEN), Choice("two", None))], [0], a_run(tmp_path), io.StringIO("z\na\n"), out, 80)
    assert "'z' is no answer; give one of a, b" in out.getvalue()
    assert "1 of 1 predicted." in out.getvalue()


def test_grades_say_what_tempted_those_who_were_wrong() -> None:
    step = a_step(Choice("one", None), Choice("two", None), Choice("three", None))
    pupils = read_answers("name,1\nA,a\nB,b\nC,c\nD,b\nE,\n", "class.csv", [step])
    text = grades_text(Grades(pupils, (0,), ("first",)))
    assert "1 of 5     first; instead b 2, c 1" in text


def test_a_class_may_come_from_a_spreadsheet_that_writes_semicolons() -> None:
    step = a_step(Choice("one", None), Choice("two", None))
    (pupil,) = read_answers("\ufeffName;1;2\r\nAda, the first;a;b\r\n", "class.csv", [step, step])
    assert (pupil.name, pupil.answers) == ("Ada, the first", (0, 1))


def test_all_mistakes_of_a_class_are_told_at_once_with_their_lines() -> None:
    step = a_step(Choice("one", None), Choice("two", None))
    with pytest.raises(BadAnswers) as caught:
        read_answers("name,1,2\n\nAda,a\nBob,c,d\n", "class.csv", [step, step])
    assert [line.partition(": ")[0] for line in str(caught.value).splitlines()] == ["class.csv:3", *["class.csv:4"] * 2]


def test_a_class_is_graded_by_name_and_by_question() -> None:
    step = a_step(Choice("one", None), Choice("two", None))
    pupils = read_answers("name,1,2\nAda,a,B\n\nBob,b,\n", "class.csv", [step, step])
    grades = Grades(pupils, (0, 1), ("first", "second"))
    assert [(pupil.name, grades.points(pupil)) for pupil in pupils] == [("Ada", 2), ("Bob", 0)]
    assert (grades.solved(0), grades.solved(1)) == (1, 1)
    assert "Ada    2 / 2   ✓  ✓" in grades_text(grades)
    assert grades.to_dict()["pupils"][1]["answers"] == ["b", ""]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "class.csv:1: the first line must be name,1,2"),
        ("name,1\nAda,a\n", "class.csv:1: the first line must be name,1,2, not name,1"),
        ("name,1,2\n", "there is nobody to grade"),
        ("name,1,2\nAda,a\n", "class.csv:2: 1 answers, but the lesson has 2 steps"),
        ("name,1,2\nAda,a,c\n", "class.csv:2: step 2: 'c' is no answer; give one of a, b"),
    ],
)
def test_a_file_of_answers_with_a_mistake_is_refused_with_its_line(text: str, words: str) -> None:
    step = a_step(Choice("one", None), Choice("two", None))
    with pytest.raises(BadAnswers) as caught:
        read_answers(text, "class.csv", [step, step])
    assert words in str(caught.value)


LESSON = """\
title: T
sites: {www.example.com: {address: 93.184.216.34, node: web, http: true}}
workload: [{dns: www.example.com}]
variants: {without: {tunnel: null}}
lesson:
  - title: One
    ask: What?
    choices: [{says: yes it is, right: {seen: dns-name}}, {says: no}]
    show: {variant: without}
    explain: Because.
"""


def test_a_lesson_in_a_file_becomes_steps_with_its_places_filled_in() -> None:
    (step,) = parse_scenario(LESSON.encode(), "x.yaml").lesson
    assert step.shows[0].observer == "isp"
    assert step.choices[0].right == NAME_SEEN


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("variant: without}", "variant: witout}", "did you mean without?"),
        ("{seen: dns-name}", "{seen: dns-nam}", "x.yaml:8:"),
        ("{seen: dns-name}", "{seen: dns-name, layer: TCP}", "must have exactly one of"),
        ("{seen: dns-name}", "{field: nonsense, is: x}", "a field is LAYER/FIELD"),
        ("{seen: dns-name}", "{seen: dns-name, action: 2-dns}", "no such action: 2-dns"),
        ("{seen: dns-name}", "{seen: dns-name, observer: lan}", "no such observer: lan"),
        ("{seen: dns-name}", "{egress: tun0}", "say which `site`"),
        ("{seen: dns-name}", "{larger: without}", "say `than` which variant"),
        (", right: {seen: dns-name}", "", "no answer can ever be right"),
        ("ask: What?", "aks: What?", "aks"),
    ],
)
def test_a_mistake_in_a_lesson_is_named_with_its_place(old: str, new: str, words: str) -> None:
    text = LESSON.replace(old, new)
    assert text != LESSON
    with pytest.raises(ScenarioErrors) as caught:
        parse_scenario(text.encode(), "x.yaml")
    assert words in str(caught.value)


def test_a_lesson_is_found_by_its_number_or_its_topic_and_a_slip_is_named() -> None:
    for name in ("1", "01", "dns", "01-dns"):
        assert prepare_lesson(name).scenario.title.startswith("DNS:")
    with pytest.raises(ScenarioErrors, match="did you mean ipv6"):
        prepare_lesson("ipv5")

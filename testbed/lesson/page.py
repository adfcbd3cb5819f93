"""A lesson as one offline HTML page: a class predicts on the projector, then opens what was captured.

Drawn with the report's own pieces, under the same two nets for captured strings and the same policy against scripts
and addresses. Answers and packets are behind a fold each, which needs no script.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from testbed.lesson.exhibits import Exhibits, Packet
from testbed.lesson.text import LETTERS
from testbed.report.html_ladder import LadderView, ladder
from testbed.report.html_page import environment, page_context
from testbed.report.packets import PacketKey, PacketLine, PacketView
from testbed.report.places import graph_of, places_of
from testbed.scenario.lesson_values import Show, Step


@dataclass(frozen=True, slots=True)
class ExhibitView:
    """One thing that a step shows. Shape: exactly one of `packet`, `ladder`, `interfaces`, `routes` is not empty."""

    id: str
    caption: str
    packet: PacketView | None = None
    ladder: LadderView | None = None
    interfaces: tuple[dict[str, Any], ...] = ()
    routes: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class StepView:
    number: int
    step: Step
    choices: tuple[tuple[str, str], ...]  # letter, text
    right: str
    right_says: str
    wrong: tuple[tuple[str, str], ...]  # letter, why it is not this one
    exhibits: tuple[ExhibitView, ...]


def lesson_page(title: str, steps: Sequence[Step], right: Sequence[int], exhibits: Exhibits) -> str:
    """The page. Errors: OSError if a capture cannot be read."""
    views = [
        StepView(
            number=number,
            step=step,
            choices=tuple(zip(LETTERS, (choice.says for choice in step.choices), strict=False)),
            right=LETTERS[index],
            right_says=step.choices[index].says,
            wrong=tuple(
                (letter, choice.but)
                for place, (letter, choice) in enumerate(zip(LETTERS, step.choices, strict=False))
                if choice.but and place != index
            ),
            exhibits=tuple(
                _exhibit(f"s{number}-{place}", show, exhibits) for place, show in enumerate(step.shows, start=1)
            ),
        )
        for number, (step, index) in enumerate(zip(steps, right, strict=True), start=1)
    ]
    template = environment().get_template("lesson.html.j2")
    return template.render(title=title, steps=views, result=exhibits.result, **page_context()) + "\n"


def _exhibit(name: str, show: Show, exhibits: Exhibits) -> ExhibitView:
    if show.what == "interfaces":
        caption = f"The client's interfaces, variant {show.variant}"
        return ExhibitView(name, caption, interfaces=exhibits.interfaces(show.variant))
    if show.what == "routes":
        return ExhibitView(name, f"The client's routes, variant {show.variant}", routes=exhibits.routes(show.variant))
    if show.what == "packets":
        return _drawn(name, show, exhibits)
    packet = exhibits.packet(show)
    caption = f"Frame {packet.frame} of {packet.file}" if packet else f"No such packet in variant {show.variant}"
    return ExhibitView(name, caption, packet=packet.view if packet else None)


def _drawn(name: str, show: Show, exhibits: Exhibits) -> ExhibitView:
    variant = exhibits.result.variants[show.variant]
    packets = list(exhibits.packets(show))
    file = packets[0].file if packets else ""
    caption = f"What {show.observer} recorded, variant {show.variant}"
    shown = packets[: show.most]
    places = places_of(variant, graph_of(exhibits.result))
    view = ladder(name, caption, "", file, [_line(packet) for packet in shown], places, _nowhere)
    more = f"; {len(packets) - len(shown)} later ones are in {file}" if len(packets) > len(shown) else ""
    return ExhibitView(name, caption + more, ladder=view)


def _line(packet: Packet) -> PacketLine:
    view = packet.view
    return PacketLine(
        packet.frame, view.time, view.source, view.destination, view.protocol, len(view.octets), view.summary
    )


def _nowhere(_key: PacketKey) -> str:
    """A lesson opens single packets; those of a drawing are in the report."""
    return ""

"""A lesson as text: the question, then what was captured, then why. Captured strings cannot steer a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import PurePosixPath

from testbed.lesson.exhibits import Exhibits, Packet
from testbed.report.text import visible
from testbed.scenario.lesson_values import Show, Step

LETTERS = "abcdef"
_DUMP_OCTETS = 16
_MOST_DUMPED = 256
_LONGEST_LINE = 200


def question(step: Step, number: int, count: int, width: int) -> Iterator[str]:
    """The step up to where the pupil predicts."""
    yield f"{number} of {count}  {step.title}"
    yield ""
    yield from paragraphs(step.text, width)
    yield from paragraphs(step.ask, width)
    for letter, choice in zip(LETTERS, step.choices, strict=False):
        yield from textwrap.wrap(f"{letter}) {choice.says}", width, initial_indent="  ", subsequent_indent="     ")
    yield ""


def paragraphs(text: str, width: int) -> Iterator[str]:
    for part in text.split("\n\n") if text else ():
        yield from textwrap.wrap(part, width)
        yield ""


def outcome(step: Step, right: int, answered: int | None) -> str:
    """One line: right, wrong, or not answered."""
    says = f"{LETTERS[right]}) {step.choices[right].says}"
    if answered is None:
        return f"-  It is {says}"
    return f"✓  Right: {says}" if answered == right else f"✗  You said {LETTERS[answered]}; it is {says}"


def exhibit(show: Show, exhibits: Exhibits) -> Iterator[str]:
    """What the step shows, as lines. Errors: OSError if a capture cannot be read."""
    variant = show.variant
    if show.what == "interfaces":
        yield f"The client's interfaces, variant {variant}:"
        for entry in exhibits.interfaces(variant):
            yield f"    {entry['name']:<14} mtu {entry['mtu']:<6} {' '.join(entry['addresses'])}"
    elif show.what == "routes":
        yield f"The client's routes, variant {variant}:"
        for route in exhibits.routes(variant):
            via = f" via {route['gateway']}" if route["gateway"] else ""
            yield f"    {route['destination']:<22}{via} dev {route['interface']}"
    elif show.what == "packets":
        yield from _packet_list(show, list(exhibits.packets(show)))
    else:
        packet = exhibits.packet(show)
        yield from _one_packet(packet) if packet else (f"(no such packet in variant {variant})",)


def _packet_list(show: Show, packets: list[Packet]) -> Iterator[str]:
    yield f"What {show.observer} recorded, variant {show.variant}:"
    first = packets[0].view.time if packets else 0.0
    for packet in packets[: show.most]:
        view = packet.view
        ends = f"{_end(view.source)} > {_end(view.destination)}"
        line = f"    {packet.frame:>5} {view.time - first:9.4f}  {ends:<34} {len(view.octets):>5}  {view.protocol}"
        yield _line(f"{line}  {view.summary}")
    if len(packets) > show.most:
        yield f"    … and {len(packets) - show.most} more"
    if not packets:
        yield "    (none)"


def _end(address: str) -> str:
    return address if len(address) < 18 else "…" + address[-16:]


def _one_packet(packet: Packet) -> Iterator[str]:
    view = packet.view
    yield _line(f"Frame {packet.frame} of {PurePosixPath(packet.file)}: {view.protocol}, {view.summary}")
    for depth, layer in enumerate(view.layers):
        margin = "  " * depth
        sealed = "  (sealed: only the ends can open it)" if layer.encrypted else ""
        yield f"  {margin}{visible(layer.name)}{sealed}"
        for label, value in layer.fields:
            yield _line(f"  {margin}    {label:<18} {value}")
    yield from _dump(view.octets)


def _dump(octets: bytes) -> Iterator[str]:
    for start in range(0, min(len(octets), _MOST_DUMPED), _DUMP_OCTETS):
        row = octets[start : start + _DUMP_OCTETS]
        letters = "".join(chr(octet) if 32 <= octet < 127 else "." for octet in row)
        yield f"  {start:04x}  {row.hex(' '):<{3 * _DUMP_OCTETS}} {letters}"
    if len(octets) > _MOST_DUMPED:
        yield f"  …     {len(octets) - _MOST_DUMPED} more octets"


def _line(text: str) -> str:
    text = visible(text)
    return text if len(text) <= _LONGEST_LINE else text[: _LONGEST_LINE - 1] + "…"

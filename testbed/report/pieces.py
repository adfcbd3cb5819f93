"""The report's drawings one by one, for other pages: a step of a lesson shows a packet, a ladder or nested dolls.

    pieces = Pieces()
    ladder("dns", "A name is looked up", lead, file, lines, places, opened)      html_ladder, from a packet list
    dolls("get", title, lead, outer, inner)                                      html_dolls, from opened packets
    body = pieces.ladder(view) + pieces.dolls(view) + pieces.packets(file, [(1, packet_view)])
    text = pieces.page("Lesson 1", body)                                         one offline file like the report

Each function returns `Markup`: what was captured is already made visible and escaped. Text that a caller adds must come
through `Markup.format` or a template of `environment()`, never by joining strings. A frame number in a ladder opens its
packet if the same page holds that packet: `opened` names it as `packets` does, by `packet_id`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from markupsafe import Markup

from testbed.report.html_dolls import DollsView
from testbed.report.html_ladder import LadderView
from testbed.report.html_moments import MomentsView
from testbed.report.html_page import environment, page_context
from testbed.report.html_sizes import TimelineView
from testbed.report.html_topology import TopologyView
from testbed.report.packets import PacketView


def packet_id(file: str, frame: int, files: Iterable[str]) -> str:
    """The identifier of a packet in a page whose packets come from `files`, in this order."""
    return f"packet-{list(files).index(file) + 1}-{frame}"


class Pieces:
    """Renders views as markup. Make one and keep it: the templates are compiled once."""

    def __init__(self) -> None:
        self._environment = environment()
        self._module: Any = self._environment.get_template("pieces.html.j2").module

    def ladder(self, view: LadderView) -> Markup:
        return Markup(self._module.ladder(view))  # noqa: S704 - made by our own templates, as all of these

    def dolls(self, view: DollsView) -> Markup:
        return Markup(self._module.doll(view))  # noqa: S704

    def topology(self, name: str, view: TopologyView) -> Markup:
        return Markup(self._module.topology(name, view))  # noqa: S704

    def timeline(self, view: TimelineView) -> Markup:
        return Markup(self._module.timeline(view))  # noqa: S704

    def moments(self, view: MomentsView) -> Markup:
        return Markup(self._module.moments(view))  # noqa: S704

    def packets(self, file: str, opened: Iterable[tuple[int, PacketView]], files: Iterable[str] = ()) -> Markup:
        """Packets of one file, each to be opened. Shape: `files` are all files of the page, as for `packet_id`"""
        listed = list(files) or [file]
        made = (self._module.packet(packet_id(file, frame, listed), file, frame, view) for frame, view in opened)
        return Markup("").join(Markup(one) for one in made)  # noqa: S704

    def page(self, title: str, body: Markup) -> str:
        """A whole document with the report's style, script and policy. Shape: `body` is markup, `title` is text"""
        text = self._environment.get_template("plain.html.j2").render(title=title, content=body, **page_context())
        return text + "\n"

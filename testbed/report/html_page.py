"""What every page of ours shares: the template environment, the style sheet, the script and the policy naming them.

Jinja2 templates with two nets under every captured string: `finalize` makes each printed string visible (control
characters, bidi overrides, lone surrogates spelled out), and autoescape turns markup into text. The style sheet and
the script are inline and named by their hashes in a Content-Security-Policy that allows nothing else, so that even
markup that slipped through could neither run nor fetch.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from testbed.report.correlated import both_sides_in_words
from testbed.report.html_packet import opened_view
from testbed.report.inside import inside_in_words
from testbed.report.later_ways import later_way
from testbed.report.own_addresses import is_tunnel_interface
from testbed.report.text import number_in_words, octets_in_words, plain_value, shorten
from testbed.report.words import action_in_words, kind_in_words

_LONGEST_STRING = 4000  # of one captured value; the rest is in result.json
_BRIEF_COLUMNS = 64  # of a value in a list of facts


def environment() -> Environment:
    made = Environment(
        autoescape=True,
        loader=FunctionLoader(template_text),
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        kind_words=kind_in_words,
        action_words=action_in_words,
        octets=octets_in_words,
        number=number_in_words,
        plain=plain_value,
        brief=lambda text: shorten(str(text), _BRIEF_COLUMNS),
        metric=metric_in_words,
        words=lambda key: str(key).replace("_", " ").replace(".", " "),
    )
    made.globals.update(
        both_sides_words=both_sides_in_words,
        inside_words=inside_in_words,
        is_inside=is_tunnel_interface,
        later_way=later_way,
        opened_view=opened_view,
    )
    return made


def metric_in_words(name: str, value: float) -> str:
    """A measured value with its unit, where its name says one: `0.08 ms`, `1.2 s`, else the number alone."""
    if not name.endswith("seconds"):
        return number_in_words(value)
    return f"{value * 1000:.2f} ms" if value < 0.01 else f"{value:.3f} s"


def page_context() -> dict[str, Any]:
    """The style sheet and the script with their hashes: what `page.html.j2` needs besides a title and a body."""
    style, script = template_text("style.css") + template_text("print.css"), template_text("script.js")
    return {
        "style": Markup(style),  # noqa: S704 - our own file
        "script": Markup(script),  # noqa: S704 - our own file
        "style_hash": _csp_hash(style),
        "script_hash": _csp_hash(script),
    }


def template_text(name: str) -> str:
    return resources.files("testbed.report").joinpath("templates", name).read_text(encoding="utf-8")


def _csp_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _finalize(value: Any) -> Any:
    """What `{{ … }}` prints: our own markup as it is, every other string made visible and cut at a sane length."""
    if isinstance(value, Markup):
        return value
    if value is None:
        return "—"
    return shorten(value, _LONGEST_STRING) if isinstance(value, str) else value

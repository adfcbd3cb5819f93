"""A benchmark's result as one SVG file: for each measure a bar per contender, with the spread as a line. Pure.

No script, no font and no address from elsewhere; text is escaped, for a user's own command has a title of its own.
"""

from __future__ import annotations

from html import escape

from testbed.bench.model import GROUPS, BenchResult, Measure
from testbed.bench.tables import figure

_WIDTH, _LABEL, _VALUE, _ROW, _HEAD = 920, 320, 150, 18, 44
_LONGEST = 46  # letters of a title that fit beside a bar; a command of one's own can be longer
_STYLE = """
svg{background:#fff;color:#1a1a1a;font:12px system-ui,sans-serif}
text{fill:currentColor}.title{font-weight:600;font-size:14px}.note{fill:#555}
.bar{fill:#7a8ca3}.own{fill:#1f6feb}.base{fill:#c9d1da}.spread{stroke:#1a1a1a;stroke-width:1.5}
@media (prefers-color-scheme:dark){svg{background:#14171a;color:#e8e8e8}.note{fill:#aaa}.bar{fill:#8b98a9}
.own{fill:#58a6ff}.base{fill:#4a525b}.spread{stroke:#e8e8e8}}
"""


def bench_plot(result: BenchResult) -> str:
    """The drawing, one block under the other: as wide as a page, as high as it needs."""
    blocks, top = [], 10
    for group, title in GROUPS.items():
        for measure in result.measured(group):
            block, height = _block(result, measure, title, top)
            blocks.append(block)
            top += height
    name = "Tunnels side by side: medians, with least and most"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{name}" viewBox="0 0 {_WIDTH} {top}" '
        f'width="{_WIDTH}" height="{top}"><title>{name}</title><style>{_STYLE}</style>{"".join(blocks)}</svg>\n'
    )


def _block(result: BenchResult, measure: Measure, group: str, top: int) -> tuple[str, int]:
    names = [name for name in result.contenders if result.cell(name, measure.key)]
    most = max(cell.most for name in names if (cell := result.cell(name, measure.key))) or 1.0
    better = "more is better" if measure.higher else "less is better"
    parts = [
        f'<text class="title" x="10" y="{top + 16}">{escape(group)}: {escape(measure.title)}</text>',
        f'<text class="note" x="10" y="{top + 32}">{escape(measure.unit)}, {better}</text>',
    ]
    for number, name in enumerate(names):
        parts.append(_bar(result, measure, name, most, top + _HEAD + number * _ROW))
    return "".join(parts), _HEAD + len(names) * _ROW + 16


def _bar(result: BenchResult, measure: Measure, name: str, most: float, y: int) -> str:
    cell = result.cell(name, measure.key)
    if cell is None:
        return ""
    room = _WIDTH - _LABEL - _VALUE
    width, least, largest = (round(value / most * room, 1) for value in (cell.median, cell.least, cell.most))
    ratio = result.ratio(name, measure.key)
    told = figure(cell.median) + ("" if ratio is None else f" · {figure(ratio)}x")
    kind = "base" if name == result.contenders[0] else "own" if name.startswith("vpn") or name == "own" else "bar"
    middle = y + _ROW / 2 - 2
    return (
        f'<text x="{_LABEL - 8}" y="{y + 12}" text-anchor="end">{escape(_cut(result.titles[name]))}</text>'
        f'<rect class="{kind}" x="{_LABEL}" y="{y + 1}" width="{width}" height="{_ROW - 5}"/>'
        f'<line class="spread" x1="{_LABEL + least}" x2="{_LABEL + largest}" y1="{middle}" y2="{middle}"/>'
        f'<text x="{_LABEL + largest + 8}" y="{y + 12}">{told}</text>'
    )


def _cut(title: str) -> str:
    return title if len(title) <= _LONGEST else f"{title[: _LONGEST - 1]}…"

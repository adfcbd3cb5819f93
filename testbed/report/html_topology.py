"""The lab as a drawing: its nodes, the eye at each tap, and the ways that the client's traffic took in one variant.

Any topology is laid out as a tree from the client: one column for each step away from it, one row for each branch. A
way in clear text is a solid line with the word *readable*; a tunnel is a tube from the client to its server with a
dotted line inside. So a print without colours says the same. The sentence beside the drawing says it in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from testbed.report.later_ways import later_in_words
from testbed.report.matrix import observers_of
from testbed.report.own_addresses import is_tunnel_interface
from testbed.report.places import CLIENT, Graph, reached, targets
from testbed.report.text import shorten
from testbed.report.words import observer_in_words
from testbed.result import RunResult, VariantResult

_STEP_X, _STEP_Y = 112, 92
_LEFT, _TOP = 46, 74
_BOX_HEIGHT = 32
_LETTERS = 11
_EYE_AWAY, _EYE_BELOW = 46.0, 54.0
_CLEAR_LIFT, _BEYOND_LIFT = -14.0, -6.0
_TUBE_LIFT = 5.0  # below the middle of the boxes, so that a way beside the tunnel has room above it
_NODE_WORDS = {"isp": "ISP", "vpn": "VPN"}

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class BoxView:
    name: str
    x: float
    y: float
    width: float
    height: float = _BOX_HEIGHT


@dataclass(frozen=True, slots=True)
class EyeView:
    """An observer's place, above or below the link that its tap records. Shape: `here` is where the gaze meets it"""

    name: str
    x: float
    y: float
    here: float
    above: bool


@dataclass(frozen=True, slots=True)
class WayView:
    """One line of the drawing. Shape: `kind` is clear, sealed, beyond or refused; `path` is an SVG path"""

    kind: str
    path: str


@dataclass(frozen=True, slots=True)
class TopologyView:
    width: float
    height: float
    boxes: tuple[BoxView, ...]
    links: tuple[str, ...]
    tube: str
    ways: tuple[WayView, ...]
    eyes: tuple[EyeView, ...]
    refused: tuple[BoxView, ...]
    sentence: str


@dataclass(frozen=True, slots=True)
class _Way:
    """Sites of one node that the client reached in one manner."""

    node: str
    inside: bool


def topology_view(result: RunResult, variant: VariantResult, graph: Graph) -> TopologyView:
    points = _placed(graph)
    boxes = {name: _box(name, point) for name, point in points.items()}
    vpn = graph.node_of.get(str((variant.tunnel or {}).get("server_address")), "vpn" if "vpn" in points else "")
    tunnel_way = graph.way(CLIENT, vpn) if variant.tunnel is not None and vpn else ()
    ways = _ways(variant, graph)
    eyes = _eyes(result, variant, graph, points)
    return TopologyView(
        width=max((x for x, _ in points.values()), default=0) + _LEFT + 12,
        height=max((*(y for _, y in points.values()), *(eye.y + 10 for eye in eyes if not eye.above)), default=0) + 40,
        boxes=tuple(boxes.values()),
        links=tuple(_path([points[a], points[b]]) for a, b in graph.links if a in points and b in points),
        tube=_path([points[node] for node in tunnel_way], lift=_tube_lift(ways)) if len(tunnel_way) > 1 else "",
        ways=tuple(_way_views(ways, graph, points, tunnel_way)),
        eyes=tuple(eyes),
        refused=tuple(boxes[node] for node in _refused(variant, graph) if node in boxes),
        sentence=way_sentence(variant),
    )


def _placed(graph: Graph) -> dict[str, Point]:
    """Where each node stands: columns by distance from the client, a row of its own for every branch's end."""
    points: dict[str, Point] = {}
    row = 0

    def place(node: str, depth: int, seen: frozenset[str]) -> float:
        nonlocal row
        below = [other for other in graph.neighbours(node) if other not in seen and other not in points]
        below.sort(key=lambda other: (_weight(graph, other, seen | {node}), graph.nodes.index(other)))
        points[node] = (_LEFT + depth * _STEP_X, 0.0)
        rows = [place(other, depth + 1, seen | {node}) for other in below if other not in points]
        at = sum(rows) / len(rows) if rows else float(row)
        row += 0 if rows else 1
        points[node] = (_LEFT + depth * _STEP_X, _TOP + at * _STEP_Y)
        return at

    start = CLIENT if CLIENT in graph.nodes else graph.nodes[0]
    for node in (start, *graph.nodes):
        if node not in points:
            place(node, 0, frozenset())
    return points


def _weight(graph: Graph, node: str, seen: frozenset[str]) -> int:
    """How many nodes hang behind one: short branches are drawn above long ones."""
    found = {node}
    queue = [node]
    while queue:
        for other in graph.neighbours(queue.pop()):
            if other not in found and other not in seen:
                found.add(other)
                queue.append(other)
    return len(found)


def _box(name: str, point: Point) -> BoxView:
    words = shorten(_NODE_WORDS.get(name, name), _LETTERS)
    width = max(54.0, 20 + 9.0 * len(words))
    return BoxView(words, point[0] - width / 2, point[1] - _BOX_HEIGHT / 2, width)


def _path(points: Sequence[Point], lift: float = 0.0) -> str:
    return "M" + "L".join(f"{x:g} {y + lift:g}" for x, y in points) if points else ""


def _ways(variant: VariantResult, graph: Graph) -> list[_Way]:
    """Each node that an action reached, and whether through the tunnel; both if its addresses go different ways."""
    sites = reached(variant, targets(variant))
    found = dict.fromkeys(
        _Way(graph.node_of[str(row.get("address"))], is_tunnel_interface(variant, row.get("interface")))
        for row in variant.egress
        if not row.get("error") and str(row.get("site")) in sites and str(row.get("address")) in graph.node_of
    )
    return list(found)


def _way_views(
    ways: Sequence[_Way], graph: Graph, points: Mapping[str, Point], tunnel_way: Sequence[str]
) -> list[WayView]:
    views: list[WayView] = []
    inside = [way for way in ways if way.inside and tunnel_way]
    for way in ways:
        if not way.inside:
            nodes = graph.way(CLIENT, way.node)
            views.append(
                WayView("clear", _path([points[node] for node in nodes], lift=_CLEAR_LIFT if tunnel_way else 0))
            )
    if inside:
        views.append(WayView("sealed", _path([points[node] for node in tunnel_way], lift=_tube_lift(ways))))
    for way in inside:
        nodes = graph.way(tunnel_way[-1], way.node)
        views.append(WayView("beyond", _path([points[node] for node in nodes], lift=_BEYOND_LIFT)))
    return [view for view in views if view.path]


def _tube_lift(ways: Sequence[_Way]) -> float:
    return 0.0 if all(way.inside for way in ways) else _TUBE_LIFT


def _refused(variant: VariantResult, graph: Graph) -> list[str]:
    missed = targets(variant) - reached(variant, targets(variant))
    rows = [row for row in variant.egress if str(row.get("site")) in missed]
    return list(dict.fromkeys(graph.node_of.get(str(row.get("address")), "") for row in rows))


def _eyes(result: RunResult, variant: VariantResult, graph: Graph, points: Mapping[str, Point]) -> list[EyeView]:
    """Taps that judge, each above the link that it records, near its node; two at one node stand side by side."""
    judged = set(observers_of(result))
    views: list[EyeView] = []
    for tap in variant.taps:
        if tap.name not in judged or tap.node not in points:
            continue
        toward = graph.peer_of.get((tap.node, tap.interface)) or _toward_client(graph, tap.node)
        x, y = points[tap.node]
        if toward in points:
            far = points[toward]
            x, y = x + (far[0] - x) * 0.42, y + (far[1] - y) * 0.42
        taken = sum(abs(view.x - x) < 40 for view in views)
        words = shorten(observer_in_words(tap.name), 26)
        above = not _is_crowded(x, y - _EYE_AWAY, points)
        views.append(EyeView(words, x + 44 * taken, y - _EYE_AWAY if above else y + _EYE_BELOW, y, above))
    return views


def _is_crowded(x: float, y: float, points: Mapping[str, Point]) -> bool:
    """Whether an eye here would lie on a node's box."""
    return any(abs(px - x) < _LEFT + 16 and abs(py - y) < _BOX_HEIGHT for px, py in points.values())


def _toward_client(graph: Graph, node: str) -> str:
    way = graph.way(node, CLIENT)
    return way[1] if len(way) > 1 else node


def way_sentence(variant: VariantResult) -> str:
    """What the drawing says, in words, and what had changed at the end."""
    changed = later_in_words(variant)
    return f"{_way_at_first(variant)} At the end: {changed}." if changed else _way_at_first(variant)


def _way_at_first(variant: VariantResult) -> str:
    """A site that is reached both ways is named with the addresses of each."""
    ways: dict[bool, dict[str, list[str]]] = {True: {}, False: {}}
    for row in variant.egress:
        if not row.get("error"):
            inside = is_tunnel_interface(variant, row.get("interface"))
            ways[inside].setdefault(str(row.get("site")), []).append(str(row.get("address")))
    if variant.tunnel is None:
        return "No tunnel: everything crosses the ISP as the client sent it."
    if not ways[True]:
        return "A tunnel is up, but no site's traffic takes it."
    if not ways[False]:
        return "Traffic to every site goes through the tunnel."
    both = ways[True].keys() & ways[False].keys()
    through, past = (
        ", ".join(f"{site} ({', '.join(addresses)})" if site in both else site for site, addresses in found.items())
        for found in (ways[True], ways[False])
    )
    return f"Through the tunnel: {through}. Beside it: {past}."

"""Events of a scenario: what must hold between their keys, the values they become, and how those are written again.

An event has a time and exactly one verb; whatever else it says belongs to that verb. A link event states what differs
from the plan from then on, so that one without options restores the link.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from testbed.scenario.errors import Mistake, nearest, one_of, shown
from testbed.scenario.fault_model import LINK_ITSELF, EventModel
from testbed.scenario.tree import Located
from testbed.scenario.values import Event, LinkOptions

MOST_OF_A_COMMAND = 60  # characters
MOST_ROUTES_OCTETS = 255  # of option 121: its length is one octet
VERBS = ("kill", "start", "link", "lease", "run")
IMPAIRMENTS = ("bw", "delay", "jitter", "loss", "duplicate", "reorder", "max_queue_size")
_FIELDS = {"from": "sender"}  # keys that are called otherwise in Python
_OWNERS = {
    "signal": "kill",
    "node": "run",
    **dict.fromkeys(("routes", "dns"), "lease"),
    **dict.fromkeys(("down", "from"), "link"),
    **dict.fromkeys(IMPAIRMENTS, "link"),
}
_NEED_DELAY = ("jitter", "reorder")


def check_events(
    events: list[EventModel], place: Located, *, tunnel: bool, nodes: frozenset[str] | None
) -> Iterator[Mistake]:
    """Every mistake of a variant's events that their shape does not show. Shape: `nodes` None are not known."""
    for index, event in enumerate(events):
        yield from _check_event(event, place.at(index), tunnel, nodes)


def _check_event(event: EventModel, place: Located, tunnel: bool, nodes: frozenset[str] | None) -> Iterator[Mistake]:
    verbs = [verb for verb in VERBS if getattr(event, verb) is not None]
    if len(verbs) != 1:
        if not any(place.child(verb) for verb in VERBS) or len(verbs) > 1:  # a wrong one has been told already
            found = f"this has {' and '.join(verbs)}" if verbs else "this has none"
            yield place.mistake(f"an event does exactly one of {', '.join(VERBS)}; {found}")
        return
    verb = verbs[0]
    for key, owner in _OWNERS.items():
        if getattr(event, _FIELDS.get(key, key)) is not None and owner != verb:
            yield place.at(key).key_mistake(f"belongs to events that {owner}; this one has {verb}")
    if verb in ("kill", "start") and not tunnel:
        yield place.at(verb).mistake("this variant has no tunnel; give the variant `events: []`")
    if verb == "link":
        yield from _check_link(event, place)
    if (octets := _routes_octets(event)) > MOST_ROUTES_OCTETS:
        words = f"take {octets} octets in a lease, which has room for {MOST_ROUTES_OCTETS}; name fewer prefixes"
        yield place.at("routes").key_mistake(words)
    for key, node in (("node", event.node), ("lease", event.lease)):
        if node is not None and nodes is not None and node not in nodes:
            known = sorted(nodes)
            words = f"the topology has no such node; {one_of(known)}{nearest(node, known)}"
            yield place.at(key).mistake(f"value {shown(node)}: {words}")


def _routes_octets(event: EventModel) -> int:
    """How long the routes are in option 121, the default route that goes with them included."""
    lengths = [int(prefix.partition("/")[2]) for prefix in event.routes or ()]
    return sum(1 + (length + 7) // 8 + 4 for length in (*lengths, 0)) if lengths else 0


def _check_link(event: EventModel, place: Located) -> Iterator[Mistake]:
    if "-" not in (event.link or ""):
        yield place.at("link").mistake(f"value {shown(event.link)}: must be two nodes, such as client-isp")
    elif event.sender is not None and event.sender not in (ends := (event.link or "").split("-", 1)):
        yield place.at("from").mistake(f"value {shown(event.sender)}: must be an end of the link; {one_of(ends)}")
    given = [key for key in IMPAIRMENTS if getattr(event, key) is not None]
    if event.down and given:
        yield place.at("down").key_mistake(f"a link that is down carries nothing; leave {', '.join(given)} out")
    if event.delay is None:
        for key in _NEED_DELAY:
            if getattr(event, key):
                yield place.at(key).key_mistake("needs a delay in the same event: without one nothing would differ")


def resolve_event(model: EventModel) -> Event:
    """The event's value, defaults filled in."""
    if model.kill is not None:
        return Event(model.at, "kill", model.kill, signal=model.signal or "KILL")
    if model.start is not None:
        return Event(model.at, "start", model.start)
    if model.run is not None:
        return Event(model.at, "run", shlex.join(model.run), argv=tuple(model.run), node=model.node or "client")
    if model.lease is not None:
        routes, resolvers = tuple((model.routes or {}).items()), tuple(model.dns or ())
        return Event(model.at, "lease", model.lease, routes=routes, resolvers=resolvers)
    a, _, b = (model.link or "").partition("-")
    options: dict[str, Any] = {key: getattr(model, key) for key in IMPAIRMENTS}
    options["max_queue_packets"] = options.pop("max_queue_size")
    link = LinkOptions(a, b, **options)
    return Event(model.at, "link", model.link or "", link=link, down=bool(model.down), sender=model.sender or "")


def dump_event(event: Event) -> dict[str, Any]:
    """The event as a scenario file says it."""
    if event.verb == "kill":
        return {"at": event.at, "kill": event.target, "signal": event.signal}
    if event.verb == "start":
        return {"at": event.at, "start": event.target}
    if event.verb == "run":
        return {"at": event.at, "run": list(event.argv), "node": event.node}
    if event.verb == "lease":
        brought = {"routes": dict(event.routes), "dns": list(event.resolvers)}
        return {"at": event.at, "lease": event.target, **{key: value for key, value in brought.items() if value}}
    options: dict[str, Any] = {"from": event.sender} if event.sender else {}
    options |= {"down": True} if event.down else {}
    for key in IMPAIRMENTS:
        value = getattr(event.link, "max_queue_packets" if key == "max_queue_size" else key)
        options |= {key: value} if value is not None else {}
    return {"at": event.at, "link": event.target, **options}


def event_in_words(event: Event) -> str:
    """What happens, as a short sentence without its time."""
    if event.verb == "kill":
        return f"{event.target} gets SIG{event.signal}"
    if event.verb == "start":
        return f"{event.target} is started again"
    if event.verb == "run":
        command = " ".join(event.target.split())
        return (
            f"{event.node} runs {command if len(command) <= MOST_OF_A_COMMAND else command[:MOST_OF_A_COMMAND] + '…'}"
        )
    if event.verb == "lease":
        brought = [
            f"the route {prefix} {'on the link' if router == LINK_ITSELF else f'via {router}'}"
            for prefix, router in event.routes
        ]
        brought += [f"the resolver {address}" for address in event.resolvers]
        return f"{event.target} gives the client a lease" + (f" with {', '.join(brought)}" if brought else "")
    link = f"link {event.target}" + (f" from {event.sender}" if event.sender else "")
    if event.down:
        return f"{link} carries nothing"
    changed = [f"{key} {value}" for key, value in dump_event(event).items() if key not in ("at", "link", "from")]
    return f"{link} has {', '.join(changed)}" if changed else f"{link} is as planned"

"""Ladder diagrams: one lifeline per speaker, one arrow per packet, top to bottom in time.

A ladder is made of lines of a packet list: of what one action sent and received, or of how a tunnel was set up. Each
arrow says what the packet is as Wireshark does and what it means in plain words; its frame number opens the packet.
Arrows of sealed packets are dashed, so that a print without colours tells them apart.

`ladder` knows nothing of a run: a lesson gives it any lines with names for their addresses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from testbed.report.packets import Inside, PacketKey, PacketLine
from testbed.report.places import Places
from testbed.report.summary import bare_and_fullest, started_at
from testbed.report.text import shorten
from testbed.report.words import action_in_words
from testbed.result import ActionRecord, RunResult, TapRecord, VariantResult

WIDTH = 860
_LEFT, _RIGHT, _HEAD, _STEP = 178, 730, 60, 44
_MOST_ENDS = 4
_MOST_ARROWS = 40
_LABEL_LETTERS = 52
_SEALED_WORDS = ("Application Data", "Encrypted", "Client: Encrypted", "Server: Encrypted")
_NOISE = ("ARP", "ICMPv6")  # finding a neighbour, not talking to a site; a ping of ours is kept
SEALED = ("OpenVPN", "WireGuard", "ESP")
_TCP = re.compile(r"^\d+ → \d+ \[(?P<flags>[^\]]*)\]")
_UNFINISHED = "[TCP segment of a reassembled PDU]"
_QUIC_IDS = re.compile(r", [DS]CID=[0-9a-f]*")
_HTTP = re.compile(r"[A-Z]+ \S+ HTTP/|HTTP/1")
_DATA_AFTER_HANDSHAKE = 2
_LETTER = 7.7  # of a label, about


@dataclass(frozen=True, slots=True)
class EndView:
    name: str
    address: str
    x: float


@dataclass(frozen=True, slots=True)
class ArrowView:
    """One packet. Shape: `head` is the arrowhead's polygon; `packet_id` is empty if the packet is not in the report"""

    y: float
    start: float
    end: float
    head: str
    label_x: float
    anchor: str  # of the label: middle, or start where it is longer than the arrow
    label: str
    meaning: str
    time: str
    frame: int
    packet_id: str
    kind: str  # clear, sealed, control
    spoken: str


@dataclass(frozen=True, slots=True)
class LadderView:
    id: str
    title: str
    lead: str
    file: str
    ends: tuple[EndView, ...]
    arrows: tuple[ArrowView, ...]
    width: int
    height: int
    left_out: str


Opened = Callable[[PacketKey], str]  # the identifier of a packet in the document, or nothing


def ladder(
    name: str,
    title: str,
    lead: str,
    file: str,
    lines: Sequence[PacketLine],
    places: Places,
    opened: Opened,
    sealed: Collection[int] = (),
) -> LadderView | None:
    """A ladder of these packets, or None if none is worth an arrow.

    Shape: `sealed` are frames known to be sealed although their octets do not show it
    """
    told = [line for line in lines if not _is_noise(line)]
    shown = told[:_MOST_ARROWS]
    if not shown:
        return None
    ends = _ends(shown, places)
    columns = {address: end.x for end in ends for address in end.address.split(", ")}
    fallback = ends[-1].x
    zero = shown[0].time
    arrows = tuple(
        _arrow(at, line, columns, fallback, zero, opened((file, line.frame)), places, sealed=line.frame in sealed)
        for at, line in enumerate(shown)
    )
    return LadderView(
        id=name,
        title=title,
        lead=lead,
        file=file,
        ends=ends,
        arrows=arrows,
        width=WIDTH,
        height=_HEAD + _STEP * len(arrows) + 24,
        left_out=_left_out(len(lines) - len(told), len(told) - len(shown)),
    )


def _is_noise(line: PacketLine) -> bool:
    return line.protocol in _NOISE and "Echo" not in line.summary


def _left_out(noise: int, more: int) -> str:
    parts = [f"{noise} by which neighbours find each other"] if noise else []
    parts += [f"{more} later ones"] if more else []
    return f"Not drawn: {' and '.join(parts)}." if parts else ""


def _ends(lines: Sequence[PacketLine], places: Places) -> tuple[EndView, ...]:
    """The speakers, the client first; addresses of one name share a lifeline."""
    named: dict[str, dict[str, None]] = {}
    for line in lines:
        for address in (line.source, line.destination):
            named.setdefault(places.name(address) or address, {})[address] = None
    order = sorted(named, key=lambda name: name != "you")
    kept, rest = order[: _MOST_ENDS - 1], order[_MOST_ENDS - 1 :]
    groups = [(name, list(named[name])) for name in kept]
    if len(rest) == 1:
        groups.append((rest[0], list(named[rest[0]])))
    elif rest:
        groups.append((f"{len(rest)} others", [address for name in rest for address in named[name]]))
    step = (_RIGHT - _LEFT) / max(1, len(groups) - 1)
    return tuple(
        EndView("" if name == addresses[0] else name, ", ".join(addresses), _LEFT + step * at)
        for at, (name, addresses) in enumerate(groups)
    )


def _arrow(
    at: int,
    line: PacketLine,
    columns: Mapping[str, float],
    fallback: float,
    zero: float,
    packet_id: str,
    places: Places,
    *,
    sealed: bool,
) -> ArrowView:
    start, end = columns.get(line.source, fallback), columns.get(line.destination, fallback)
    y = _HEAD + _STEP * (at + 1) - 6
    tip = end - 7 if end > start else end + 7
    back = tip - 11 if end > start else tip + 11
    label, meaning = label_of(line), meaning_of(line) or (_SEALED_MEANING if sealed else "")
    fits = len(label) * _LETTER < abs(end - start) - 24
    time = f"+{(line.time - zero) * 1000:.1f} ms"
    who = [places.name(address) or address for address in (line.source, line.destination)]
    return ArrowView(
        y=y,
        start=start,
        end=tip,
        head=f"{tip:g},{y:g} {back:g},{y - 5:g} {back:g},{y + 5:g}",
        label_x=(start + end) / 2 if fits else min(start, end) + 14,
        anchor="middle" if fits else "start",
        label=label,
        meaning=meaning,
        time=time,
        frame=line.frame,
        packet_id=packet_id,
        kind="sealed" if sealed else kind_of_line(line),
        spoken=f"frame {line.frame}, {time}, {who[0]} to {who[1]}: {label}" + (f", {meaning}" if meaning else ""),
    )


def kind_of_line(line: PacketLine) -> str:
    """Whether a packet's content can be read (clear), cannot (sealed), or sets up a tunnel (control)."""
    if line.protocol == "QUIC":
        return "clear" if line.summary.startswith(("Initial", "Version Negotiation", "Retry")) else "sealed"
    if line.protocol not in SEALED:
        return "sealed" if line.summary.startswith(_SEALED_WORDS) else "clear"
    return "sealed" if "DATA" in line.summary or line.protocol == "ESP" else "control"


def label_of(line: PacketLine) -> str:
    """What the packet is, as short as a ladder needs it."""
    protocol, text = short_text(line)
    octets = f", {line.length_octets:,} octets" if line.protocol in SEALED else ""
    return shorten(f"{protocol} {text}", _LABEL_LETTERS - len(octets)) + octets


def short_text(line: PacketLine) -> tuple[str, str]:
    """Protocol and content without what Wireshark's line repeats or only experts read: ports, numbers, time stamps."""
    flags = _TCP.match(line.summary)
    if line.protocol == "TCP" and flags is not None:
        length = re.search(r"Len=(\d+)", line.summary)
        carried = f", {int(length[1]):,} octets of data" if length and length[1] != "0" else ""
        return "TCP", flags["flags"] + carried
    text = line.summary.replace("MessageType: ", "").removesuffix(_UNFINISHED)
    if line.protocol == "TCP" and text != line.summary:
        return ("HTTP" if _HTTP.match(text) else "TCP"), f"{text.rstrip()} (a part)"
    if line.protocol in ("DNS", "MDNS", "LLMNR"):
        text = re.sub(
            r"0x[0-9a-f]{4} ", "", text.replace("Standard query", "query").replace("query response", "answer")
        )
    text = _QUIC_IDS.sub("", text) if line.protocol == "QUIC" else text
    return line.protocol, text.removeprefix("HTTP/1.1 ") if line.protocol == "HTTP" else text


_FLAG_MEANINGS = {
    "SYN": "May I connect?",
    "SYN, ACK": "Yes. May I, too?",
    "ACK": "Received.",
    "FIN, ACK": "I have said everything.",
    "RST": "There is no such connection.",
    "RST, ACK": "There is no such connection.",
}
_SEALED_MEANING = "A packet of somebody's, sealed."
_WORD_MEANINGS = (
    ("P_CONTROL_HARD_RESET_CLIENT", "A new session, please; here is my number."),
    ("P_CONTROL_HARD_RESET_SERVER", "Agreed; here is mine."),
    ("P_CONTROL_SOFT_RESET", "Time for new keys."),
    ("Client Hello", "A TLS handshake begins, inside the control channel."),
    ("P_CONTROL", "A piece of the TLS handshake."),
    ("P_ACK", "Received."),
    ("P_DATA", _SEALED_MEANING),
)
_TLS_MEANINGS = (
    ("Client Hello", "Let us encrypt. I want this site."),
    ("Server Hello", "Agreed; from here on sealed."),
    ("Application Data", "Sealed."),
    ("Change Cipher Spec", "From here on sealed."),
)
_QUIC_MEANINGS = (
    ("Client Hello", "A connection, please. I want this site; everybody can open this."),
    ("Server Hello", "Agreed; from here on sealed."),
    ("Initial", "A piece of the handshake that everybody can open."),
    ("Handshake", "Sealed."),
    ("Protected Payload", "Sealed."),
)
_HTTP2_MEANINGS = (
    ("]: GET", "This page, please."),
    ("]: POST", "This page, please."),
    ("]: ", "Here it is."),
    ("SETTINGS", "This is how I talk."),
    ("GOAWAY", "I have said everything."),
)
_DNS_MEANINGS = (("response", "Here it is."), ("query", "What is the address of this name?"))
# by protocol: what in its line says which meaning, the first that is found
_MEANINGS = {"QUIC": _QUIC_MEANINGS, "HTTP2": _HTTP2_MEANINGS, "DNS": _DNS_MEANINGS}


def meaning_of(line: PacketLine) -> str:
    """What the packet says, in words for a class; empty where its own label says it already."""
    known = _WORD_MEANINGS if line.protocol in SEALED else _MEANINGS.get(line.protocol)
    if known is not None:
        return next((words for part, words in known if part in line.summary), "")
    if line.protocol.startswith(("TLS", "SSL", "DTLS")):
        return next((words for start, words in _TLS_MEANINGS if line.summary.startswith(start)), "")
    flags = _TCP.match(line.summary)
    if line.protocol == "TCP" and flags is not None and "Len=0" in line.summary:
        return _FLAG_MEANINGS.get(flags["flags"], "")
    if short_text(line)[0] == "HTTP":
        return "Here it is." if line.summary.startswith("HTTP/") else "This page, please."
    return ""


# -- which ladders a run's report shows --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Told:
    """One variant with its packets and names."""

    variant: VariantResult
    file: str
    lines: Sequence[PacketLine]
    places: Places
    sealed: Collection[int]


_VERB_TITLES = {
    "dns": "A name is looked up",
    "http": "A page is opened: name, TCP handshake, request, answer",
    "https": "A page is opened over TLS",
    "http3": "A page is opened over HTTP/3: QUIC in UDP",
    "doh": "A name is looked up over HTTPS",
    "dot": "A name is looked up over TLS",
    "ping": "A server is pinged",
}


def ladders(
    result: RunResult,
    observer: str,
    lists: Mapping[str, Sequence[PacketLine]],
    inside: Mapping[str, Inside],
    places: Mapping[str, Places],
    opened: Opened,
) -> list[LadderView]:
    """What each kind of action looks like in clear text, how the tunnel is set up, and one action inside it."""
    bare, full = bare_and_fullest(result)
    told = {
        name: _Told(
            variant, tap.file, lists[name], places[name], inside[name].outer_of.values() if name in inside else ()
        )
        for name, variant in result.variants.items()
        if name in lists and (tap := _tap(variant, observer)) is not None
    }
    made: list[LadderView | None] = []
    if bare in told:
        made += list(_of_actions(told[bare], opened))
    others = [one for name, one in told.items() if name != bare and one.variant.tunnel is None]
    made += [_first_of(one, f"ladder-other-{number}", opened) for number, one in enumerate(others, start=1)]
    if full in told:
        made.append(_handshake(told[full], opened))
        made += list(_in_the_tunnel(told[full], inside.get(full or ""), opened))
    return [view for view in made if view is not None]


def _tap(variant: VariantResult, observer: str) -> TapRecord | None:
    return next((tap for tap in variant.taps if tap.name == observer), None)


def _of_actions(told: _Told, opened: Opened) -> Iterator[LadderView | None]:
    """The first action of each kind."""
    firsts: dict[str, ActionRecord] = {}
    for action in told.variant.actions:
        firsts.setdefault(action.verb, action)
    for verb, action in firsts.items():
        title = _VERB_TITLES.get(verb, action_in_words(action).capitalize())
        lead = f"Variant {told.variant.name}: the client {action_in_words(action)}. As everybody on the way has it."
        lines = during(action, told.variant, told.lines)
        yield ladder(f"ladder-{verb}", title, lead, told.file, lines, told.places, opened)


def _first_of(told: _Told, name: str, opened: Opened) -> LadderView | None:
    """Of another variant without a tunnel, how it does the first thing: there the variants differ, if not in what."""
    if not told.variant.actions:
        return None
    action = told.variant.actions[0]
    title = f"{_VERB_TITLES.get(action.verb, action_in_words(action).capitalize())} (variant {told.variant.name})"
    lead = f"The client {action_in_words(action)}. As everybody on the way has it."
    return ladder(name, title, lead, told.file, during(action, told.variant, told.lines), told.places, opened)


def during(action: ActionRecord, variant: VariantResult, lines: Iterable[PacketLine]) -> list[PacketLine]:
    """The packets from when an action began to when the next one did; after the last, to the end."""
    later = [other.started_at for other in variant.actions if other.started_at > action.started_at]
    until = min(later, default=float("inf"))
    return [line for line in lines if action.started_at <= line.time < until]


def _handshake(told: _Told, opened: Opened) -> LadderView | None:
    """From the first packet of the tunnel to its first data packets."""
    sealed = [line for line in told.lines if line.protocol in SEALED]
    data = [at for at, line in enumerate(sealed) if kind_of_line(line) == "sealed"]
    end = data[min(_DATA_AFTER_HANDSHAKE, len(data)) - 1] + 1 if data else len(sealed)
    zero = started_at(told.variant)
    before = sealed[0].time - zero if sealed and zero is not None else 0.0
    when = f" It begins {-before:.2f} s before the client's first action." if before < 0 else ""
    wrapping = (told.variant.tunnel or {}).get("control")
    how = {
        "tls-crypt": " The control channel is wrapped with tls-crypt, so the TLS handshake inside is sealed as well.",
        "tls-auth": " The control channel is signed with tls-auth, so the TLS handshake inside stays readable.",
        "none": " The control channel is not wrapped, so the TLS handshake inside is readable.",
    }.get(str(wrapping), "")
    lead = (
        f"Variant {told.variant.name}: hard resets, control packets with their acknowledgements, then data.{when}{how}"
    )
    return ladder("ladder-tunnel", "The tunnel is set up", lead, told.file, sealed[:end], told.places, opened)


def _in_the_tunnel(told: _Told, inside: Inside | None, opened: Opened) -> Iterator[LadderView | None]:
    """The first page, or else the first action, twice: as the observer has it, and as the tunnel's device had it."""
    actions = told.variant.actions
    action = next((act for act in actions if act.verb == "http"), actions[0] if actions else None)
    if action is None:
        return
    words = action_in_words(action)
    outer = during(action, told.variant, told.lines)
    lead = f"Variant {told.variant.name}: the client {words}. This is all that the observer has of it."
    yield ladder(
        *("ladder-outside", "The same through the tunnel", lead, told.file, outer, told.places, opened),
        sealed=frozenset(told.sealed),
    )
    if inside is not None:
        lead = f"The client {words}, as its own tunnel device recorded it: what the sealed packets above carried."
        lines = during(action, told.variant, inside.lines)
        yield ladder("ladder-inside", "… and what was inside", lead, inside.file, lines, told.places, opened)

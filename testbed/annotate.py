"""What the merged capture of a run says besides packets: names of addresses, and what each decisive packet tells.

    names      the plan's addresses -> node, the sites' addresses -> site, the tunnel's inner addresses -> client, vpn
    remarks    what an observer learns from this packet; which packet carries it, or is carried by it
    tapes      the run's captures by tap, and the tunnels' outside once more with their control packets made readable

Pure: octets and results in, values for `testbed.capture.merge` out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address

from testbed.capture.merge import Place, Remark, Tape, TapeFrame
from testbed.capture.pcapng import INBOUND
from testbed.ground_truth.control import RecordKeeper, bare, unwrap, without_hmac
from testbed.ground_truth.mapping import VariantMap
from testbed.ground_truth.matching import Carries
from testbed.ground_truth.outer import End, OuterPacket, outer_packets
from testbed.ground_truth.rewrite import with_tcp_payload, with_udp_payload
from testbed.lab.model import LabPlan
from testbed.report.text import shorten
from testbed.result import Exposure, TapRecord, VariantResult, Verdict
from testbed.scenario.values import CLIENT_TUN, Variant
from testbed.verdict.capture import NEVER_HIDDEN

MOST_LEARNED = 8  # facts in one packet's remark
VALUE_COLUMNS = 100
CRYPTED = ("tls-crypt", "tls-crypt-v2")


# -- names ------------------------------------------------------------------------------------------------------------


def names_of(
    plans: Mapping[str, LabPlan],
    variants: Iterable[Variant],
    results: Iterable[VariantResult],
    vpn_inside: Iterable[str],
) -> dict[bytes, list[str]]:
    """What every address of the run is called.

    Shape: a site comes behind its node, since Wireshark shows the last; `vpn_inside` are the server's inner addresses
    """
    names: dict[bytes, list[str]] = {}
    for plan in plans.values():
        for address, node in _node_addresses(plan):
            _call(names, address, node)
    for variant in variants:
        for site in variant.sites.values():
            for address in site.addresses:
                _call(names, address, site.name)
    for result in results:
        if result.tunnel:
            for address in vpn_inside:
                _call(names, address, "vpn-inside")
            for row in result.interfaces:
                if row.get("name") == result.tunnel.get("interface"):
                    for address in row.get("addresses") or ():
                        _call(names, str(address).partition("/")[0], "client-inside")
    return names


def neighbours_of(plans: Mapping[str, LabPlan], tap: TapRecord) -> dict[bytes, list[str]]:
    """The names that whoever runs the tap's node has for the two ends of the link that it listens on."""
    names: dict[bytes, list[str]] = {}
    for plan in plans.values():
        ends = {tap.node, _peer(plan, tap.node, tap.interface)}
        for address, node in _node_addresses(plan):
            if node in ends:
                _call(names, address, node)
    return names


def _node_addresses(plan: LabPlan) -> Iterator[tuple[str, str]]:
    for node in plan.nodes:
        for interface in node.interfaces:
            for address in (*interface.addresses, interface.link_local):
                yield address.partition("/")[0], node.name


def _call(names: dict[bytes, list[str]], address: str, name: str) -> None:
    called = names.setdefault(ip_address(address).packed, [])
    if name not in called:
        called.append(name)


def _peer(plan: LabPlan, node: str, interface: str) -> str:
    try:
        return plan.node(node).interface(interface).peer
    except KeyError:
        return ""


# -- tapes ------------------------------------------------------------------------------------------------------------


def tape_of(variant: str, record: TapRecord, plan: LabPlan, frames: Sequence[TapeFrame], link_type: int) -> Tape:
    """A tap's capture as one of many."""
    peer = _peer(plan, record.node, record.interface)
    link = next(
        (f"{link.node1}-{link.node2}" for link in plan.links if {link.node1, link.node2} == {record.node, peer}),
        record.interface,
    )
    inside = record.name == CLIENT_TUN

    def describes(direction: int) -> str:
        coming = direction == INBOUND
        if inside:
            way = "what the tunnel brings" if coming else "what the client gives the tunnel"
        else:
            way = f"from {peer or '?'} to {record.node}" if coming else f"from {record.node} to {peer or '?'}"
        return f"variant {variant}, tap {record.name}: {way}"

    return Tape(record.file, f"{record.node}:{link}", link_type, frames, describes, record.dropped)


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """A tape whose control packets are bare, and what is to be said of them."""

    tape: Tape
    remarks: dict[Place, list[Remark]]


@dataclass(frozen=True, slots=True)
class _Frame:
    """A tape's frame as the search for the tunnel's packets wants it."""

    number: int
    time: float
    data: bytes
    wire_octets: int


@dataclass(frozen=True, slots=True)
class _Bare:
    """A packet of the tunnel, and what is shown in its place. Shape: `words` say what was changed, if anything was."""

    packet: OuterPacket
    shown: bytes
    words: str


def unwrapped(tape: Tape, server: str, port: int, control: str, key: bytes) -> Unwrapped | None:
    """The tape with its control packets made readable; None where there is none.

    Shape: `control` is the scenario's word for what wraps them, `key` is needed for tls-crypt only
    """
    frames = [_Frame(f.number, f.time_ns / 1e9, f.data, f.octets) for f in tape.frames]
    packets = outer_packets(frames, End(ip_address(server).packed, port), tape.link_type)
    shown = list(_bare_packets(packets, control, key))
    if not any(one.words for one in shown):
        return None
    made = _over_tcp(tape, shown) if _is_tcp(tape, packets[0]) else _over_udp(tape, shown)
    name = f"{tape.key} unwrapped"
    kept: list[TapeFrame] = []
    remarks: dict[Place, list[Remark]] = {}
    for number, (frame, words) in enumerate(made, 1):
        kept.append(frame._replace(number=number))
        if words:
            remarks[Place(name, number)] = [Remark(words)]
    return Unwrapped(replace(tape, key=name, frames=kept), remarks)


def _bare_packets(packets: Iterable[OuterPacket], control: str, key: bytes) -> Iterator[_Bare]:
    keepers: dict[tuple[bool, int], RecordKeeper] = {}
    for packet in packets:
        if control in CRYPTED:
            body = unwrap(packet.packet, key, to_server=packet.to_server) if key else None
        else:
            body = without_hmac(packet.packet) if control == "tls-auth" else bare(packet.packet)
        if body is None:
            yield _Bare(packet, packet.packet, "")
            continue
        keeper = keepers.setdefault((packet.to_server, packet.stream), RecordKeeper())
        shown, got, kept = keeper.aligned(body)
        words = f"{control} taken off" if control != "none" else "as it was"
        words = f"made readable: {words}; on the wire {len(packet.packet)} octets"
        words += f"; begins with {got} octets of TLS from the packet before, where the record began" if got else ""
        words += f"; its last {kept} octets of TLS are shown in the next packet, where the record ends" if kept else ""
        yield _Bare(packet, shown, words)


def _is_tcp(tape: Tape, packet: OuterPacket) -> bool:
    frame = tape.frames[packet.frames[0] - 1]
    return with_tcp_payload(frame.data, 0, 0, b"", tape.link_type) is not None


def _over_udp(tape: Tape, packets: Iterable[_Bare]) -> Iterator[tuple[TapeFrame, str]]:
    """Every frame of the tape, the control packets' with another payload."""
    by_frame = {one.packet.frames[0]: one for one in packets if one.words and len(one.packet.frames) == 1}
    for frame in tape.frames:
        one = by_frame.get(frame.number)
        data = with_udp_payload(frame.data, one.shown, tape.link_type) if one else None
        if one is None or data is None:
            yield frame, ""
        else:
            yield frame._replace(data=data, octets=len(data)), one.words


def _over_tcp(tape: Tape, packets: Iterable[_Bare]) -> Iterator[tuple[TapeFrame, str]]:
    """One segment for each packet of the tunnel, numbered anew since the packets have other lengths now."""
    sent = {True: 1, False: 1}
    for one in packets:
        template = tape.frames[one.packet.frames[-1] - 1]
        payload = len(one.shown).to_bytes(2, "big") + one.shown
        way = one.packet.to_server
        data = with_tcp_payload(template.data, sent[way], sent[not way], payload, tape.link_type)
        sent[way] += len(payload)
        if data is not None:
            yield template._replace(data=data, octets=len(data)), one.words


# -- remarks ----------------------------------------------------------------------------------------------------------


def learned_remarks(exposures: Iterable[Exposure], leaks: Iterable[Mapping[str, object]]) -> dict[Place, list[Remark]]:
    """What observers learn, at the packet that shows it first."""
    leaked = {(leak["observer"], leak["kind"], leak["value"]) for leak in leaks}
    told: dict[Place, dict[str, dict[str, list[str]]]] = {}  # place -> observer -> what -> actions
    for row in exposures:
        if row.verdict is not Verdict.SEEN or not row.evidence or row.fact.kind in NEVER_HIDDEN:
            continue
        first = row.evidence[0]
        if not first.filter:  # a line of a log
            continue
        words = f"{row.fact.kind} {shorten(row.fact.value, VALUE_COLUMNS)}"
        if (row.observer, row.fact.kind, row.fact.value) in leaked:
            words = f"LEAK {words}"
        found = told.setdefault(Place(first.file, first.frame), {}).setdefault(row.observer, {})
        if row.fact.action not in found.setdefault(words, []):
            found[words].append(row.fact.action)
    return {place: [_learned(who, found) for who, found in by.items()] for place, by in told.items()}


def _learned(observer: str, found: Mapping[str, Sequence[str]]) -> Remark:
    facts = [f"{words} ({', '.join(actions)})" for words, actions in found.items()]
    more = f"; and {len(facts) - MOST_LEARNED} more" if len(facts) > MOST_LEARNED else ""
    return Remark(_braceless(f"{observer} learns here: {'; '.join(facts[:MOST_LEARNED])}{more}"))


def _braceless(text: str) -> str:
    return text.replace("{}", "{ }")  # else it would be taken for a packet's number


def carried_remarks(found: VariantMap) -> Iterator[tuple[Place, Remark]]:
    """Of each inner packet which packets carry it, and the reverse."""
    for link in found.links:
        inner = Place(found.inner_file, link.packet.frame)
        frames = [frame for carrier in link.packet.carriers for frame in carrier.outer.frames]
        whose = f"{link.flow}{f' ({link.action})' if link.action else ''}"
        if frames:
            places = tuple(Place(found.outer_file, frame) for frame in frames)
            yield inner, Remark(f"carried by packet {', '.join('{}' for _ in places)}", places)
        for frame in dict.fromkeys(frames):
            yield Place(found.outer_file, frame), Remark(_braceless(f"carries {whose}: packet ") + "{}", (inner,))
    for carrier in found.carriers:
        if carrier.carries is Carries.PING:
            yield Place(found.outer_file, carrier.outer.frames[-1]), Remark("carries a ping of the tunnel's own")

"""Chooses which packets a report shows, and opens them: those that prove its cells, the first observer's packet list,
and what the client's tunnel device recorded of the packets inside.

Reads the closed captures of a run's directory, each once, from its beginning: at most `MOST_FRAMES` frames of a file
and `MOST_PACKETS` opened packets of `MOST_OCTETS` in a run, proofs before others. What lies beyond is in the capture;
the report's display filters find it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from testbed.capture.reader import CaptureReader
from testbed.dissection.capture import CaptureDissector
from testbed.dissection.network import LINK_LAYERS
from testbed.dissection.pairing import paired, read_pairs
from testbed.report.matrix import observers_of
from testbed.report.own_addresses import client_addresses
from testbed.report.packets import Inside, PacketKey, PacketLine, PacketView
from testbed.report.summary import started_at
from testbed.result import Evidence, RunResult, TapRecord, VariantResult, Verdict
from testbed.scenario.values import CLIENT_TUN

MOST_FRAMES = 2_000
MOST_PACKETS = 420
MOST_PROOFS = 200
MOST_OCTETS = 240_000  # of opened packets: each octet takes about six in the report
_FRAMES_PER_PROOF = 2
_PER_LIST = 160  # opened packets of one observer's list, from just before the client's first action
_BEFORE_S = 2.0  # the tunnel's handshake
_LONGEST_PAIRS_OCTETS = 8 << 20

Opened = dict[int, PacketView]


@dataclass(slots=True)
class ShownPackets:
    """Shape: `packets` by (file, frame); `lists` and `inside` by variant, in the order of the capture; `others` are
    lists as `lists` is, of each further observer that has a capture, by its name.
    """

    packets: dict[PacketKey, PacketView] = field(default_factory=dict)
    lists: dict[str, list[PacketLine]] = field(default_factory=dict)
    inside: dict[str, Inside] = field(default_factory=dict)
    others: dict[str, dict[str, list[PacketLine]]] = field(default_factory=dict)


def shown_packets(result: RunResult, directory: Path) -> ShownPackets:
    """Open the packets that the report of this result names. Errors: OSError if a capture cannot be read."""
    shown = ShownPackets()
    proofs = _wanted(result)
    observer, *others = observers_of(result) or ("",)
    opened: dict[str, Opened] = {}
    for variant in result.variants.values():
        taps = [tap for tap in variant.taps if tap.file in proofs or tap.name in (observer, *others, CLIENT_TUN)]
        opened |= {tap.file: dict(_opened(directory, tap.file)) for tap in taps}
        _list(shown, variant, {tap.name: tap for tap in taps}, observer, opened, directory)
        for tap in taps:
            if tap.name in others:
                lines = [_line(frame, view) for frame, view in opened[tap.file].items()]
                shown.others.setdefault(tap.name, {})[variant.name] = lines
    wanted = [(file, frame) for file, frames in proofs.items() for frame in sorted(frames)]
    _keep(shown, [*wanted, *_of_lists(shown, result, observer)], opened)
    return shown


def _opened(directory: Path, file: str) -> Iterator[tuple[int, PacketView]]:
    dissector = CaptureDissector()
    with CaptureReader(directory / file) as reader:
        for frame in islice(reader, MOST_FRAMES):
            yield frame.number, dissector.open(frame)


def _list(
    shown: ShownPackets,
    variant: VariantResult,
    taps: Mapping[str, TapRecord],
    observer: str,
    opened: Mapping[str, Opened],
    directory: Path,
) -> None:
    tap, tun = taps.get(observer), taps.get(CLIENT_TUN)
    if tap is not None:
        shown.lists[variant.name] = [_line(frame, view) for frame, view in opened[tap.file].items()]
    if tap is not None and tun is not None:
        inner = [_line(frame, view) for frame, view in opened[tun.file].items()]
        found = paired(tun.file, inner, tap.file, shown.lists[variant.name], client_addresses(variant))
        written = _written_pairs(variant, tap.file, tun.file, directory)
        how = f"The run itself opened the tunnel's packets and noted what each carried: {len(written)} packets inside."
        shown.inside[variant.name] = Inside(tun.file, tuple(inner), tap.file, written, how) if written else found


def _written_pairs(variant: VariantResult, outer_file: str, inner_file: str, directory: Path) -> dict[int, int]:
    """The pairs that the run wrote down for just these two captures, if it did."""
    noted = variant.ground_truth
    path = directory / str(noted.get("file", ""))
    if (noted.get("outer_capture"), noted.get("inner_capture")) != (outer_file, inner_file) or not path.is_file():
        return {}
    with path.open(encoding="utf-8", errors="replace") as file:
        return read_pairs(file.read(_LONGEST_PAIRS_OCTETS))


def _of_lists(shown: ShownPackets, result: RunResult, observer: str) -> Iterator[PacketKey]:
    """The packets of the lists, each list's first ones before any list's later ones."""
    queues = []
    for variant in result.variants.values():
        files = {tap.name: tap.file for tap in variant.taps}
        zero = started_at(variant)
        for name, lines in ((observer, shown.lists.get(variant.name, ())), (CLIENT_TUN, _inner(shown, variant.name))):
            from_then = [line for line in lines if zero is None or line.time >= zero - _BEFORE_S]
            queues.append([(files[name], line.frame) for line in from_then[:_PER_LIST] if name in files])
    for at in range(_PER_LIST):
        yield from (queue[at] for queue in queues if at < len(queue))


def _inner(shown: ShownPackets, variant: str) -> tuple[PacketLine, ...]:
    found = shown.inside.get(variant)
    return found.lines if found else ()


def _keep(shown: ShownPackets, wanted: list[PacketKey], opened: Mapping[str, Opened]) -> None:
    left = MOST_OCTETS
    for key in dict.fromkeys(wanted):
        view = opened.get(key[0], {}).get(key[1])
        if view is None or len(shown.packets) >= MOST_PACKETS:
            continue
        left -= len(view.octets)
        if left < 0:
            return
        shown.packets[key] = view


def _wanted(result: RunResult) -> dict[str, set[int]]:
    """The frames that prove something, by file: the first of every proof, as many proofs as there is room for."""
    found = (
        (item.file, item.frame)
        for proof in _proofs(result)
        for item in proof[:_FRAMES_PER_PROOF]
        if item.filter  # a line of a server's own log has none
    )
    wanted: dict[str, set[int]] = {}
    for file, frame in islice(dict.fromkeys(found), MOST_PROOFS):
        wanted.setdefault(file, set()).add(frame)
    return wanted


def _proofs(result: RunResult) -> Iterator[tuple[Evidence, ...]]:
    for variant in result.variants.values():
        for exposure in variant.exposure:
            if exposure.verdict is Verdict.SEEN:
                yield exposure.evidence
    for expectation in result.expectations:
        yield expectation.evidence[:1]


def _line(frame: int, view: PacketView) -> PacketLine:
    ports, link_octets = (0, 0), 0
    for layer in view.layers:
        fields = dict(layer.fields)
        if "source port" in fields:
            ports = int(fields["source port"]), int(fields["destination port"])
        if layer.name in LINK_LAYERS:
            link_octets = layer.end
    return PacketLine(
        *(frame, view.time, view.source, view.destination, view.protocol, len(view.octets), view.summary),
        ports=ports,
        link_octets=link_octets,
    )

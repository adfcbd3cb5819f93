"""The observer held against tshark, field by field, on every capture that a run recorded.

    assert_tshark_agrees(run_directory)    raises AssertionError with every difference of every file

Compared are frames and octets; TCP and UDP conversations with their ends and the packets and octets of each direction;
names and addresses of DNS, hosts and URLs of HTTP, server names of TLS and QUIC, names in certificates, and JA3.

`annotated.pcapng` and `unwrapped.pcapng` are left out: they hold the secrets with which tshark reads what nobody on the
path can, and unwrapped control packets are not what was on the wire. Every other capture of a run is compared: those
of the taps, those of the tunnel's inside, and the views of the observers.
"""

from __future__ import annotations

import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from testbed.facts import Kind
from testbed.observer import Flow, Observation, observe

WITH_SECRETS = {"annotated.pcapng", "unwrapped.pcapng"}
QUIET = "Running as user"  # tshark's remark to root
ROOT = "<Root>"  # how tshark writes the empty name of EDNS's record, which names nobody
JA3 = "tls.handshake.ja3"
BETWEEN = "\x1f"  # no value holds it
TRANSPORTS = ("tcp", "udp")
FIELDS = (
    *("frame.len", "frame.protocols", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst"),
    *(f"{transport}.{name}" for transport in TRANSPORTS for name in ("stream", "srcport", "dstport")),
    *("dns.qry.name", "dns.resp.name", "dns.soa.mname", "dns.cname", "dns.ns", "dns.a", "dns.aaaa"),
    *("http.host", "http2.headers.authority", "http.request.full_uri", "http2.request.full_uri"),
    *("tls.handshake.extensions_server_name", "x509ce.dNSName", JA3),
)
Row = Mapping[str, list[str]]  # the values of one frame by field
Side = tuple[str, int, int]  # an end of a conversation, and the packets and octets it sent
Conversation = tuple[str, tuple[Side, ...]]


def assert_tshark_agrees(run_directory: Path) -> None:
    """Compare all captures of a run; a run without any is a mistake of the test that asks."""
    captures = [path for path in sorted(run_directory.rglob("*.pcapng")) if path.name not in WITH_SECRETS]
    assert captures, f"no captures in {run_directory}"
    wrong = [f"{path.relative_to(run_directory)}: {words}" for path in captures for words in differences(path)]
    assert wrong == [], "\n".join(wrong)


def differences(capture: Path) -> Iterator[str]:
    """What the observer and tshark say differently of one file, in words."""
    observation, rows = observe(capture), list(_rows(capture))
    if not observation.complete or observation.warnings:
        yield f"the observer is incomplete: {observation.warnings}"
    yield from _unequal("frames", [observation.frames], [len(rows)])
    yield from _unequal("octets", [observation.octets], [sum(int(row["frame.len"][0]) for row in rows)])
    yield from _unequal("conversations", map(_conversation, _transported(observation)), _conversations(rows))
    for what, (ours, theirs) in COMPARED.items():
        yield from _unequal(
            what, set(ours(observation)), {value.lower() for name in theirs for value in _all(rows, name)}
        )


def _rows(capture: Path) -> Iterator[Row]:
    words = [word for name in FIELDS for word in ("-e", name)]
    layout = ("-T", "fields", "-E", "separator=/t", "-E", f"aggregator={BETWEEN}", "-E", "occurrence=a")
    done = subprocess.run(
        ["tshark", "-n", "-r", str(capture), *layout, *words], capture_output=True, text=True, timeout=120, check=True
    )
    assert [line for line in done.stderr.splitlines() if line and QUIET not in line] == []
    for line in done.stdout.splitlines():
        values = (cell.split(BETWEEN) if cell else [] for cell in line.split("\t"))
        yield dict(zip(FIELDS, values, strict=True))


def _all(rows: Iterable[Row], name: str) -> set[str]:
    return {value for row in rows if not (name == JA3 and _is_openvpn(row)) for value in row[name]} - {ROOT}


def _is_openvpn(row: Row) -> bool:
    """Whether it is a packet of OpenVPN: of a handshake inside Wireshark reads only what fits into one."""
    return "openvpn" in row["frame.protocols"][0].split(":")


def _unequal(what: str, ours: Iterable[Any], theirs: Iterable[Any]) -> Iterator[str]:
    mine, others = Counter(ours), Counter(theirs)
    if mine != others:
        yield f"{what}: only the observer {sorted(mine - others)[:4]}, only tshark {sorted(others - mine)[:4]}"


def _seen(*kinds: Kind) -> Callable[[Observation], Iterable[str]]:
    return lambda observation: (one.value.lower() for one in observation.sightings if one.kind in kinds)


def _fingerprints(observation: Observation) -> Iterable[str]:
    """Those that Wireshark can be asked for: it joins no hello that OpenVPN cut into several control packets."""
    return (hint.value for hint in observation.hints if hint.what == "ja3" and "tls" in hint.display_filter)


COMPARED: dict[str, tuple[Callable[[Observation], Iterable[str]], tuple[str, ...]]] = {
    "names in DNS": (_seen(Kind.DNS_NAME), ("dns.qry.name", "dns.resp.name", "dns.soa.mname", "dns.cname", "dns.ns")),
    "addresses in DNS": (_seen(Kind.DNS_ANSWER), ("dns.a", "dns.aaaa")),
    "hosts": (_seen(Kind.HTTP_HOST), ("http.host", "http2.headers.authority")),
    "URLs": (_seen(Kind.HTTP_URL), ("http.request.full_uri", "http2.request.full_uri")),
    "server names": (_seen(Kind.TLS_NAME, Kind.QUIC_NAME), ("tls.handshake.extensions_server_name",)),
    "certificates": (_seen(Kind.TLS_CERTIFICATE), ("x509ce.dNSName",)),
    "JA3": (_fingerprints, (JA3,)),
}


def _transported(observation: Observation) -> Iterator[Flow]:
    return (flow for flow in observation.flows if flow.protocol in TRANSPORTS)


def _conversation(flow: Flow) -> Conversation:
    ends = ((flow.client, flow.sent), (flow.server, flow.received))
    sides = ((f"{end.address} {end.port}", volume.packets, volume.octets) for end, volume in ends)
    return flow.protocol, tuple(sorted(sides))


def _conversations(rows: Iterable[Row]) -> Iterator[Conversation]:
    """Wireshark's streams; what an ICMP error quotes belongs to none."""
    streams: dict[tuple[str, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for row in rows:
        transport = next((name for name in TRANSPORTS if row[f"{name}.stream"]), "")
        if not transport or "icmp" in row["frame.protocols"][0]:
            continue
        sides = streams[transport, row[f"{transport}.stream"][0]]
        source, destination = (_end(row, transport, *names) for names in (("src", "srcport"), ("dst", "dstport")))
        for end, packets in ((source, 1), (destination, 0)):  # a side that never speaks is a side
            sides[end][0] += packets
            sides[end][1] += packets * int(row["frame.len"][0])
    for (transport, _), sides in streams.items():
        yield transport, tuple(sorted((end, packets, octets) for end, (packets, octets) in sides.items()))


def _end(row: Row, transport: str, address: str, port: str) -> str:
    return f"{(row[f'ip.{address}'] or row[f'ipv6.{address}'])[0]} {row[f'{transport}.{port}'][0]}"

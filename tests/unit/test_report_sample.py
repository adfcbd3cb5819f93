"""A realistic result for the report's tests: three variants of the shipped scenario, hostile strings among its facts.

Built by rules, not by hand, so that verdicts, evidence and counts agree with one another as a real run's do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from testbed.report.packets import Layer, PacketLine, PacketView
from testbed.result import (
    ActionRecord,
    Evidence,
    ExpectationResult,
    Exposure,
    FactRef,
    RunResult,
    TapRecord,
    VariantResult,
    Verdict,
)

START = 1_767_225_600.0
HOSTILE_HEADER = "X-Note: <script>document.title='owned'</script>\x1b[31m\u202egpj.exe [bold]x[/bold] {{ 7*7 }}"
HOSTILE_HOST = "<img src=x onerror=alert(1)>.example"
ACTIONS = (
    ("1-dns", "dns", "www.example.com"),
    ("2-http", "http", "http://www.example.com/account"),
    ("3-https", "https", "https://www.example.com/"),
    ("4-http", "http", "http://news.example.org/today"),
    ("5-http", "http", "http://intranet.corp.example/wiki"),
    ("6-ping", "ping", "www.example.com"),
)
SITES = {
    "www.example.com": "93.184.216.34",
    "news.example.org": "93.184.216.34",
    "intranet.corp.example": "10.20.0.10",
}
TUNNELS: dict[str, dict[str, Any] | None] = {
    "without": None,
    "with": {"program": "vpn", "mode": "tls", "transport": "udp", "cipher": "AES-256-GCM", "control": "tls-crypt",
             "routes": "all", "dns": "tunnel", "interface": "tun0", "seconds_to_ready": 0.412},
    "split": {"program": "vpn", "mode": "tls", "transport": "udp", "cipher": "AES-256-GCM", "control": "tls-crypt",
              "routes": ["10.20.0.0/24"], "dns": "isp", "interface": "tun0", "seconds_to_ready": 0.407},
}  # fmt: skip
CANARIES = {"without": "k3v9qm2x7ta4wz51", "with": "p0d8rh6n1yc5ub72", "split": "e7fj4sg9la2ov63i"}
FILTERS = {
    "dns-name": 'dns.qry.name == "{}"',
    "http-url": 'http.request.full_uri == "{}"',
    "http-header": 'http.request.line contains "{}"',
    "tls-name": 'tls.handshake.extensions_server_name == "{}"',
}


def facts_of(variant: str) -> Iterator[FactRef]:
    canary = CANARIES[variant]
    for action, verb, target in ACTIONS:
        site = target.split("/")[2] if "/" in target else target
        yield FactRef("dns-name", f"{action[0]}-{canary}.{site}" if verb == "dns" else site, action, site)
        yield FactRef("dns-answer", SITES[site], action, site)
        if verb != "dns":
            yield FactRef("server-address", SITES[site], action, site)
        if verb == "http":
            yield FactRef("http-host", site, action, site)
            yield FactRef("http-url", f"{target}/{canary}{action[0]}", action, site)
            yield FactRef("http-header", f"Cookie: session={canary}{action[0]}", action, site)
            yield FactRef("http-body", f"<title>Your account {canary}</title>", action, site)
        if verb == "https":
            yield FactRef("tls-name", site, action, site)
            yield FactRef("payload", f"GET /{canary} HTTP/1.1", action, site)
    yield FactRef("http-header", HOSTILE_HEADER, "4-http", "news.example.org")
    yield FactRef("http-host", HOSTILE_HOST, "4-http", "news.example.org")
    yield FactRef("client-address", "192.168.0.13", "")


def is_seen(variant: str, fact: FactRef) -> bool:
    if fact.kind == "client-address":
        return True
    if fact.kind == "payload":
        return False
    inside = variant == "with" or (
        variant == "split" and fact.site == "intranet.corp.example" and "dns" not in fact.kind
    )
    return not inside


def exposures_of(variant: str) -> Iterator[Exposure]:
    for number, fact in enumerate(facts_of(variant), start=1):
        if variant == "without" and fact.site == "intranet.corp.example" and fact.kind != "dns-name":
            continue  # the private site did not answer
        yield _exposure(variant, "isp", number, fact, is_seen(variant, fact))
    yield from _metadata(variant)
    address = "198.51.100.10" if variant == "with" else "192.168.0.13"
    yield _server_row(variant, "www.example.com", FactRef("client-address", address, "2-http", "www.example.com"))
    yield _server_row(variant, "www.example.com", FactRef("http-url", f"/account/{CANARIES[variant]}2", "2-http"))


def _exposure(variant: str, observer: str, number: int, fact: FactRef, seen: bool) -> Exposure:
    if seen:
        wanted = FILTERS.get(fact.kind, 'frame contains "{}"').format(fact.value.replace('"', '\\"'))
        evidence = tuple(
            Evidence(f"{variant}/{observer}.pcapng", number * 3 + step, START + number * 0.031 + step * 0.004, wanted)
            for step in range(2)
        )
        return Exposure(observer, fact, Verdict.SEEN, evidence)
    if fact.kind == "http-body" and variant == "split":
        return Exposure(observer, fact, Verdict.UNPROVEN, (), "no control: the body is readable in no other capture")
    reason = "searched 412 frames and 9 streams: plain, lower case, DNS labels, hex, base64, percent-encoded; " + (
        "control fired in without/isp.pcapng frame 14"
        if fact.kind != "payload"
        else "control fired in the server's log"
    )
    return Exposure(observer, fact, Verdict.HIDDEN, (), reason)


def _metadata(variant: str) -> Iterator[Exposure]:
    file = f"{variant}/isp.pcapng"
    if TUNNELS[variant] is not None:
        value = "OpenVPN over UDP 192.168.0.13:49152 -> 198.51.100.10:1194"
        proof = Evidence(file, 1, START - 0.2, "udp.port == 1194 && openvpn")
        reason = "hard reset, then its acknowledgement: certain at packet 2"
        yield Exposure("isp", FactRef("tunnel", value, ""), Verdict.SEEN, (proof,), reason)
    volume = f"{64 if variant == 'without' else 91} packets up, {71 if variant == 'without' else 98} down; 61.2 kB"
    proof = Evidence(file, 1, START, "ip.addr == 192.168.0.13")
    yield Exposure("isp", FactRef("volume", volume, ""), Verdict.SEEN, (proof,))
    yield Exposure("isp", FactRef("timing", "0.000 s to 0.912 s in 5 bursts", ""), Verdict.SEEN, (proof,))


def _server_row(variant: str, site: str, fact: FactRef) -> Exposure:
    proof = Evidence(f"{variant}/logs/{site}.jsonl", 3, START + 0.2, "")
    return Exposure(f"server:{site}", fact, Verdict.SEEN, (proof,))


def _actions(variant: str) -> tuple[ActionRecord, ...]:
    records = []
    for number, (action, verb, target) in enumerate(ACTIONS):
        ok = not (variant == "without" and "intranet" in target)
        began = START + number * 0.15
        detail = "200, 412 octets from 93.184.216.34" if verb.startswith("http") else "93.184.216.34 in 4 ms"
        error = "" if ok else "no such name: intranet.corp.example (NXDOMAIN from 192.168.0.1)"
        records.append(ActionRecord(action, verb, target, ok, began, began + 0.12, detail if ok else "", error))
    return tuple(records)


def _interfaces(variant: str) -> tuple[dict[str, Any], ...]:
    rows: list[dict[str, Any]] = [
        {"name": "lo", "state": "up", "mtu": 65536, "addresses": ["127.0.0.1/8", "::1/128"]},
        {"name": "eth0", "state": "up", "mtu": 1500, "addresses": ["192.168.0.13/24", "2001:db8:1::13/64"]},
    ]
    if TUNNELS[variant]:
        rows.append({"name": "tun0", "state": "up", "mtu": 1500, "addresses": ["10.8.0.2/24", "2001:db8:8::2/64"]})
    return tuple(rows)


def _route(destination: str, interface: str, gateway: str | None = None) -> dict[str, Any]:
    family = "inet6" if ":" in destination else "inet"
    return {"family": family, "destination": destination, "gateway": gateway, "interface": interface, "metric": 0}


def _routes(variant: str) -> tuple[dict[str, Any], ...]:
    base = (_route("default", "eth0", "192.168.0.1"), _route("192.168.0.0/24", "eth0"))
    if variant == "with":
        halves = (_route("0.0.0.0/1", "tun0", "10.8.0.1"), _route("128.0.0.0/1", "tun0", "10.8.0.1"))
        return (*halves, _route("198.51.100.10/32", "eth0", "192.168.0.1"), *base, _route("2000::/3", "tun0"))
    return (_route("10.20.0.0/24", "tun0", "10.8.0.1"), *base) if variant == "split" else base


def _egress(variant: str) -> Iterator[dict[str, Any]]:
    for site, address in SITES.items():
        inside = variant == "with" or (variant == "split" and address.startswith("10."))
        yield {
            "site": site, "address": address, "interface": "tun0" if inside else "eth0",
            "gateway": "10.8.0.1" if inside else "192.168.0.1", "source": "10.8.0.2" if inside else "192.168.0.13",
            "error": None,
        }  # fmt: skip


def sample_variant(name: str) -> VariantResult:
    return VariantResult(
        name=name,
        tunnel=TUNNELS[name],
        actions=_actions(name),
        interfaces=_interfaces(name),
        routes=_routes(name),
        egress=tuple(_egress(name)),
        taps=(TapRecord("isp", "isp", "isp-client", f"{name}/isp.pcapng", 135, 61_204, 0),),
        exposure=tuple(exposures_of(name)),
        leaks=({"kind": "dns-name", "value": "news.example.org", "action": "4-http", "evidence": []},)
        if name == "split"
        else (),
        metrics={"build_seconds": 0.021, "workload_seconds": 0.92, "octets_up": 18_233.0, "octets_down": 42_971.0},
    )


def sample_result(*, ok: bool = False) -> RunResult:
    """Three variants, about thirty facts for the ISP in each, one expectation that fails unless `ok`."""
    failing = ExpectationResult(
        "split", "isp", "hides", "http-body (site intranet.corp.example)", ok,
        "1 fact: hidden" if ok else "1 fact is unproven: no control: the body is readable in no other capture",
    )  # fmt: skip
    proof = (Evidence("without/isp.pcapng", 12, START + 0.1, FILTERS["dns-name"].format("www.example.com")),)
    return RunResult(
        scenario={
            "name": "what-a-vpn-hides",
            "title": "What does a VPN hide from your ISP?",
            "description": "The client looks up and opens sites without a tunnel, with one, and with a split one.",
            "file": "scenarios/what-a-vpn-hides.yaml",
        },
        seed=1,
        ok=ok,
        variants={name: sample_variant(name) for name in TUNNELS},
        expectations=(
            ExpectationResult("without", "isp", "sees", "dns-name", True, "6 of 6 facts seen", proof),
            ExpectationResult("without", "isp", "sees", "http-url", True, "2 of 2 facts seen", proof),
            ExpectationResult("with", "isp", "sees", "tunnel", True, "1 of 1 facts seen"),
            ExpectationResult("with", "isp", "hides", "dns-name", True, "6 of 6 facts hidden, controls fired"),
            ExpectationResult("with", "server:www.example.com", "hides", "client-address", True, "hidden"),
            failing,
        ),
        environment={
            "command": "sudo testbed run what-a-vpn-hides --seed 1",
            "testbed": "0.1.0",
            "python": "3.11.2",
            "kernel": "6.1.0",
            "mode": "root",
            "scenario_sha256": "9f86d081884c7d659a2feaa0c55ad015",
        },
        warnings=("split: the tap saw 1 frame with a bad checksum",),
    )


def sample_packet(*, text: str = "GET /account HTTP/1.1\r\nHost: www.example.com\r\n\r\n") -> PacketView:
    """An HTTP request in TCP in IPv4 in Ethernet; the octets agree with the layers' ranges."""
    data = text.encode()
    ethernet, ip, tcp = bytes.fromhex("02000000000102000000000208 00"), b"\x45" + bytes(19), bytes(20)
    return PacketView(
        time=START + 0.031,
        source="192.168.0.13",
        destination="93.184.216.34",
        protocol="HTTP",
        summary=text.splitlines()[0],
        layers=(
            Layer("Ethernet II", (("source", "02:00:00:00:00:02"), ("type", "IPv4")), 0, 14),
            Layer("Internet Protocol Version 4", (("source", "192.168.0.13"), ("ttl", "64")), 14, 34),
            Layer("Transmission Control Protocol", (("source port", "40112"), ("flags", "PSH, ACK")), 34, 54),
            Layer("Hypertext Transfer Protocol", (("request", text), ("host", HOSTILE_HOST)), 54, 54 + len(data)),
        ),
        octets=ethernet + ip + tcp + data,
    )


def sample_packets() -> dict[tuple[str, int], PacketView]:
    """The evidence packets of the variant without a tunnel, and one of the tunnel's."""
    packets = {("without/isp.pcapng", frame): sample_packet() for frame in range(3, 60)}
    sealed = Layer("OpenVPN data (ciphertext)", (("opcode", "P_DATA_V2"), ("peer id", "0")), 42, 122, encrypted=True)
    packets["with/isp.pcapng", 1] = PacketView(
        START - 0.2, "192.168.0.13", "198.51.100.10", "OpenVPN", "P_DATA_V2 peer 0, 80 octets",
        (Layer("Ethernet II", (), 0, 14), Layer("Internet Protocol Version 4", (), 14, 34),
         Layer("User Datagram Protocol", (("destination port", "1194"),), 34, 42), sealed),
        bytes.fromhex("0200000000010200000000020800") + b"\x45" + bytes(27) + bytes(range(160, 240)),
    )  # fmt: skip
    return packets


def sample_packet_lists() -> dict[str, list[PacketLine]]:
    client, web, vpn = "192.168.0.13", "93.184.216.34", "198.51.100.10"
    clear = [
        PacketLine(1, START, client, "192.168.0.1", "DNS", 75, "Standard query A www.example.com"),
        PacketLine(2, START + 0.004, "192.168.0.1", client, "DNS", 91, "Standard query response A 93.184.216.34"),
        PacketLine(3, START + 0.006, client, web, "TCP", 74, "40112 → 80 [SYN]"),
        PacketLine(4, START + 0.010, web, client, "TCP", 74, "80 → 40112 [SYN, ACK]"),
        PacketLine(5, START + 0.011, client, web, "HTTP", 210, "GET /account/k3v9qm2x7ta4wz51 HTTP/1.1"),
        PacketLine(6, START + 0.019, web, client, "HTTP", 611, "HTTP/1.1 200 OK (text/html) <script>alert(2)</script>"),
    ]
    sealed = [
        PacketLine(n, START + n * 0.004, *((client, vpn) if n % 2 else (vpn, client)), "OpenVPN", 120 + 91 * (n % 5),
                   "MessageType: P_DATA_V2")
        for n in range(1, 9)
    ]  # fmt: skip
    return {"without": clear, "with": sealed}


def test_the_sample_has_three_variants_and_every_verdict() -> None:
    result = sample_result()
    verdicts = {row.verdict for variant in result.variants.values() for row in variant.exposure}
    assert list(result.variants) == ["without", "with", "split"]
    assert verdicts == set(Verdict)
    assert len(result.variants["with"].exposure) >= 25

"""One run in several modes: the map from inner to outer packets, measured expectations, and captures that explain
themselves, judged by tshark and capinfos."""

from __future__ import annotations

import csv
import stat
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.running import Ran, run_text

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow]

SCENARIO = """
title: What do the packets carry?
sites:
  www.example.com: {address: [93.184.216.34, "2001:db8:4::34"], node: web, http: true, https: true}
tunnel: {}
workload:
  - dns: www.example.com
  - http: {url: "http://www.example.com/account", family: ipv4}
  - https: {url: "https://www.example.com/account", family: ipv6}
  - run: [curl, -s, --ipv4, "http://www.example.com/only-the-program-knows"]
variants:
  without: {tunnel: null}
  with: {}
  tcp: {tunnel: {transport: tcp, control: tls-crypt-v2, cipher: AES-256-CBC}}
  bare: {tunnel: {control: none, program: {client: openvpn, server: vpn}}}
  static: {tunnel: {mode: static-key}}
  unset: {tunnel: {routes: [], dns: isp}}
expect:
  - {variant: with, observer: isp, leaks: none, first_leak_after: never, tunnel_detected_at_packet: "<= 10"}
  - {variant: with, observer: isp, overhead: "<= 60", volume: ">= 1 kB", packets: ">= 20"}
  - {variant: with, observer: isp, hides: [{kind: http-url, action: 4-run, count: "== 1"}]}
  - {variant: without, observer: isp, sees: [{kind: dns-answer, count: ">= 2"}, {kind: http-url, action: 4-run}]}
  - {variant: with, observer: "server:www.example.com", client-address: [198.51.100.10, "2001:db8:3::10"]}
  - {variant: with, observer: isp, leaks: ">= 1", overhead: "<= 10", packets: "<= 3", volume: "<= 1 kB"}
  - {variant: with, observer: isp, tunnel_detected_at_packet: never, first_leak_after: "<= 2s"}
  - {variant: without, observer: isp, sees: [{kind: dns-answer, count: ">= 9"}]}
  - {variant: without, observer: "server:www.example.com", client-address: 198.51.100.10}
  - {variant: unset, observer: isp, leaks: none, first_leak_after: ">= 60s"}
"""
HOLDING = 10  # entries of the first five lines; all others must fail
TUNNELS = ("with", "tcp", "bare", "static", "unset")
QUIET_STDERR = "Running as user"  # tshark's remark to root


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    done = run_text(SCENARIO, tmp_path_factory.mktemp("explained"))
    assert done.code == 1, done.stdout + done.stderr  # for the expectations that are meant to fail
    return done


def tshark(file: Path, *arguments: str) -> list[str]:
    done = subprocess.run(
        ["tshark", "-r", str(file), *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if line and QUIET_STDERR not in line]
    assert done.returncode == 0, done.stderr
    assert not complaints
    return done.stdout.splitlines()


def fields(file: Path, display_filter: str, *names: str) -> list[list[str]]:
    words = [word for name in names for word in ("-e", name)]
    return [line.split("\t") for line in tshark(file, "-N", "n", "-Y", display_filter, "-T", "fields", *words)]


def links(ran: Ran, variant: str) -> list[dict[str, str]]:
    with (ran.out / variant / "inner-outer.csv").open() as file:
        return list(csv.DictReader(file))


def test_measured_expectations_hold_where_they_should_and_fail_where_they_should(ran: Ran) -> None:
    rows = ran.result["expectations"]
    told = [f"{row['variant']} {row['observer']} {row['relation']} {row['selector']}: {row['reason']}" for row in rows]
    assert [row["holds"] for row in rows] == [True] * HOLDING + [False] * (len(rows) - HOLDING), "\n".join(told)
    without_proof = {row["relation"] for row in rows if not row["evidence"]}
    assert without_proof <= {"leaks", "first_leak_after", "hides"}, (
        "what never happened and what is hidden have no packet"
    )


def test_what_a_program_did_is_judged_although_it_told_nothing(ran: Ran) -> None:
    cells = {
        (name, row["verdict"])
        for name, variant in ran.result["variants"].items()
        for row in variant["exposure"]
        if row["observer"] == "isp" and row["fact"]["value"].endswith("/only-the-program-knows")
    }
    assert {("without", "seen"), ("with", "hidden"), ("unset", "seen")} <= cells


def test_a_tunnel_whose_routes_were_never_set_leaks(ran: Ran) -> None:
    leaks = ran.result["variants"]["unset"]["leaks"]
    assert {"dns-name", "http-url", "server-address"} <= {leak["kind"] for leak in leaks}


@pytest.mark.parametrize("variant", TUNNELS[:4])
def test_every_inner_packet_is_linked_to_what_carried_it(ran: Ran, variant: str) -> None:
    told = ran.result["variants"][variant]["ground_truth"]
    assert told["mapped"], told
    assert told["inner_packets_mapped"] == told["inner_packets"] > 20
    carried = [row for row in links(ran, variant) if row["carries"] == "packet" and row["inner_frame"]]
    assert {row["action"] for row in carried} >= {"1-dns", "2-http", "3-https", "4-run"}
    assert all(int(row["overhead_octets"]) > 20 for row in carried)


@pytest.mark.parametrize("variant", ["with", "bare"])
def test_each_link_fits_the_sizes_and_times_that_tshark_reads(ran: Ran, variant: str) -> None:
    outer = {
        int(number): (float(time), int(octets))
        for number, time, octets in fields(
            ran.out / variant / "isp.pcapng", "udp.port == 1194", *NUMBER_TIME, "udp.length"
        )
    }
    inner = {
        int(number): (float(time), int(octets))
        for number, time, octets in fields(ran.out / variant / "client-tun.pcapng", "frame", *NUMBER_TIME, "frame.len")
    }
    linked = [row for row in links(ran, variant) if row["inner_frame"] and row["outer_frame"]]
    carriers = Counter(row["inner_frame"] for row in linked)
    assert len(carriers) == len(inner)
    for row in linked:
        inner_time, octets = inner[int(row["inner_frame"])]
        outer_time, udp_octets = outer[int(row["outer_frame"])]
        if carriers[row["inner_frame"]] == 1:
            assert udp_octets == octets + 8 + 24  # UDP's header, then opcode and peer id, packet id, tag
        else:  # a segment larger than the MTU, as a ClientHello with a post-quantum key share is: the tunnel cuts it
            assert udp_octets < octets
        first, last = (inner_time, outer_time) if row["direction"] == "up" else (outer_time, inner_time)
        assert first <= last


NUMBER_TIME = ("frame.number", "frame.time_epoch")


def merged(ran: Ran, name: str) -> Path:
    return ran.out / "captures" / f"{name}.pcapng"


def test_the_merged_capture_decrypts_the_labs_https_in_tshark(ran: Ran) -> None:
    pages = fields(merged(ran, "annotated"), "tls && http.request", "frame.interface_description", "http.host")
    variants = {description.split(",")[0] for description, _ in pages}
    assert variants >= {f"variant {name}" for name in ("without", *TUNNELS)}
    assert {host for _, host in pages} == {"www.example.com"}


def test_names_comments_and_interfaces_are_shown(ran: Ran) -> None:
    file = merged(ran, "annotated")
    asked = fields(file, "dns.flags.response == 0 && ip", "_ws.col.Source", "_ws.col.Destination")
    assert ["client", "isp"] in asked
    # An address has the name of its node and that of its site; which one is shown differs between tshark 4.0 and 4.4.
    shown = {row[0] for row in fields(file, "ip.dst == 93.184.216.34", "_ws.col.Destination")}
    assert shown in ({"www.example.com"}, {"web"})
    interfaces = {row[0] for row in fields(file, "frame", "frame.interface_name")}
    assert interfaces == {"isp:client-isp in", "isp:client-isp out", "client:tun0 in", "client:tun0 out"}
    learned = fields(file, 'frame.comment contains "isp learns here"', "frame.comment")
    assert any("http-url" in row[0] for row in learned)
    assert any("LEAK" in row[0] for row in learned)


def test_remarks_point_from_each_inner_packet_to_its_carrier_and_back(ran: Ran) -> None:
    remarks = {
        int(number): text
        for number, text in fields(merged(ran, "annotated"), "frame.comment", "frame.number", "frame.comment")
    }
    inner = {number: text for number, text in remarks.items() if "carried by packet" in text}
    assert len(inner) > 80
    for number, text in inner.items():
        carriers = text.split("carried by packet ")[1].split(",")
        for carrier in carriers:
            assert f"packet {number}" in remarks[int(carrier)]


def test_the_tunnels_own_tls_can_be_read_where_wireshark_can_undo_the_wrapping_and_in_the_unwrapped_capture(
    ran: Ran,
) -> None:
    bare = fields(merged(ran, "annotated"), "openvpn && tls.handshake", "frame.interface_description")
    assert {row[0].split(",")[0] for row in bare} >= {"variant bare"}
    shown = fields(merged(ran, "unwrapped"), "openvpn && tls", "frame.interface_description", "_ws.col.Info")
    for variant in ("with", "tcp", "bare"):
        told = " ".join(info for where, info in shown if where.startswith(f"variant {variant},"))
        for message in ("Client Hello", "Server Hello", "Certificate Verify", "Finished"):
            assert message in told, (variant, told)
    octets = "".join(
        line.split("  ")[-1] for line in tshark(merged(ran, "unwrapped"), "-x", "-Y", "openvpn && tls.app_data")
    )
    assert octets.count("PUSH_REPLY") == 3 + 1  # of each TLS tunnel, `unset` included


CONTROLS = ("none", "tls-auth", "tls-crypt", "tls-crypt-v2")
HANDSHAKES = f"""
title: Where does the tunnel's handshake open?
tunnel: {{}}
workload: [run: ["true"]]
variants: {{{", ".join(f"{control}: {{tunnel: {{control: {control}}}}}" for control in CONTROLS)}}}
"""


def test_the_tunnels_handshake_opens_in_the_unwrapped_capture_in_every_form(
    tmp_path: Path,
) -> None:
    """In the annotated one it stands as it was on the wire, where Wireshark joins no hello that takes two packets."""
    ran = run_text(HANDSHAKES, tmp_path)
    assert ran.code == 0, ran.stdout + ran.stderr
    where = "frame.interface_description"
    shown = fields(merged(ran, "unwrapped"), "openvpn && tls.handshake", where, "tls.handshake.type")
    for control in CONTROLS:
        types = {
            number for place, text in shown if place.startswith(f"variant {control},") for number in text.split(",")
        }
        # Client Hello, Server Hello, and decrypted: session ticket, extensions, certificate, its proof, Finished
        assert types >= {"1", "2", "4", "8", "11", "15", "20"}, (control, types)


def test_an_observers_view_has_its_packets_and_nothing_that_only_the_lab_knows(ran: Ran) -> None:
    view = merged(ran, "isp-view")
    assert {row[0] for row in fields(view, "frame", "frame.interface_name")} == {
        "isp:client-isp in",
        "isp:client-isp out",
    }
    assert fields(view, "frame.comment || http2 || (tls && http)", "frame.number") == []
    names = {name for row in fields(view, "ip", "_ws.col.Source", "_ws.col.Destination") for name in row}
    assert {"client", "isp"} <= names
    assert "www.example.com" not in names
    octets = view.read_bytes()
    assert b"TRAFFIC_SECRET" not in octets
    assert b"EXPORTER" not in octets
    packets = sum(tap["packets"] for v in ran.result["variants"].values() for tap in v["taps"] if tap["name"] == "isp")
    assert len(tshark(view)) == packets


def test_only_files_without_secrets_are_open_to_others(ran: Ran) -> None:
    told: dict[str, dict[str, Any]] = {Path(entry["file"]).name: entry for entry in ran.result["captures"]}
    assert set(told) == {path.name for path in (ran.out / "captures").iterdir()}
    for name, entry in told.items():
        mode = stat.S_IMODE((ran.out / "captures" / name).stat().st_mode)
        assert mode == (0o600 if entry["secrets"] else 0o644)
        assert entry["secrets"] is (name in ("annotated.pcapng", "unwrapped.pcapng"))
    written = [path for path in ran.out.rglob("*") if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o044]
    assert not [path for path in written if b"EXPORTER_SECRET" in path.read_bytes()]


def each_capture(ran: Ran) -> Iterator[Path]:
    yield from sorted((ran.out / "captures").iterdir())


def test_capinfos_finds_nothing_wrong(ran: Ran) -> None:
    for file in each_capture(ran):
        done = subprocess.run(["capinfos", str(file)], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0
        assert done.stderr == ""
        assert "Name = isp:client-isp in" in done.stdout
        assert fields(file, "ip.checksum.status == 0 || udp.checksum.status == 0", "frame.number") == []

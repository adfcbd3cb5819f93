"""The batch data path under traffic: every octet arrives, whoever is at the other end, and the wire carries ordinary
frames.

The kernel, openvpn and tshark judge: TCP hashes of random octets end to end, openvpn takes each datagram for its own,
tshark recomputes every checksum of what the ISP and the inner network saw.
"""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from testbed.lab.model import LinkRequest
from tests.interop.tunnel_configs import PUSH_SPLIT, Setup, make_keys
from tests.interop.tunnel_lab import (
    INNER_SERVER,
    INNER_SERVER6,
    OPENVPN,
    OURS,
    SERVER,
    SERVER6,
    TunnelLab,
    in_lab,
)

pytestmark = [pytest.mark.root, pytest.mark.interop]

DATAGRAMS = str(Path(__file__).with_name("datagrams.py"))
BULK = str(Path(__file__).with_name("bulk.py"))
BAD_LINK = LinkRequest("isp", "transit", delay=0.001, loss=1.0, reorder=2.0)  # by the same seed each time
PAIRS = [(OURS, OURS), (OURS, OPENVPN), (OPENVPN, OURS)]


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_keys(tmp_path_factory.mktemp("pki") / "keys")


def bulk(lab: TunnelLab, way: str, address: str, octets: int, streams: int = 4) -> dict[str, int]:
    printed = lab.output("client", "python3", BULK, way, address, str(octets), str(streams), seconds=300.0)
    found: dict[str, int] = json.loads(printed.splitlines()[-1])
    return found


@pytest.mark.slow
def test_two_hundred_megabytes_survive_loss_reordering_and_renegotiation(keys: Path, tmp_path: Path) -> None:
    setup = Setup(keys, PUSH_SPLIT, server_only=("reneg-pkts 30000", "verb 4"), client_only=("reneg-sec 0",))

    def body(lab: TunnelLab) -> list[Any]:
        server, _ = lab.connect(OURS, setup.server(), OURS, setup.client())
        lab.start("vpn", ["python3", BULK, "serve"], "bulk").wait_for("serving")
        sent = bulk(lab, "send", INNER_SERVER, 100_000_000, 8)
        fetched = bulk(lab, "fetch", INNER_SERVER6, 100_000_000, 8)
        return [sent, fetched, server.text().count("new session key in use")]

    sent, fetched, renegotiations = in_lab(body, tmp_path, links=(BAD_LINK,))
    assert sent == fetched == {"equal": 8, "of": 8}
    assert renegotiations >= 2


@pytest.mark.parametrize(("server", "client"), PAIRS)
@pytest.mark.parametrize("transport", ["udp", "udp6", "tcp"])
def test_bulk_passes_both_ways_in_both_versions_with(
    server: str, client: str, transport: str, keys: Path, tmp_path: Path
) -> None:
    cipher = {"udp": "AES-256-GCM", "udp6": "CHACHA20-POLY1305", "tcp": "AES-128-GCM"}[transport]
    address = SERVER6 if transport.endswith("6") else SERVER
    setup = Setup(keys, PUSH_SPLIT, address, transport, cipher=cipher)

    def body(lab: TunnelLab) -> list[Any]:
        lab.connect(server, setup.server(), client, setup.client())
        lab.start("vpn", ["python3", BULK, "serve"], "bulk").wait_for("serving")
        inner = (INNER_SERVER, INNER_SERVER6)
        return [bulk(lab, way, address, 4_000_000) for way in ("send", "fetch") for address in inner]

    assert in_lab(body, tmp_path) == [{"equal": 4, "of": 4}] * 4


@pytest.mark.parametrize("option", ["cipher AES-256-CBC", "compress stub", "tun-mtu 48000", "client-to-client"])
def test_bulk_passes_where_there_is_no_batch_path_with(option: str, keys: Path, tmp_path: Path) -> None:
    cbc = option.startswith("cipher")
    both = () if cbc or option == "client-to-client" else (option,)
    server_only = (option,) if option == "client-to-client" else ()
    cipher = "AES-256-CBC" if cbc else "AES-256-GCM"
    setup = Setup(keys, PUSH_SPLIT, cipher=cipher, both=both, server_only=server_only)

    def body(lab: TunnelLab) -> list[Any]:
        lab.connect(OURS, setup.server(), OURS, setup.client())
        lab.start("vpn", ["python3", BULK, "serve"], "bulk").wait_for("serving")
        return [bulk(lab, way, INNER_SERVER, 4_000_000) for way in ("send", "fetch")]

    assert in_lab(body, tmp_path) == [{"equal": 4, "of": 4}] * 2


@pytest.mark.parametrize(("server", "client"), PAIRS)
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_large_packets_pass_with(server: str, client: str, transport: str, keys: Path, tmp_path: Path) -> None:
    setup = Setup(keys, PUSH_SPLIT, proto=transport, both=("tun-mtu 20000", "mssfix 0"))

    def body(lab: TunnelLab) -> list[Any]:
        lab.connect(server, setup.server(), client, setup.client())
        answer = lab.output("client", "ping", "-n", "-c", "1", "-W", "5", "-s", "19000", INNER_SERVER)
        lab.start("vpn", ["python3", BULK, "serve"], "bulk").wait_for("serving")
        return [" 0% packet loss" in answer, *(bulk(lab, way, INNER_SERVER, 2_000_000) for way in ("send", "fetch"))]

    assert in_lab(body, tmp_path) == [True, {"equal": 4, "of": 4}, {"equal": 4, "of": 4}]


@pytest.mark.parametrize("client", [OURS, OPENVPN])
def test_no_frame_is_too_large_and_no_checksum_is_wrong_inside_and_out(client: str, keys: Path, tmp_path: Path) -> None:
    # openvpn's device has no offload: what it shows came out of the tunnel octet by octet
    server = OPENVPN if client == OURS else OURS
    end = "vpn" if server == OPENVPN else "client"
    setup = Setup(keys, PUSH_SPLIT)

    def body(lab: TunnelLab) -> list[str]:
        lab.connect(server, setup.server(), client, setup.client())
        lab.start("vpn", ["python3", BULK, "serve"], "bulk").wait_for("serving")
        recorders = []
        for node, interface in {"isp": "isp-eth0", end: "tun0"}.items():
            argv = ["tcpdump", "-n", "-i", interface, "-w", str(tmp_path / f"{node}.pcap"), "-B", "32768", "-Z", "root"]
            recorders.append(lab.start(node, argv, f"tcpdump-{node}"))
            recorders[-1].wait_for("listening on")
        way = "send" if client == OURS else "fetch"
        found = [bulk(lab, way, address, 3_000_000) for address in (INNER_SERVER, INNER_SERVER6)]
        for recorder in recorders:
            recorder.stop(signal.SIGINT)
        return [str(sum(entry["equal"] for entry in found)), "isp", end]

    equal, *nodes = in_lab(body, tmp_path)
    assert int(equal) == 8
    for node in nodes:
        frames = dissected(tmp_path / f"{node}.pcap")
        assert len(frames) > 3000
        largest = 1514 if node == "isp" else 1500
        assert max(int(octets) for octets, *_ in frames) <= largest
        assert not [frame for frame in frames if _BAD in frame[1:4] and frame[4] != _MANGLED_ZERO]
    assert sum(frame[3] == _GOOD for frame in dissected(tmp_path / f"{nodes[1]}.pcap")) > 3000


_BAD, _GOOD = "0", "1"
# The kernel itself writes 65535 for a checksum of 0, in TCP too (CSUM_MANGLED_0), where Wireshark calls it wrong.
_MANGLED_ZERO = "0xffff"


def dissected(capture: Path) -> list[list[str]]:
    """Of each packet: its octets, and what tshark finds of its IP, UDP and TCP checksums, all recomputed."""
    layers = ("ip", "udp", "tcp")
    checks = [f"-o{layer}.check_checksum:TRUE" for layer in layers]
    names = ("frame.len", *(f"{layer}.checksum.status" for layer in layers), "tcp.checksum")
    fields = [word for name in names for word in ("-e", name)]
    argv = ["tshark", "-n", *checks, "-r", str(capture), "-T", "fields", *fields]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return [line.split("\t") for line in done.stdout.splitlines()]


def test_the_device_offers_offload_to_the_kernel_and_leaves_large_packets_whole(keys: Path, tmp_path: Path) -> None:
    setup = Setup(keys, PUSH_SPLIT)

    def body(lab: TunnelLab) -> list[str]:
        lab.connect(OURS, setup.server(), OURS, setup.client())
        return [lab.output("client", "ethtool", "-k", "tun0"), lab.output("client", "ip", "-d", "link", "show", "tun0")]

    features, link = in_lab(body, tmp_path)
    assert "tcp-segmentation-offload: on" in features
    assert "tx-checksumming: on" in features
    assert "gso_max_size 61500" in link


@pytest.mark.parametrize(("server", "client"), PAIRS)
def test_superpackets_of_udp_arrive_as_their_datagrams_with(
    server: str, client: str, keys: Path, tmp_path: Path
) -> None:
    setup = Setup(keys, PUSH_SPLIT)
    times = 5  # few enough for everybody's queues

    def body(lab: TunnelLab) -> list[Any]:
        lab.connect(server, setup.server(), client, setup.client())
        found = []
        for address in (INNER_SERVER, INNER_SERVER6):
            taker = lab.start("vpn", ["python3", DATAGRAMS, "take", str(times * 40)], "take")
            taker.wait_for("taking")
            for _ in range(times):
                lab.output("client", "python3", DATAGRAMS, "send", address, "1")
            taker.wait(60)
            found.append(json.loads(taker.text().splitlines()[-1]))
        return found

    # every superpacket begins with number 0 again
    assert in_lab(body, tmp_path) == [{"whole": times * 40, "misplaced": times - 1}] * 2


def test_what_finds_no_room_is_dropped_and_counted_and_the_rest_goes_on(keys: Path, tmp_path: Path) -> None:
    """A client that does not get to run for a while finds more in the device's queue than it will hold."""
    setup = Setup(keys, PUSH_SPLIT)

    def body(lab: TunnelLab) -> list[Any]:
        _, client = lab.connect(OURS, setup.server(), OURS, setup.client())
        client.process.send_signal(signal.SIGSTOP)
        lab.output("client", "python3", DATAGRAMS, "send", INNER_SERVER, "100")
        client.process.send_signal(signal.SIGCONT)
        answer = lab.output("client", "ping", "-n", "-c", "3", "-W", "5", INNER_SERVER)
        client.process.send_signal(signal.SIGUSR2)
        client.wait_for("Dropped:")
        return ["3 received" in answer, client.text().split("Dropped:")[1].splitlines()[0]]

    answered, dropped = in_lab(body, tmp_path)
    assert answered
    name, count = dropped.replace(",", "").split()[:2]
    assert name == "QUEUE_FULL"
    # 100 superpackets of 40 datagrams came at once; some ten are held
    assert 0 < int(count) < 100 * 40

"""An impaired link does to real frames what its options say, frame by frame as the pure core says, and only then.

Both ends of the link are captured beside the engine: what the sender put on it, in order and with the kernel's time
stamps, is replayed through the core with the same seed, and what arrived must be that.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import statistics
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mininet.topo import Topo

from testbed.lab.bubble import Bubble, Conductor
from testbed.lab.build import Lab
from testbed.lab.errors import LabBuildError
from testbed.lab.impair.draws import seeded_draws
from testbed.lab.impair.model import Impairment
from testbed.lab.impair.shaper import Shaper
from testbed.lab.node import Node
from testbed.lab.plan import LabPlan, LabRequest, LinkRequest, plan_lab

pytestmark = pytest.mark.root

A, B, PORT = "10.0.0.1", "10.0.0.2", 7000
ETH_P_ALL, PACKET_OUTGOING, SO_TIMESTAMPNS, SO_RCVBUFFORCE = 3, 4, 35, 33
SOCKET_BUFFER_OCTETS = 64 << 20
PATIENCE_SECONDS = 20.0
MS = 1_000_000
LATE_NS = 15 * MS  # how late the middle one of many frames may be while others use this machine
STAMPS_DIFFER_NS = 500_000  # on a busy machine, between the stamps that two sockets give one frame

Frames = list[tuple[int, bytes]]  # when, in ns of real time, and what


class Pair(Topo):  # type: ignore[misc]  # mininet has no types
    def build(self, **options: Any) -> None:
        self.addHost("a", ip=f"{A}/24", ip6="fd00::1/64")
        self.addHost("b", ip=f"{B}/24", ip6="fd00::2/64")
        self.addLink("a", "b", **options)


def pair(seed: int = 1, link: LinkRequest | None = None, **options: Any) -> LabPlan:
    return plan_lab(Pair(**options), LabRequest(links=[link] if link else [], seed=seed))


def in_pair(plan: LabPlan, work: Callable[[Lab], Any], before_up: Callable[[Lab], None] | None = None) -> Any:
    """Run `work` in a fresh lab of two nodes; its JSON value comes back."""

    def inside(_conductor: Conductor) -> Any:
        with Lab.build(plan, before_up) as lab:
            return work(lab)

    with Bubble() as bubble:
        return bubble.run(inside)


@pytest.fixture(autouse=True, scope="module")
def stamps_from_the_kernel() -> Iterator[None]:
    """Have the kernel stamp packets as they come: it turns that on some time after it was asked to.

    What came before is stamped when it is read.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.bind(("127.0.0.1", 0))
        own.connect(own.getsockname())
        own.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            own.send(b"")
            sent_at = time.time_ns()
            seconds, nanoseconds = struct.unpack("=qq", own.recvmsg(16, 64)[1][0][2])
            if seconds * 1_000_000_000 + nanoseconds < sent_at:
                break
            assert time.monotonic() < deadline, "this kernel stamps no packets"
        yield


def listen(node: Node, interface: str) -> socket.socket:
    """Capture at an interface that is still down."""
    heard = node.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    heard.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, SOCKET_BUFFER_OCTETS)
    heard.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    heard.bind((interface, ETH_P_ALL))
    heard.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    heard.setblocking(False)
    return heard


def take(heard: socket.socket, outgoing: bool) -> Frames:
    """Return what was captured so far in one direction."""
    frames: Frames = []
    while True:
        try:
            frame, ancillary, _flags, address = heard.recvmsg(4096, 64)
        except BlockingIOError:
            return frames
        if (address[2] == PACKET_OUTGOING) == outgoing:
            seconds, nanoseconds = struct.unpack("=qq", ancillary[0][2])
            frames.append((seconds * 1_000_000_000 + nanoseconds, frame))


def replayed(sent: Frames, impairment: Impairment, seed: int) -> tuple[Frames, Shaper]:
    """Return when each frame should arrive, as the core says, and the core itself."""
    shaper = Shaper(impairment, seeded_draws(f"{seed}/a:a-eth0>b:b-eth0"))
    for at, frame in sent:
        shaper.accept(frame, at)
    arrivals: Frames = []
    while (departure := shaper.next_departure_at()) is not None:
        arrivals += [(departure, frame) for frame in shaper.due(departure)]
    return arrivals, shaper


def know_neighbour(lab: Lab) -> None:
    """Spare a the question who has b's address: the answer could be lost, and probes would wait for it.

    Nor may a's kernel say which IPv6 groups it is in: what another core sends beside the probes can be recorded before
    one of them and reach the engine behind it, and then their fates are each other's.
    """
    mac = lab.node("b").plan.interfaces[0].mac
    argv = ["ip", "neigh", "replace", B, "lladdr", mac, "dev", "a-eth0"]
    assert lab.node("a").spawn(argv).wait(PATIENCE_SECONDS) == 0
    argv = ["sysctl", "-q", "-w", "net.ipv6.conf.a-eth0.disable_ipv6=1"]
    assert lab.node("a").spawn(argv).wait(PATIENCE_SECONDS) == 0


def send_probes(node: Node, count: int, pause_s: float, octets: int = 64) -> None:
    probe = node.socket(socket.AF_INET, socket.SOCK_DGRAM)
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
    started_at = time.monotonic()
    for number in range(count):
        probe.sendto(number.to_bytes(4, "big").ljust(octets, b"\0"), (B, PORT))
        if pause_s:
            time.sleep(max(0.0, started_at + (number + 1) * pause_s - time.monotonic()))


def settled(lab: Lab, heard: dict[str, socket.socket]) -> tuple[Frames, Frames, dict[str, int]]:
    """Return what a sent, what b received, and the counters, at a moment when the link holds nothing."""
    sent: Frames = []
    received: Frames = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        counters = lab.link_counters("a", "b")["a_to_b"]
        sent += take(heard["a"], outgoing=True)
        received += take(heard["b"], outgoing=False)
        if (counters["held"], counters["accepted"], counters["delivered"]) == (0, len(sent), len(received)):
            return sent, received, counters
        assert time.monotonic() < deadline, f"{len(sent)} sent, {len(received)} received, {counters}"


def probe_link(plan: LabPlan, count: int, pause_s: float = 0.0, octets: int = 64) -> tuple[Frames, Frames, Any]:
    """Send probes from a to b; return what a sent, what b received, and the engine's counters."""
    heard: dict[str, socket.socket] = {}

    def before_up(lab: Lab) -> None:
        heard.update({name: listen(lab.node(name), f"{name}-eth0") for name in "ab"})

    def work(lab: Lab) -> Any:
        sink = lab.node("b").socket(socket.AF_INET, socket.SOCK_DGRAM)  # so that no complaint comes back
        sink.bind((B, PORT))
        know_neighbour(lab)
        send_probes(lab.node("a"), count, pause_s, octets)
        sent, received, counters = settled(lab, heard)
        return [[(at, frame.hex()) for at, frame in frames] for frames in (sent, received)], counters

    (sent, received), counters = in_pair(plan, work, before_up)
    as_bytes = [[(at, bytes.fromhex(text)) for at, text in frames] for frames in (sent, received)]
    assert counters["missed"] == counters["refused"] == 0
    assert len(set(probes(as_bytes[0]))) == count
    return as_bytes[0], as_bytes[1], counters


def impairment_of(plan: LabPlan) -> Impairment:
    impairments = plan.links[0].impairments
    assert impairments is not None
    return impairments[0]


def contents(frames: Frames) -> list[bytes]:
    return [frame for _at, frame in frames]


def probes(frames: Frames) -> list[int]:
    """Return the numbers of the probes among the frames."""
    head = 14 + 20 + 8
    return [
        int.from_bytes(frame[head : head + 4], "big")
        for _at, frame in frames
        if frame[12:14] == b"\x08\x00" and frame[23] == socket.IPPROTO_UDP and frame[36:38] == PORT.to_bytes(2, "big")
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"loss": 20},
        {"loss": 5, "duplicate": 10, "delay": "10ms"},
        {"bw": 100, "delay": "2ms", "duplicate": 3},
    ],
    ids=str,
)
def test_three_thousand_frames_have_exactly_the_fates_of_the_core(options: dict[str, Any]) -> None:
    plan = pair(seed=7, **options, max_queue_size=100_000)
    sent, received, counters = probe_link(plan, 3000)
    expected, core = replayed(sent, impairment_of(plan), 7)
    assert contents(received) == contents(expected)
    assert (counters["lost"], counters["duplicated"]) == (core.counts.lost, core.counts.duplicated)
    for name, share in (("lost", options.get("loss", 0)), ("duplicated", options.get("duplicate", 0))):
        expectation = share / 100 * len(sent) * (1 + (name == "lost") * options.get("duplicate", 0) / 100)
        assert counters[name] == pytest.approx(expectation, abs=5 * (expectation * (1 - share / 100)) ** 0.5 + 1)


def test_the_same_seed_gives_the_same_fates_and_another_gives_others() -> None:
    def fates(seed: int) -> list[int]:
        """How often each frame arrives, by its number on the link."""
        plan = pair(seed=seed, loss=20, duplicate=20, max_queue_size=100_000)
        sent, received, _counters = probe_link(plan, 500)
        arrived, asked = Counter(probes(received)), set(probes(sent))
        assert set(arrived) < asked
        return [arrived[number[0]] if (number := probes([entry])) else -1 for entry in sent]

    def differences(one: list[int], other: list[int]) -> int:
        return sum(-1 not in pair_ and pair_[0] != pair_[1] for pair_ in zip(one, other, strict=False))

    first = fates(1)
    assert differences(first, fates(1)) == 0
    assert differences(first, fates(2)) > 100


@pytest.mark.parametrize(
    ("options", "count", "pause_s"),
    [
        ({"delay": "20ms"}, 200, 0.002),
        ({"delay": "20ms", "jitter": "5ms"}, 200, 0.002),
        ({"bw": 5}, 300, 0.0),
        ({"bw": 5, "delay": "10ms"}, 300, 0.001),
    ],
    ids=str,
)
def test_frames_arrive_when_the_core_says_and_never_before(options: dict[str, Any], count: int, pause_s: float) -> None:
    plan = pair(seed=3, **options)
    sent, received, _counters = probe_link(plan, count, pause_s, octets=500)
    expected, _core = replayed(sent, impairment_of(plan), 3)
    assert contents(received) == contents(expected)
    late = [at - due_at for (at, _), (due_at, _) in zip(received, expected, strict=True)]
    assert min(late) >= -STAMPS_DIFFER_NS
    assert statistics.median(late) < LATE_NS


def test_a_rate_spaces_frames_by_the_octets_of_whole_frames() -> None:
    _sent, received, _counters = probe_link(pair(bw=10), 200, octets=1000)
    times = [at for at, frame in received if len(frame) == 1042]
    seconds = (times[-1] - times[0]) / 1e9
    assert seconds == pytest.approx(199 * 1042 * 8 / 10e6, rel=0.05)


def test_jitter_varies_within_its_bounds() -> None:
    sent, received, _counters = probe_link(pair(delay="10ms", jitter="5ms"), 200, 0.004)
    first_at = {frame: at for at, frame in reversed(sent)}
    delays = [at - first_at[frame] for at, frame in received if probes([(at, frame)])]
    assert 5 * MS <= min(delays) < 7 * MS
    assert statistics.stdev(delays) > 1.5 * MS


def test_reordered_frames_overtake_and_all_others_wait() -> None:
    plan = pair(seed=5, delay="20ms", reorder=25)
    sent, received, counters = probe_link(plan, 400, 0.002)
    _expected, core = replayed(sent, impairment_of(plan), 5)
    assert counters["reordered"] == core.counts.reordered
    assert Counter(contents(received)) == Counter(contents(sent))
    numbers = probes(received)
    assert numbers != sorted(numbers)
    first_at = {frame: at for at, frame in reversed(sent)}
    delays = [at - first_at[frame] for at, frame in received if probes([(at, frame)])]
    waited = [delay for delay in delays if delay >= 20 * MS]
    hurried = [delay for delay in delays if delay < 20 * MS]
    assert statistics.median(hurried) < LATE_NS
    assert statistics.median(waited) < 20 * MS + LATE_NS
    share = len(hurried) / len(delays)
    assert share == pytest.approx(0.25, abs=5 * (0.25 * 0.75 / len(delays)) ** 0.5)


def test_a_full_queue_drops_what_comes_last_and_says_so() -> None:
    sent, received, counters = probe_link(pair(bw=1, max_queue_size=50), 200, octets=1000)
    assert counters["overflowed"] == len(sent) - len(received)
    # 200 frames come in far less than the 8 ms that one of them takes on the line, unless this machine stalls.
    assert 50 <= len(received) <= 100
    assert probes(received)[:50] == list(range(50))


def test_the_two_directions_of_a_link_are_impaired_apart() -> None:
    def work(lab: Lab) -> Any:
        return ping_ms(lab), lab.link_counters("b", "a")

    rtt, counters = in_pair(pair(params1={"delay": "30ms"}, params2={"delay": "1ms"}), work)
    assert 31 <= rtt < 31 + 2 * LATE_NS / MS
    assert set(counters) == {"a_to_b", "b_to_a"}


def ping_ms(lab: Lab, count: int = 5) -> float:
    """Return the shortest of some round-trip times, as ping says."""
    argv = ["ping", "-q", f"-c{count}", "-i0.02", "-W1", B]
    process = lab.node("a").spawn(argv, stdout=subprocess.PIPE)
    text = process.communicate(timeout=PATIENCE_SECONDS)[0].decode()
    found = re.search(r"rtt min/avg/max/mdev = ([\d.]+)", text)
    return float(found[1]) if found else float("inf")


def test_a_link_that_is_named_can_be_changed_while_packets_flow() -> None:
    def work(lab: Lab) -> Any:
        slow = Impairment(delay_s=0.040)
        before = ping_ms(lab)
        asked_at = time.time()
        changed_at = lab.set_link("a", "b", None, slow)
        assert asked_at <= changed_at <= time.time()
        both = ping_ms(lab)
        lab.set_link("b", "a", "a_to_b", Impairment())  # seen from b: what b sends is fast again
        one = ping_ms(lab)
        lab.set_link("b", "a", "a_to_b", Impairment(loss=1.0))
        none = ping_ms(lab, 2)
        lost = {way: counters["lost"] > 0 for way, counters in lab.link_counters("a", "b").items()}
        assert lost == {"a_to_b": False, "b_to_a": True}
        lab.set_link("a", "b", None, Impairment())
        return before, both, one, none == float("inf"), ping_ms(lab)

    before, both, one, none, after = in_pair(pair(link=LinkRequest("a", "b")), work)
    assert before < LATE_NS / MS
    assert 80 <= both < 80 + 2 * LATE_NS / MS
    assert 40 <= one < 40 + 2 * LATE_NS / MS
    assert none
    assert after < LATE_NS / MS


def test_tcp_fills_a_rate_and_no_more() -> None:
    def work(lab: Lab) -> Any:
        server = lab.node("b").spawn(["iperf3", "-s", "-1", "--forceflush"], stdout=subprocess.PIPE)
        assert server.stdout is not None
        while b"Server listening" not in server.stdout.readline():
            assert server.poll() is None
        argv = ["iperf3", "-J", "-c", B, "-t", "3"]
        client = lab.node("a").spawn(argv, stdout=subprocess.PIPE)
        return json.loads(client.communicate(timeout=PATIENCE_SECONDS)[0])["end"]["sum_received"]["bits_per_second"]

    rate = in_pair(pair(bw=10, delay="5ms", max_queue_size=100), work)
    assert 0.85 * 10e6 < rate < 10e6 * 1448 / 1514


def processes() -> list[str]:
    """The command lines of the bubble that the caller is in."""
    return [
        path.read_bytes().replace(b"\0", b" ").decode()
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.parent.exists()
    ]


def test_links_without_impairments_are_plain_cables_without_an_engine() -> None:
    def work(lab: Lab) -> Any:
        with pytest.raises(KeyError, match="no link that can be changed"):
            lab.set_link("a", "b", None, Impairment(loss=0.5))
        return lab.engine is None, [line for line in processes() if "testbed.lab.impair" in line], ping_ms(lab)

    engineless, engines, rtt = in_pair(pair(bw=None, delay=0, loss=0), work)
    assert (engineless, engines) == (True, [])
    assert rtt < LATE_NS / MS


def test_the_engine_is_no_node_and_leaves_nothing_behind() -> None:
    def inside(_conductor: Conductor) -> Any:
        def state() -> list[int]:
            return [len(os.listdir("/proc/self/fd")), len(os.listdir("/run/netns")), len(processes())]

        Lab.build(pair()).close()
        before = state()
        with Lab.build(pair(loss=1)) as lab:
            names = sorted(os.listdir("/run/netns"))
            links = [link["name"] for node in lab.nodes.values() for link in node.interfaces()]
            engines = len([line for line in processes() if "testbed.lab.impair" in line])
        return before, state(), names, links, engines

    with Bubble() as bubble:
        before, after, names, links, engines = bubble.run(inside)
    assert before == after
    assert names == ["a", "b"]
    assert links == ["lo", "a-eth0", "lo", "b-eth0"]
    assert engines == 1


def test_a_dead_engine_is_a_dead_link_and_is_reported() -> None:
    def work(lab: Lab) -> Any:
        assert lab.engine is not None
        os.kill(lab.engine.pid, signal.SIGKILL)
        os.waitid(os.P_PID, lab.engine.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(LabBuildError, match="the engine of the impaired links has ended"):
            lab.set_link("a", "b", None, Impairment())
        return ping_ms(lab, 1) == float("inf")

    assert in_pair(pair(delay="1ms"), work)


def test_tagged_and_large_frames_cross_unchanged() -> None:
    tag, auxiliary = struct.pack("!HH", 0x8100, 3 << 13 | 42), 8  # PACKET_AUXDATA: the kernel takes tags out

    def work(lab: Lab) -> Any:
        a, b = lab.node("a"), lab.node("b")
        heard = b.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        heard.bind(("b-eth0", ETH_P_ALL))
        heard.setsockopt(263, auxiliary, 1)
        heard.settimeout(PATIENCE_SECONDS)
        addresses = bytes.fromhex((b.plan.interfaces[0].mac + a.plan.interfaces[0].mac).replace(":", ""))
        sender = a.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sender.bind(("a-eth0", ETH_P_ALL))
        sender.send(addresses + tag + b"\x88\xb5" + b"tagged".ljust(60))
        while b"tagged" not in (got := heard.recvmsg(16384, 256))[0]:
            pass
        found = struct.unpack_from("=HH", got[1][0][2], 16)
        argv = ["ping", "-q", "-c1", "-W3", "-Mdo", "-s8900", B]
        return found, got[0][12:14].hex(), a.spawn(argv, stdout=subprocess.DEVNULL).wait(PATIENCE_SECONDS)

    found, kind, large = in_pair(pair(delay="1ms", mtu=9000), work)
    assert (found, kind, large) == ([3 << 13 | 42, 0x8100], "88b5", 0)

"""Paths that are worse than the lab's plain ones, against openvpn in both roles: too narrow, and losing a third.

The link between the ISP and the Internet is the bad one, so the client's own interface knows nothing of it.
"""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import pytest

from testbed.lab.model import LinkRequest
from tests.interop import chunks
from tests.interop.echoes import Echoes
from tests.interop.inner_services import octets as some_octets
from tests.interop.role_pairs import PAIRS, beside, ping
from tests.interop.tunnel_configs import PUSH_SPLIT, Setup, make_keys
from tests.interop.tunnel_lab import INNER_SERVER, OPENVPN, OURS, READY, SERVER, SERVER6, Program, TunnelLab, in_lab

pytestmark = [pytest.mark.root, pytest.mark.interop]

NARROW = LinkRequest("isp", "transit", mtu_octets=1400)
LOSSY = LinkRequest("isp", "transit", loss=30.0, delay=0.003, reorder=20.0, duplicate=10.0)
_TRANSFER = 200_000


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_keys(tmp_path_factory.mktemp("pki") / "keys")


def transfer(lab: TunnelLab) -> None:
    """Octets down and up over TCP, compared."""
    source, target = lab.folder / "up", lab.folder / "down"
    source.write_bytes(some_octets(_TRANSFER))
    curl = ("curl", "--silent", "--show-error", "--fail", "--max-time", "50", "--noproxy", "*")
    lab.output("client", *curl, "-o", str(target), f"http://{INNER_SERVER}/octets/{_TRANSFER}", seconds=60)
    assert target.read_bytes() == some_octets(_TRANSFER)
    lab.output("client", *curl, "--data-binary", f"@{source}", f"http://{INNER_SERVER}/", seconds=60)


def answered(lab: TunnelLab, octets: int, count: int, patience: float = 30) -> int:
    """How many of `count` echo requests with `octets` are answered."""
    return len(Echoes(lab.lab.node("client"), INNER_SERVER, count, octets, under_way=4, patience=patience).exchange())


@pytest.mark.parametrize(
    ("server_program", "client_program", "proto"),
    [
        (OPENVPN, OURS, "udp"),
        (OPENVPN, OURS, "udp6"),
        (OURS, OPENVPN, "udp"),
        (OURS, OPENVPN, "udp6"),
        (*PAIRS[2], "udp"),
    ],
)
def test_a_path_narrower_than_the_line_costs_the_first_large_packets_and_then_fragments_the_rest(
    server_program: str, client_program: str, proto: str, keys: Path, tmp_path: Path
) -> None:
    setup = Setup(keys, PUSH_SPLIT, SERVER6 if proto == "udp6" else SERVER, proto)

    def body(lab: TunnelLab) -> None:
        lab.connect(server_program, setup.server(), client_program, setup.client())
        lab.serve()
        assert answered(lab, 1000, 3) == 3
        # each end's kernel learns of the narrow place from the first packet that does not fit
        for _ in range(2):
            answered(lab, 1472, 2, patience=0.5)
        fragments = "ip[6:2] & 0x3fff != 0" if proto == "udp" else "ip6[6] == 44"
        sniffer = lab.start("transit", ["tcpdump", "--immediate-mode", "-i", "any", "-n", "-l", "-c", "6", fragments])
        sniffer.wait_for("istening on")
        ping(lab, INNER_SERVER, octets=1472)
        sniffer.wait()
        transfer(lab)

    in_lab(body, tmp_path, [NARROW])


@pytest.mark.parametrize(
    ("server_program", "client_program", "discovery"),
    [(*programs, "yes") for programs in PAIRS] + [(*programs, "no") for programs in PAIRS[:2]],
)
def test_mtu_disc_decides_whether_large_packets_are_cut_on_their_way_or_never_leave(
    server_program: str, client_program: str, discovery: str, keys: Path, tmp_path: Path
) -> None:
    setup = Setup(keys, PUSH_SPLIT, both=(f"mtu-disc {discovery}", "mssfix 1400 mtu"))

    def body(lab: TunnelLab) -> None:
        _, client = lab.connect(server_program, setup.server(), client_program, setup.client())
        lab.serve()
        transfer(lab)  # its segments fit either way
        assert answered(lab, 1472, 4, patience=30 if discovery == "no" else 0.5) == (4 if discovery == "no" else 0)
        assert answered(lab, 1000, 3) == 3
        client.process.send_signal(signal.SIGUSR2)
        if discovery == "yes":
            client.wait_for("Dropped: NOT_SENT" if client_program == OURS else "Message too long")

    in_lab(body, tmp_path, [NARROW])


# Which end has the option, and a size of its own; the other, an openvpn, leaves sizes alone.
SEGMENTS = [
    ("client", "mssfix 1300"),
    ("server", "mssfix 1300"),
    ("client", "mssfix 1300 mtu"),
    ("server", "mssfix 1300 fixed"),
    ("client", "mssfix 0"),
    ("server", "tun-mtu 1400"),
]


@pytest.mark.parametrize(("role", "line"), SEGMENTS)
def test_the_segment_size_that_either_end_allows_is_openvpns(role: str, line: str, keys: Path, tmp_path: Path) -> None:
    """What arrives is the doing of the end that has the option: ours or openvpn, both in one lab."""

    def size(lab: TunnelLab, program: str, number: int) -> int:
        lines = {"server": ("mssfix 0",), "client": ("mssfix 0",)} | {role: (line,)}
        setup = Setup(keys, (), server_only=lines["server"], client_only=lines["client"])
        programs = (program, OPENVPN) if role == "server" else (OPENVPN, program)
        lab.connect(programs[0], beside(setup.server(), number), programs[1], beside(setup.client(), number))
        syn = "tcp dst port 80 and tcp[tcpflags] & tcp-syn != 0"
        words = ["tcpdump", "--immediate-mode", "-i", f"tun{number}", "-n", "-l", "-c", "1", syn]
        sniffer = lab.start("vpn", words)
        sniffer.wait_for("listening on")
        lab.output("client", "curl", "--silent", "--fail", "--max-time", "20", f"http://10.8.{number}.1/octets/1")
        sniffer.wait()
        found = re.search(r"mss (\d+)", sniffer.text())
        assert found
        return int(found[1])

    def body(lab: TunnelLab) -> None:
        lab.serve()
        assert size(lab, OURS, 0) == size(lab, OPENVPN, 1)

    in_lab(body, tmp_path)


def test_through_thirty_percent_loss_with_reordering_and_duplication_all_pairs_connect_and_carry_every_octet(
    keys: Path, tmp_path: Path
) -> None:
    """All three at once, since they spend their time waiting: a port, a device and a network for each."""

    setup = Setup(keys, (), both=("tls-timeout 1",))

    def body(lab: TunnelLab) -> None:
        lab.start("vpn", [sys.executable, chunks.__file__, "serve"], "chunks").wait_for("serving")
        clients: list[Program] = []
        for number, (server_program, client_program) in enumerate(PAIRS):
            lab.tunnel(server_program, "vpn", beside(setup.server(), number)).wait_for(READY)
            clients.append(lab.tunnel(client_program, "client", beside(setup.client(), number)))
        fetches = []
        for number, client in enumerate(clients):
            client.wait_for(READY, seconds=240)
            fetch = [sys.executable, chunks.__file__, "fetch", f"10.8.{number}.1", "20"]
            fetches.append(lab.start("client", fetch, f"fetch{number}"))
        for program in fetches:
            assert program.wait(240) == 0, program.text()
            assert program.text().strip() == chunks.digest(20)

    in_lab(body, tmp_path, [LOSSY])

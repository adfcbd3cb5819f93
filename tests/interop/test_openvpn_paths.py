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
from tests.interop.inner_services import octets
from tests.interop.role_pairs import PAIRS, pairs, ping
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
    source.write_bytes(octets(_TRANSFER))
    curl = ("curl", "--silent", "--show-error", "--fail", "--max-time", "50", "--noproxy", "*")
    lab.output("client", *curl, "-o", str(target), f"http://{INNER_SERVER}/octets/{_TRANSFER}", seconds=60)
    assert target.read_bytes() == octets(_TRANSFER)
    lab.output("client", *curl, "--data-binary", f"@{source}", f"http://{INNER_SERVER}/", seconds=60)


def echo(lab: TunnelLab, size: int, count: int, patience: float = 5) -> int:
    """How many of `count` echo requests with `size` octets are answered."""
    words = ("ping", "-n", "-c", str(count), "-i", "0.02", "-W", str(patience), "-s", str(size), INNER_SERVER)
    found = re.search(r"(\d+) received", lab.run("client", *words, seconds=60).stdout)
    assert found
    return int(found[1])


@pairs
@pytest.mark.parametrize("proto", ["udp", "udp6"])
def test_a_path_narrower_than_the_line_costs_the_first_large_packets_and_then_fragments_the_rest(
    server_program: str, client_program: str, proto: str, keys: Path, tmp_path: Path
) -> None:
    setup = Setup(keys, PUSH_SPLIT, SERVER6 if proto == "udp6" else SERVER, proto)

    def body(lab: TunnelLab) -> None:
        lab.connect(server_program, setup.server(), client_program, setup.client())
        lab.serve()
        assert echo(lab, 1000, 3) == 3
        # each end's kernel learns of the narrow place from the first packet that does not fit
        for _ in range(2):
            echo(lab, 1472, 2, patience=0.5)
        fragments = "ip[6:2] & 0x3fff != 0" if proto == "udp" else "ip6[6] == 44"
        sniffer = lab.start("transit", ["tcpdump", "--immediate-mode", "-i", "any", "-n", "-l", "-c", "6", fragments])
        sniffer.wait_for("istening on")
        ping(lab, INNER_SERVER, "client", "-s", "1472")
        sniffer.wait()
        transfer(lab)

    in_lab(body, tmp_path, [NARROW])


@pairs
@pytest.mark.parametrize("discovery", ["no", "yes"])
def test_mtu_disc_decides_whether_large_packets_are_cut_on_their_way_or_never_leave(
    server_program: str, client_program: str, discovery: str, keys: Path, tmp_path: Path
) -> None:
    setup = Setup(keys, PUSH_SPLIT, both=(f"mtu-disc {discovery}", "mssfix 1400 mtu"))

    def body(lab: TunnelLab) -> None:
        _, client = lab.connect(server_program, setup.server(), client_program, setup.client())
        lab.serve()
        transfer(lab)  # its segments fit either way
        assert echo(lab, 1472, 4, patience=5 if discovery == "no" else 0.5) == (4 if discovery == "no" else 0)
        assert echo(lab, 1000, 3) == 3
        client.process.send_signal(signal.SIGUSR2)
        if discovery == "yes":
            client.wait_for("Dropped: NOT_SENT" if client_program == OURS else "Message too long")

    in_lab(body, tmp_path, [NARROW])


SEGMENTS = ["mssfix 1300", "mssfix 1300 mtu", "mssfix 1300 fixed", "mssfix 0", "tun-mtu 1400"]


@pytest.mark.parametrize("line", SEGMENTS)
def test_the_segment_size_that_either_end_allows_is_openvpns(line: str, keys: Path, tmp_path: Path) -> None:
    """One end has the option; the other, an openvpn, leaves sizes alone: what arrives is the first's doing."""

    def size(lab: TunnelLab, program: str, role: str) -> int:
        mine, others = (line,), ("mssfix 0",)
        setup = Setup(
            keys,
            PUSH_SPLIT,
            server_only=mine if role == "server" else others,
            client_only=mine if role == "client" else others,
        )
        programs = (program, OPENVPN) if role == "server" else (OPENVPN, program)
        server, client = lab.connect(programs[0], setup.server(), programs[1], setup.client())
        syn = "tcp dst port 80 and tcp[tcpflags] & tcp-syn != 0"
        sniffer = lab.start("vpn", ["tcpdump", "--immediate-mode", "-i", "tun0", "-n", "-l", "-c", "1", syn])
        sniffer.wait_for("listening on")
        lab.output("client", "curl", "--silent", "--fail", "--max-time", "20", f"http://{INNER_SERVER}/octets/1")
        sniffer.wait()
        for end in (client, server):
            end.process.kill()
            end.wait()
        found = re.search(r"mss (\d+)", sniffer.text())
        assert found
        return int(found[1])

    def body(lab: TunnelLab) -> None:
        lab.serve()
        for role in ("client", "server"):
            assert size(lab, OURS, role) == size(lab, OPENVPN, role), role

    in_lab(body, tmp_path)


def test_through_thirty_percent_loss_with_reordering_and_duplication_all_pairs_connect_and_carry_every_octet(
    keys: Path, tmp_path: Path
) -> None:
    """All three at once, since they spend their time waiting: a port, a device and a network for each."""

    def own(text: str, number: int) -> str:
        text = text.replace("dev tun0", f"dev tun{number}").replace("port 1194", f"port {1194 + number}")
        text = text.replace(f"{SERVER} 1194", f"{SERVER} {1194 + number}").replace("10.8.0.", f"10.8.{number}.")
        return text.replace("2001:db8:8::", f"2001:db8:8:{number}::")

    setup = Setup(keys, (), both=("tls-timeout 1",))

    def body(lab: TunnelLab) -> None:
        lab.start("vpn", [sys.executable, chunks.__file__, "serve"], "chunks").wait_for("serving")
        clients: list[Program] = []
        for number, (server_program, client_program) in enumerate(PAIRS):
            lab.tunnel(server_program, "vpn", own(setup.server(), number)).wait_for(READY)
            clients.append(lab.tunnel(client_program, "client", own(setup.client(), number)))
        fetches = []
        for number, client in enumerate(clients):
            client.wait_for(READY, seconds=240)
            fetch = [sys.executable, chunks.__file__, "fetch", f"10.8.{number}.1", "20"]
            fetches.append(lab.start("client", fetch, f"fetch{number}"))
        for program in fetches:
            assert program.wait(240) == 0, program.text()
            assert program.text().strip() == chunks.digest(20)

    in_lab(body, tmp_path, [LOSSY])

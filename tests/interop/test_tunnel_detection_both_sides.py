"""Several taps at once, by one clock: a tunnel is recognised at each link it crosses, and both sides of the VPN server
together tell whom the client talked to, though strangers fetch pages of the same sizes at the same time.
"""

from __future__ import annotations

import contextlib
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from testbed.lab.bubble import Bubble
from testbed.lab.build import Lab
from testbed.lab.model import LabRequest, TapRequest
from testbed.lab.plan import plan_lab
from testbed.lab.topology import load_topology
from testbed.observer import Observation, observe
from testbed.verdict.correlation import Confidence, correlate
from tests.interop.tunnel_configs import Setup, make_keys
from tests.interop.tunnel_lab import OPENVPN, OURS, SERVER, WEB, Program, TunnelLab
from tests.interop.tunnel_programs import recorded

pytestmark = [pytest.mark.root, pytest.mark.interop]

# Where somebody listens, and towards whom: LAN and ISP are the two ends of the client's link.
TAPS = [
    TapRequest("lan", "client"),
    TapRequest("isp", "isp"),
    TapRequest("transit", "transit", toward="vpn"),
    TapRequest("server", "vpn", toward="transit"),
    TapRequest("behind", "transit", toward="web"),
    TapRequest("destination", "web"),
]
PAGES = (21_000, 34_000, 13_000)
CLIENT = "192.168.0.13"
CLIENTS_PORT, STRANGERS_PORT = 30_000, 40_000  # from which on: translation keeps them, so that the truth is known


def with_taps(folder: Path, setup: Setup, programs: tuple[str, str]) -> None:
    """The lab with a program at every tap, as the scenario key `taps` places them: no packet there is a merged one."""

    def run(_conductor: object) -> None:
        plan = plan_lab(load_topology("client-isp-server"), LabRequest(taps=TAPS))
        with Lab.build(plan) as built, ExitStack() as taps:
            lab = TunnelLab(built, folder)
            try:
                for tap in plan.taps:
                    taps.enter_context(recorded(lab, tap.node, tap.interface, folder / f"{tap.name}.pcap"))
                talk(lab, setup, programs)
            finally:
                taps.close()
                lab.end()

    with Bubble() as bubble:
        bubble.run(run)


def talk(lab: TunnelLab, setup: Setup, programs: tuple[str, str]) -> None:
    """Pages of the client through the tunnel, and strangers' of the same sizes at the same time."""
    lab.serve("web")
    lab.connect(programs[0], setup.server(), programs[1], setup.client())
    for number, octets in enumerate(PAGES):
        # The VPN server's own requests leave from the address that the client's leave from.
        nodes = {STRANGERS_PORT: "vpn", CLIENTS_PORT: "client", STRANGERS_PORT + 100: "vpn"}
        fetching = [curl(lab, node, octets, port + number) for port, node in nodes.items()]
        assert not any(program.wait(60) for program in fetching)


def curl(lab: TunnelLab, node: str, octets: int, port: int) -> Program:
    words = ["--silent", "--show-error", "--fail", "--noproxy", "*", "-m", "60", "-o", "/dev/null"]
    words += ["--local-port", str(port)]
    return lab.start(node, ["curl", *words, f"http://{WEB}/octets/{octets}"], f"curl-{octets}-{node}")


@pytest.fixture(scope="module", params=["udp", "tcp"])
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Observation]:
    folder = tmp_path_factory.mktemp("taps")
    setup = Setup(make_keys(folder / "keys"), proto=request.param)
    with_taps(folder, setup, (OPENVPN, OURS) if request.param == "udp" else (OURS, OPENVPN))
    return {tap.name: observe(folder / f"{tap.name}.pcap") for tap in TAPS}


def test_the_tunnel_is_recognised_wherever_it_passes_and_nowhere_else(seen: dict[str, Observation]) -> None:
    tunnels = {name: observation.tunnels for name, observation in seen.items()}
    for name in ("lan", "isp", "transit", "server"):
        (tunnel,) = tunnels[name]
        assert (tunnel.protocol, tunnel.client.address, str(tunnel.server)) == ("openvpn", CLIENT, f"{SERVER}:1194")
    assert tunnels["behind"] == tunnels["destination"] == ()


def test_one_clock_puts_the_taps_in_the_order_of_the_way(seen: dict[str, Observation]) -> None:
    """The tunnel's first packets, which pass one link after the other."""
    times = []
    for name in ("lan", "isp", "transit", "server"):
        (tunnel,) = seen[name].tunnels
        (flow,) = (f for f in seen[name].flows if (f.client, f.server) == (tunnel.client, tunnel.server))
        times.append(flow.started_at)
    assert times == sorted(times)
    assert times[-1] - times[0] < 5


@pytest.mark.parametrize(("near", "far"), [("isp", "behind"), ("lan", "destination")])
def test_both_sides_of_the_server_tell_the_clients_pages_from_the_strangers(
    seen: dict[str, Observation], near: str, far: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three pages of the client's and six of strangers reach the site from one address; the site cannot tell them
    apart, the two captures together can."""
    pages = [flow for flow in seen[far].flows if flow.server.port == 80]
    assert len(pages) == 3 * len(PAGES)
    assert {flow.client.address for flow in pages} == {SERVER}
    found = correlate(seen[near], seen[far])
    with capsys.disabled(), contextlib.redirect_stdout(sys.stderr):  # which pytest's workers let through
        print("", *(f"{one.egress.port} {one.sentence}" for one in found), sep="\n")
    assert {one.client.address for one in found} <= {CLIENT}
    strong = [one.egress.port for one in found if one.confidence is Confidence.STRONG]
    assert strong
    assert set(strong) <= set(range(CLIENTS_PORT, CLIENTS_PORT + len(PAGES)))

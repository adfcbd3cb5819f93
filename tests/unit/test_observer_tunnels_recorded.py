"""Tunnels of programs that CI does not install, from captures recorded once (tests/data/captures)."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.capture import pcapng
from testbed.capture.reader import CaptureReader
from testbed.observer import observe
from testbed.observer.model import Tunnel

CAPTURES = Path(__file__).parents[1] / "data" / "captures"
CLIENT, SERVER = "192.168.0.13", "198.51.100.10"


def without(name: str, frames: int, folder: Path) -> tuple[Tunnel, ...]:
    """What is recognised if the capture begins that many frames later."""
    out = [pcapng.build_section_header("test"), pcapng.build_interface("x", pcapng.LINKTYPE_ETHERNET)]
    with CaptureReader(CAPTURES / name) as reader:
        late = (frame for frame in reader if frame.number > frames)
        out += [pcapng.build_packet(0, frame.time_ns, frame.data, len(frame.data)) for frame in late]
    path = folder / "later.pcapng"
    path.write_bytes(b"".join(out))
    return observe(path).tunnels


@pytest.mark.parametrize(("name", "version"), [("ipsec-ikev1.pcapng", "IKEv1"), ("ipsec-ikev2.pcapng", "IKEv2")])
def test_strongswan_is_recognised_on_both_of_its_ports(name: str, version: str) -> None:
    handshake, data = observe(CAPTURES / name).tunnels
    for tunnel, port in ((handshake, 500), (data, 4500)):
        assert (tunnel.protocol, tunnel.certainty.value) == ("ipsec", "certain")
        assert (str(tunnel.client), str(tunnel.server)) == (f"{CLIENT}:{port}", f"{SERVER}:{port}")
    assert version in handshake.rule
    assert (handshake.frame, handshake.packet) == (2, 2)
    assert data.packet <= 3


@pytest.mark.parametrize("name", ["ipsec-ikev1.pcapng", "ipsec-ikev2.pcapng"])
def test_strongswan_is_recognised_by_esp_alone_in_a_capture_that_began_late(name: str, tmp_path: Path) -> None:
    (tunnel,) = without(name, 9, tmp_path)
    assert (tunnel.protocol, tunnel.server.port, tunnel.packet) == ("ipsec", 4500, 12)
    assert "ESP in UDP" in tunnel.rule


def test_openconnect_is_recognised_by_dtls_beside_its_tls_connection(tmp_path: Path) -> None:
    (tunnel,) = observe(CAPTURES / "openconnect.pcapng").tunnels
    assert (tunnel.protocol, tunnel.certainty.value, tunnel.transport) == ("anyconnect-like", "likely", "udp")
    assert (tunnel.client.address, str(tunnel.server)) == (CLIENT, f"{SERVER}:443")


@pytest.mark.parametrize(
    "name", ["openvpn-plain", "openvpn-auth", "openvpn-auth256", "openvpn-crypt", "openvpn-cryptv2", "openvpn-tcp"]
)
def test_openvpn_in_a_capture_that_began_late_is_never_taken_for_another_tunnel(name: str, tmp_path: Path) -> None:
    """Three pings and an exit are too few packets for the rule of counters: then nothing is claimed."""
    assert {tunnel.protocol for tunnel in without(f"{name}.pcapng", 12, tmp_path)} <= {"openvpn"}

"""Tunnels and their layers as Wireshark dissects them, and each tunnel's display filter, which finds its frame."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from testbed.facts import Kind
from testbed.observer import observe
from tests.unit.test_observer_tunnels import seen
from tests.unit.test_observer_tunnels_layers import ENVELOPES, openvpn, request

pytestmark = pytest.mark.interop

CAPTURES = Path(__file__).parents[1] / "data" / "captures"
# What Wireshark calls the layers that have another name here; IP in UDP it does not look for.
WIRESHARK = {"ipv4": "ip", "ipip": "", "ipsec": "isakmp", "ip-in-udp": "", "anyconnect-like": "dtls"}


def tshark(path: Path, *words: str) -> list[str]:
    argv = ["tshark", "-r", str(path), *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout.split()


def dissected(path: Path) -> dict[int, list[str]]:
    """Each frame's protocols, from the outermost."""
    rows = tshark(path, "-T", "fields", "-e", "frame.number", "-e", "frame.protocols")
    return {int(number): protocols.split(":") for number, protocols in zip(rows[::2], rows[1::2], strict=True)}


def is_part(layers: list[str], protocols: list[str]) -> bool:
    """Whether the layers stand among the protocols in this order."""
    rest = iter(protocols)
    return all(layer in rest for layer in layers)


@pytest.mark.parametrize("name", [name for name in ENVELOPES if name != "ip-in-udp"])
def test_the_layers_of_an_envelope_are_wiresharks(tmp_path: Path, name: str) -> None:
    envelope, _ = ENVELOPES[name]
    frames = [envelope / request(), envelope / openvpn(True), envelope / openvpn(False)]
    tunnels = seen(tmp_path, frames).tunnels
    assert [tunnel.protocol for tunnel in tunnels] == [name, "openvpn"]
    protocols = dissected(tmp_path / "x.pcapng")
    for tunnel in tunnels:
        layers = [WIRESHARK.get(layer, layer) for layer in tunnel.layers]
        assert is_part([layer for layer in layers if layer], protocols[tunnel.frame])


@pytest.mark.parametrize("path", sorted(CAPTURES.glob("*.pcapng")), ids=lambda path: path.stem)
def test_recorded_tunnels_are_wiresharks_and_their_filters_find_them(path: Path) -> None:
    observation = observe(path)
    assert observation.tunnels
    protocols = dissected(path)
    for tunnel in observation.tunnels:
        expected = {"ipsec": {"isakmp", "esp"}, "anyconnect-like": {"dtls"}}.get(tunnel.protocol, {tunnel.protocol})
        assert expected & set(protocols[tunnel.frame])
    sightings = [sighting for sighting in observation.sightings if sighting.kind is Kind.TUNNEL]
    assert len(sightings) == len(observation.tunnels)
    for sighting in sightings:
        found = tshark(path, "-Y", sighting.display_filter, "-T", "fields", "-e", "frame.number")
        assert set(map(str, sighting.frames)) <= set(found)

"""Routes to host names and to the words `vpn_gateway`, `net_gateway`, `remote_host`, in the file and pushed.

Judged by openvpn: the same options give the same routes, whoever is the client.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.role_pairs import PAIRS, pairs, ping
from tests.interop.tunnel_configs import Setup, make_keys
from tests.interop.tunnel_lab import INNER_SERVER, OPENVPN, OURS, READY, SERVER, WEB, TunnelLab, in_lab

pytestmark = [pytest.mark.root, pytest.mark.interop]

HOSTS = {"web.example": WEB, "gw.example": INNER_SERVER}
ROUTES = (
    "route web.example",
    "route net_gateway",
    "route 10.99.0.0 255.255.0.0 gw.example",
    "route 10.97.0.0 255.255.0.0 net_gateway",
    "route 10.96.0.0 255.255.0.0 vpn_gateway 77",
    "route 10.95.0.0 255.255.0.0 10.8.0.1",
)
WITHOUT_NAMES = {
    "192.168.0.1 via 10.8.0.1 dev tun0",
    "10.97.0.0/16 via 192.168.0.1 dev client-eth0",
    "10.96.0.0/16 via 10.8.0.1 dev tun0 metric 77",
    "10.95.0.0/16 via 10.8.0.1 dev tun0",
}
WITH_NAMES = WITHOUT_NAMES | {f"{WEB} via 10.8.0.1 dev tun0", "10.99.0.0/16 via 10.8.0.1 dev tun0"}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_keys(tmp_path_factory.mktemp("pki") / "keys")


def added(lab: TunnelLab, before: list[str]) -> set[str]:
    """IPv4 routes with a gateway that were not there before; who set them (`proto`) does not matter."""
    routes = {route for route in lab.routes() if route not in before and " via " in route}
    return {route.replace(" proto static", "") for route in routes if ":" not in route}


# Where the words stand. Of each place both clients, of each pair two places.
PLACES = {"file": PAIRS[:2], "pushed": PAIRS[1:], "pushed, with allow-pull-fqdn": PAIRS[:2]}


@pytest.mark.parametrize(
    ("server_program", "client_program", "place"),
    [(*programs, place) for place, several in PLACES.items() for programs in several],
)
def test_words_and_host_names_give_the_same_routes_whoever_is_the_client(
    server_program: str, client_program: str, place: str, keys: Path, tmp_path: Path
) -> None:
    own = ROUTES if place == "file" else ("allow-pull-fqdn",) * place.endswith("fqdn")
    setup = Setup(keys, () if place == "file" else ROUTES, client_only=own)

    def body(lab: TunnelLab) -> None:
        before = lab.routes()
        _, client = lab.connect(server_program, setup.server(), client_program, setup.client())
        ping(lab, INNER_SERVER)
        assert added(lab, before) == (WITHOUT_NAMES if place == "pushed" else WITH_NAMES)
        assert client.text().count("Options error: ") == (2 if place == "pushed" else 0)
        client.stop()
        assert lab.routes() == before

    in_lab(body, tmp_path, hosts=HOSTS)


BAD = (
    "route no-such-name.example",
    "route 10.92.0.0 255.255.0.0 no-such-gateway.example",
    "route 10.91.0.0 255.0.255.0",
    "route-ipv6 2001:db8:55::/48 six.example",
    "route-gateway somewhere",
    "topology ring",
)


@pairs
def test_pushed_options_that_cannot_be_used_are_told_and_the_tunnel_comes_up_without_them(
    server_program: str, client_program: str, keys: Path, tmp_path: Path
) -> None:
    setup = Setup(keys, (*BAD, "route 10.95.0.0 255.255.0.0"), client_only=("allow-pull-fqdn",))

    def body(lab: TunnelLab) -> None:
        before = lab.routes()
        _, client = lab.connect(server_program, setup.server(), client_program, setup.client())
        ping(lab, INNER_SERVER)
        assert added(lab, before) == {"10.95.0.0/16 via 10.8.0.1 dev tun0"}
        client.wait_for("Cannot resolve host address: no-such-name.example")
        client.wait_for("Options error: ", count=2)
        assert client.text().count(READY) == 1
        assert "restarting" not in client.text()

    in_lab(body, tmp_path, hosts=HOSTS)


def test_a_route_to_the_server_itself_does_not_send_the_tunnel_into_itself(keys: Path, tmp_path: Path) -> None:
    """openvpn does that: its own packets then come back to it from its own device."""
    setup = Setup(keys, ("route remote_host",))

    def outer_path(program: str) -> str | None:
        def body(lab: TunnelLab) -> str | None:
            lab.connect(OPENVPN, setup.server(), program, setup.client())
            if program == OURS:
                ping(lab, INNER_SERVER)
            return lab.egress(SERVER)

        folder = tmp_path / program
        folder.mkdir()
        found: str | None = in_lab(body, folder)
        return found

    assert (outer_path(OPENVPN), outer_path(OURS)) == ("tun0", "client-eth0")


def test_a_server_finds_the_networks_of_its_own_routes_by_name(keys: Path, tmp_path: Path) -> None:
    """Its clients' networks: the same words as in a client's file; there is no remote_host at this end."""
    setup = Setup(keys, (), server_only=("route localhost 255.255.0.0 net_gateway 5", "route remote_host"))

    def body(lab: TunnelLab) -> None:
        server = lab.tunnel(OURS, "vpn", setup.server())
        server.wait_for(READY)
        server.wait_for("failed to parse/resolve route for host/network: remote_host")
        assert "127.0.0.0/16" in lab.output("vpn", "ip", "route")

    in_lab(body, tmp_path)

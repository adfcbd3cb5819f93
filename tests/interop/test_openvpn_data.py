"""The data channel against openvpn in both roles: framing of compression that is never used, and keys used up."""

from __future__ import annotations

import itertools
import signal
from pathlib import Path

import pytest

from tests.interop.echoes import Echoes
from tests.interop.role_pairs import PAIR_NAMES, PAIRS, pairs, ping, wait_for_new_key
from tests.interop.tunnel_configs import PUSH_SPLIT, Setup, make_keys
from tests.interop.tunnel_lab import INNER_SERVER, INNER_SERVER6, OPENVPN, OURS, READY, TunnelLab, in_lab
from tests.interop.wiretap import Wiretap
from vpn.wire.packet import Opcode

pytestmark = [pytest.mark.root, pytest.mark.interop]

_ZEROS = bytes(1)
_COMPRESSIBLE = 1000  # octets of them


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_keys(tmp_path_factory.mktemp("pki") / "keys")


# What both files say, and what the server's alone says: that is pushed.
FRAMINGS = [("both", "comp-lzo"), ("both", "compress lz4"), ("pushed", "comp-lzo no"), ("pushed", "compress stub-v2")]


@pairs
@pytest.mark.parametrize(("place", "line"), FRAMINGS)
def test_packets_pass_in_the_framing_of_old_compression_options(
    server_program: str, client_program: str, place: str, line: str, keys: Path, tmp_path: Path
) -> None:
    # openvpn pushes it only where it is told to
    pushed = (f'push "{line}"',) * (place == "pushed" and server_program == OPENVPN)
    setup = Setup(keys, PUSH_SPLIT, server_only=(line, *pushed), client_only=(line,) * (place == "both"))

    def body(lab: TunnelLab) -> None:
        lab.connect(server_program, setup.server(), client_program, setup.client())
        ping(lab, INNER_SERVER, INNER_SERVER6, octets=_COMPRESSIBLE, pattern=_ZEROS)
        ping(lab, INNER_SERVER, INNER_SERVER6)

    in_lab(body, tmp_path)


@pytest.mark.parametrize("line", ["comp-lzo yes", "compress lz4-v2"])
def test_our_server_makes_a_client_stop_that_would_compress(line: str, keys: Path, tmp_path: Path) -> None:
    setup = Setup(keys, PUSH_SPLIT, both=(line,), client_only=("allow-compression yes",))

    def body(lab: TunnelLab) -> None:
        lab.connect(OURS, setup.server(), OPENVPN, setup.client())
        ping(lab, INNER_SERVER, octets=_COMPRESSIBLE, pattern=_ZEROS)

    in_lab(body, tmp_path)


@pytest.mark.parametrize("line", ["comp-lzo yes", "compress lz4", "compress lz4-v2"])
def test_what_an_openvpn_server_compresses_is_dropped_and_counted_and_the_rest_passes(
    line: str, keys: Path, tmp_path: Path
) -> None:
    setup = Setup(keys, PUSH_SPLIT, both=(line,), server_only=("allow-compression yes",))

    def body(lab: TunnelLab) -> None:
        _, client = lab.connect(OPENVPN, setup.server(), OURS, setup.client())
        ping(lab, INNER_SERVER)
        compressible = Echoes(lab.lab.node("client"), INNER_SERVER, 3, _COMPRESSIBLE, _ZEROS, under_way=3, patience=0.5)
        assert not compressible.exchange()
        ping(lab, INNER_SERVER)  # comes after them
        client.process.send_signal(signal.SIGUSR2)
        client.wait_for("Dropped: COMPRESSED 3")

    in_lab(body, tmp_path)


@pairs
def test_the_servers_order_of_ciphers_decides_and_the_choice_stands_in_the_clients_log(
    server_program: str, client_program: str, keys: Path, tmp_path: Path
) -> None:
    setup = Setup(keys, PUSH_SPLIT)
    server = setup.server().replace(
        "data-ciphers AES-256-GCM", "data-ciphers AES-192-CBC:CHACHA20-POLY1305:AES-128-GCM"
    )
    client = setup.client().replace(
        "data-ciphers AES-256-GCM", "data-ciphers AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305"
    )

    def body(lab: TunnelLab) -> None:
        _, joining = lab.connect(server_program, server, client_program, client)
        joining.wait_for("Data Channel: cipher 'CHACHA20-POLY1305'")
        ping(lab, INNER_SERVER)

    in_lab(body, tmp_path)


@pairs
def test_a_client_without_a_cipher_in_common_is_told_so(
    server_program: str, client_program: str, keys: Path, tmp_path: Path
) -> None:
    setup = Setup(keys, PUSH_SPLIT)
    client = setup.client().replace("data-ciphers AES-256-GCM", "data-ciphers AES-128-GCM")

    def body(lab: TunnelLab) -> None:
        server = lab.tunnel(server_program, "vpn", setup.server())
        server.wait_for(READY)
        joining = lab.tunnel(client_program, "client", client)
        for program in (server, joining):
            program.wait_for("Data channel cipher negotiation failed (no shared cipher)")
        joining.wait()
        assert READY not in joining.text()

    in_lab(body, tmp_path)


# How much a key may carry, and how many echoes of 150 octets are more than that but not twice as much.
LIMITS = {"reneg-pkts": (8, 6), "reneg-bytes": (3000, 10)}
# Who counts what: of each pair both ends, and both limits.
USED_UP = [
    pytest.param(*programs, *counting, id=f"{name}-{'-'.join(counting)}")
    for programs, name, first, second in zip(
        PAIRS, PAIR_NAMES, ("client", "server", "client"), ("server", "client", "server"), strict=True
    )
    for counting in ((first, "reneg-pkts"), (second, "reneg-bytes"))
]


@pytest.mark.parametrize(("server_program", "client_program", "initiator", "option"), USED_UP)
def test_a_key_that_has_carried_enough_is_replaced_under_traffic_without_a_lost_packet(
    option: str, initiator: str, server_program: str, client_program: str, keys: Path, tmp_path: Path
) -> None:
    """One key after the other, as fast as they are used up, until their numbers begin again."""
    limit, count = LIMITS[option]
    often, never = (f"{option} {limit}", "reneg-sec 0"), ("reneg-sec 0",)
    setup = Setup(
        keys,
        PUSH_SPLIT,
        client_only=often if initiator == "client" else never,
        server_only=often if initiator == "server" else never,
    )

    def body(lab: TunnelLab) -> None:
        server, client = lab.connect(server_program, setup.server(), client_program, setup.client())
        with Wiretap(lab.lab.node("client"), str(lab.egress("192.168.0.1"))) as wiretap:
            for number in range(1, 11):
                # the handshake begins during the last of them
                ping(lab, INNER_SERVER if number % 2 else INNER_SERVER6, octets=150, count=count)
                for program, name in ((server, server_program), (client, client_program)):
                    wait_for_new_key(program, name, number)
                wiretap.collect()
        assert client.text().count(READY) == 1
        found = carried(wiretap.udp_payloads(1194))
        assert sum(packets for packets, _ in found) >= 10 * 2 * count
        for packets, octets in found:
            # what came while the next key was made is carried by the old one
            assert (packets if option == "reneg-pkts" else octets) < 3 * limit

    in_lab(body, tmp_path)


def carried(outer: list[bytes]) -> list[tuple[int, int]]:
    """How many data packets each key carried, and their octets, in the order of the keys."""
    data = [packet for packet in outer if packet[0] >> 3 == Opcode.DATA_V2]
    runs = [list(run) for _, run in itertools.groupby(data, key=lambda packet: packet[0] & 7)]
    return [(len(run), sum(map(len, run))) for run in runs]

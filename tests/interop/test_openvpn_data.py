"""The data channel against openvpn in both roles: framing of compression that is never used, and keys used up."""

from __future__ import annotations

import itertools
import re
import signal
from pathlib import Path

import pytest

from tests.interop.role_pairs import pairs, ping
from tests.interop.tunnel_configs import PUSH_SPLIT, Setup, make_keys
from tests.interop.tunnel_lab import INNER_SERVER, INNER_SERVER6, OPENVPN, OURS, READY, TunnelLab, in_lab

pytestmark = [pytest.mark.root, pytest.mark.interop]

_COMPRESSIBLE = ("-s", "1000", "-p", "00")
_NEW_KEY = "Control Channel: TLSv1.3|new session key in use"  # openvpn's words, and ours


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_keys(tmp_path_factory.mktemp("pki") / "keys")


@pairs
@pytest.mark.parametrize("line", ["comp-lzo", "comp-lzo no", "compress", "compress lz4", "compress stub-v2"])
def test_packets_pass_in_the_framing_of_old_compression_options(
    server_program: str, client_program: str, line: str, keys: Path, tmp_path: Path
) -> None:
    setup = Setup(keys, PUSH_SPLIT, both=(line,))

    def body(lab: TunnelLab) -> None:
        lab.connect(server_program, setup.server(), client_program, setup.client())
        for address in (INNER_SERVER, INNER_SERVER6):
            ping(lab, address, "client", *_COMPRESSIBLE)
            ping(lab, address)

    in_lab(body, tmp_path)


@pairs
@pytest.mark.parametrize("line", ["comp-lzo no", "compress", "compress stub-v2"])
def test_a_framing_that_only_the_server_names_is_pushed(
    server_program: str, client_program: str, line: str, keys: Path, tmp_path: Path
) -> None:
    pushed = () if server_program == OURS else (f'push "{line}"',)  # openvpn pushes it only where it is told to
    setup = Setup(keys, PUSH_SPLIT, server_only=(line, *pushed))

    def body(lab: TunnelLab) -> None:
        lab.connect(server_program, setup.server(), client_program, setup.client())
        ping(lab, INNER_SERVER, "client", *_COMPRESSIBLE)

    in_lab(body, tmp_path)


@pytest.mark.parametrize("line", ["comp-lzo yes", "compress lz4-v2"])
def test_our_server_makes_a_client_stop_that_would_compress(line: str, keys: Path, tmp_path: Path) -> None:
    setup = Setup(keys, PUSH_SPLIT, both=(line,), client_only=("allow-compression yes",))

    def body(lab: TunnelLab) -> None:
        lab.connect(OURS, setup.server(), OPENVPN, setup.client())
        ping(lab, INNER_SERVER, "client", *_COMPRESSIBLE)

    in_lab(body, tmp_path)


@pytest.mark.parametrize("line", ["comp-lzo yes", "compress lz4", "compress lz4-v2"])
def test_what_an_openvpn_server_compresses_is_dropped_and_counted_and_the_rest_passes(
    line: str, keys: Path, tmp_path: Path
) -> None:
    setup = Setup(keys, PUSH_SPLIT, both=(line,), server_only=("allow-compression yes",))

    def body(lab: TunnelLab) -> None:
        _, client = lab.connect(OPENVPN, setup.server(), OURS, setup.client())
        ping(lab, INNER_SERVER)
        words = ("ping", "-n", "-c", "3", "-i", "0.02", "-W", "0.5", *_COMPRESSIBLE, INNER_SERVER)
        assert "100% packet loss" in lab.run("client", *words).stdout
        ping(lab, INNER_SERVER)
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


LIMITS = {"reneg-pkts": 60, "reneg-bytes": 15_000}


@pairs
@pytest.mark.parametrize("initiator", ["client", "server"])
@pytest.mark.parametrize("option", list(LIMITS))
def test_a_key_that_has_carried_enough_is_replaced_under_traffic_without_a_lost_packet(
    option: str, initiator: str, server_program: str, client_program: str, keys: Path, tmp_path: Path
) -> None:
    limit = LIMITS[option]
    often, never = (f"{option} {limit}", "reneg-sec 0"), ("reneg-sec 0",)
    setup = Setup(
        keys,
        PUSH_SPLIT,
        client_only=often if initiator == "client" else never,
        server_only=often if initiator == "server" else never,
    )

    def body(lab: TunnelLab) -> None:
        server, client = lab.connect(server_program, setup.server(), client_program, setup.client())
        capture = lab.folder / "outer.pcap"
        device = str(lab.egress("192.168.0.1"))
        sniffer = lab.start(
            "client", ["tcpdump", "--immediate-mode", "-i", device, "-U", "-w", str(capture), "udp port 1194"]
        )
        sniffer.wait_for("listening on")
        ping(lab, INNER_SERVER, "client", "-s", "150", "-A", count=150)
        ping(lab, INNER_SERVER6, "client", "-s", "150", "-A", count=50)
        sniffer.stop(signal.SIGINT)
        for program in (server, client):
            assert len(re.findall(_NEW_KEY, program.text())) >= 4, program.text()
        assert client.text().count(READY) == 1
        for packets, octets in carried(lab, capture):
            # what came while the next key was made is carried by the old one
            assert (packets if option == "reneg-pkts" else octets) < 3 * limit

    in_lab(body, tmp_path)


def carried(lab: TunnelLab, capture: Path) -> list[tuple[int, int]]:
    """How many data packets each key carried, and their octets outside, in the order of the keys."""
    fields = ("-T", "fields", "-e", "openvpn.keyid", "-e", "udp.length")
    data = ("-d", "udp.port==1194,openvpn", "-Y", "openvpn.opcode == 9")
    lines = lab.output("client", "tshark", "-n", "-r", str(capture), *data, *fields).splitlines()
    found = [(key_id, int(octets)) for key_id, octets in (line.split("\t") for line in lines)]
    assert len(found) > 300
    # a packet or two of the old key may come after the first of the new one: they are a key's, too, but not a new key
    runs = [list(run) for _, run in itertools.groupby(found, key=lambda packet: packet[0])]
    return [(len(run), sum(octets for _, octets in run)) for run in runs]

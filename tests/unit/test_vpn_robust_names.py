"""Names that clients choose: what they put into a status file, a log line or memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from vpn.config.model import OutputSettings
from vpn.driver.log import Log
from vpn.driver.status import ClientRow, StatusFile, render_server
from vpn.events import ClientConnected
from vpn.push_parser import split_words
from vpn.settings import Cipher
from vpn.wire.packet import PeerId
from vpn.wire.peer_info import PeerInfo

EVIL = "bob\nCLIENT_LIST,root,1.2.3.4\t\x1b[2J\udcff"


def row(name: str) -> ClientRow:
    client = ClientConnected(
        peer=1,
        peer_id=PeerId(0),
        address=("192.0.2.1", 1),
        common_name=name,
        username=name,
        ifconfig=None,
        ifconfig_ipv6=None,
        routes=("10.9.0.0/24",),
        cipher=Cipher.AES_256_GCM,
        tls_version="TLSv1.3",
        tls_cipher="",
        client_version="",
    )
    return ClientRow(client, 0.0, 1, 2)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_clients_name_adds_no_row_to_the_status_file_and_never_keeps_it_from_being_written(
    version: int, tmp_path: Path
) -> None:
    path = tmp_path / "status"
    log = Log(OutputSettings(log_file=tmp_path / "log"))
    file = StatusFile(OutputSettings(status_file=path), log)
    file.write_when_due(lambda: render_server([row(EVIL)], 0.0, version), at_once=True)
    evil = path.read_text().splitlines()
    file.write_when_due(lambda: render_server([row("bob")], 0.0, version), at_once=True)
    assert len(evil) == len(path.read_text().splitlines())
    assert "\x1b" not in "".join(evil)
    log.close()


def test_protocol_bits_that_nobody_knows_do_not_fill_the_memory() -> None:
    def read(numbers: range) -> None:
        for number in numbers:
            _ = PeerInfo((("IV_PROTO", str(number)),)).protocol

    read(range(2000))
    tracemalloc.start()
    read(range(10_000, 40_000))
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 300_000  # 512 combinations of the known bits, at most


def test_a_long_pushed_word_is_read_in_linear_memory() -> None:
    words = split_words("x" * 16_000 + ' "' + "y" * 16_000 + '" \\z')
    assert [len(word) for word in words] == [16_000, 16_000, 1]

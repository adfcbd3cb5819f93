"""A server's data packets: from the wire by whom they are of, from the interface by whom they are for.

    datagram -> client by peer id, else by address -> opened -> source checked -> interface, or another client
    packet from the interface -> client by inner destination -> sealed

A client that sends authentic data from a new address is followed there (floating).
Sources: openvpn-protocol.md sections 7 and 10.5.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from vpn.clientele import Clientele
from vpn.dataplane.express import usual_destination
from vpn.dataplane.inner import destination, source
from vpn.dataplane.offload import Superpacket
from vpn.dataplane.train import Train
from vpn.drops import Drop, Drops
from vpn.events import Floated
from vpn.outlets import Outlets
from vpn.server_peer import Peer
from vpn.settings import Address, ServerSettings, Transport
from vpn.wire.packet import NO_PEER_ID, Opcode

if TYPE_CHECKING:
    from vpn.dataplane.workbench import Rows, Workbench

_DATA = (Opcode.DATA_V1, Opcode.DATA_V2)
_DATA_V2 = int(Opcode.DATA_V2)


class Router:
    """`touched` collects the clients, by number, that may have something to send afterwards."""

    def __init__(self, settings: ServerSettings, clientele: Clientele, out: Outlets, drops: Drops) -> None:
        self._client_to_client = settings.client_to_client
        self._limits_idleness = settings.timers.inactive > 0
        self._can_float = settings.transport is Transport.UDP
        self._takes_usual = self._can_float and not settings.client_to_client
        self._clientele = clientele
        self._out = out
        self._drops = drops

    def seal_one(self, packet: bytes, now: float) -> tuple[bytes, Address] | None:
        """The datagram of one usual packet, and where to; None, and nothing has happened, if it has to be `send`."""
        peer = self._clientele.behind(usual_destination(packet))
        datagram = None if peer is None else peer.session.seal_one(packet, now)
        if peer is None or datagram is None:
            return None
        if self._limits_idleness:
            _note_traffic(peer, now)
        return datagram, peer.address

    def seal_few(self, superpacket: Superpacket, now: float) -> tuple[list[bytes], Address] | None:
        """The same for a few segments in one packet; None, and nothing has happened: `send_superpacket`."""
        peer = self._clientele.behind(usual_destination(superpacket.octets))
        datagrams = None if peer is None else peer.session.seal_few(superpacket, now)
        if peer is None or datagrams is None:
            return None
        if self._limits_idleness:
            _note_traffic(peer, now)
        return datagrams, peer.address

    def open_one(self, untrusted: bytes, address: Address, now: float) -> bytes | None:
        """The usual packet in one datagram; None, and nothing has happened, if it has to be `receive_data`."""
        if not self._takes_usual or len(untrusted) < 4 or untrusted[0] >> 3 != _DATA_V2:
            return None
        peer = self._clientele.of_peer_id(int.from_bytes(untrusted[1:4], "big"))
        if peer is None or peer.address != address:
            return None
        session = peer.session
        packet = session.open_one(untrusted, peer.inner_sources, now)
        if packet is not None and self._limits_idleness:
            _note_traffic(peer, now)
        return packet

    def receive_usual(self, untrusted: Sequence[bytes], address: Address, now: float) -> Peer | None:
        """Data packets of one client that is where it was; None, and nothing has happened, if they are something else.

        The way of nearly all packets over UDP, in fewer steps than `receive_data`.
        """
        front = untrusted[0][:4]
        if not self._takes_usual or len(front) < 4 or front[0] >> 3 != Opcode.DATA_V2:
            return None
        peer = self._clientele.of_peer_id(int.from_bytes(front[1:], "big"))
        if peer is None or peer.address != address:
            return None
        if len(untrusted) > 1 and not all(packet.startswith(front) for packet in untrusted):
            return None
        packets = peer.session.receive_data(untrusted, now)
        sources = peer.inner_sources
        if all(source(packet) in sources for packet in packets):
            self._out.deliver(packets)
        else:
            self._deliver(peer, packets, now, {})
        return peer

    def receive_data(
        self, untrusted: Sequence[bytes], address: Address, now: float, touched: dict[int, Peer]
    ) -> Iterator[tuple[Peer, bool]]:
        """Take data packets of one sender; yields each client as soon as its run is done, and whether all verified."""
        for peer_id, run in _by_peer_id(untrusted):
            peer = self._sender(peer_id, address)
            if peer is None:
                known = self._clientele.connected_at(address) is not None
                self._drops.count(Drop.NO_DATA_KEY if known else Drop.UNKNOWN_SENDER, len(run))
                continue
            touched[peer.number] = peer
            if address != peer.address and not self._may_float(peer, address):
                self._drops.count(Drop.WRONG_ADDRESS, len(run))
                continue
            yield peer, self._receive_of(peer, run, address, now, touched)

    def receive_train(self, untrusted: Train, address: Address, now: float, bench: Workbench | None) -> Peer | None:
        """Data packets of one size in a row; None, and nothing has happened, if they have to go one by one."""
        first = bytes(untrusted.view[untrusted.lead : untrusted.lead + 4])
        if self._client_to_client or first[0] >> 3 != Opcode.DATA_V2:
            return None
        peer = self._sender(int.from_bytes(first[1:], "big"), address)
        if peer is None or peer.address != address:
            return None
        opened = peer.session.receive_train(untrusted, now, bench)
        if opened is None:
            return None
        if opened.rows is None:
            self._deliver(peer, opened.packets, now, {})
        elif (of := _common_source(opened.rows)) is None:
            self._deliver(peer, opened.rows.packets(), now, {})
        elif self._is_source_of(peer, of):
            self._out.deliver([opened.rows])
        else:
            self._drops.count(Drop.SPOOFED_SOURCE, len(opened.rows))
        return peer

    def send_superpacket(self, superpacket: Superpacket, now: float, bench: Workbench | None) -> Peer | None:
        """Many packets in one to the client that has their destination."""
        address = destination(superpacket.octets)
        peer = None if address is None else self._clientele.behind(address)
        if peer is None:
            self._drops.count(Drop.NO_ROUTE, superpacket.segments)
            return None
        peer.session.send_superpacket(superpacket, now, bench)
        return peer

    def send_usual(self, packets: Sequence[bytes], now: float) -> Sequence[bytes]:
        """Usual packets to the clients that have their destinations; returns what has to be `send`, from the first on.

        The way of nearly all packets, one by one: a batch of several clients' has nothing for many at once to be done.
        What is for one client leaves together, in order, so that one call may take it.
        """
        batches: dict[Address, list[bytes]] = {}
        rest: Sequence[bytes] = ()
        for place, packet in enumerate(packets):
            sealed = self.seal_one(packet, now)
            if sealed is None:
                rest = packets[place:]
                break
            datagram, address = sealed
            batch = batches.get(address)
            if batch is None:
                batches[address] = [datagram]
            else:
                batch.append(datagram)
        for address, batch in batches.items():
            self._out.send(batch, address)
        return rest

    def send(self, packets: Sequence[bytes], now: float, touched: dict[int, Peer]) -> None:
        """Packets to the clients that have their destinations, in order for each."""
        batches: dict[int, list[bytes]] = {}
        for packet in packets:
            address = destination(packet)
            peer = None if address is None else self._clientele.behind(address)
            if peer is None:
                self._drops.count(Drop.NOT_IP if address is None else Drop.NO_ROUTE)
                continue
            touched[peer.number] = peer
            batches.setdefault(peer.number, []).append(packet)
        for number, batch in batches.items():
            touched[number].session.send_packets(batch, now)

    def _sender(self, peer_id: int | None, address: Address) -> Peer | None:
        peer = self._clientele.of_peer_id(peer_id) if peer_id is not None else None
        if peer is None and peer_id in (None, NO_PEER_ID):
            return self._clientele.connected_at(address)
        return peer

    def _receive_of(
        self, peer: Peer, untrusted: Sequence[bytes], address: Address, now: float, touched: dict[int, Peer]
    ) -> bool:
        bad, heard = self._drops[Drop.UNAUTHENTIC_DATA], peer.session.data.authentic
        packets = peer.session.receive_data(untrusted, now)
        if address != peer.address and peer.session.data.authentic > heard:
            old = peer.address
            self._clientele.move(peer, address)
            self._out.tell(Floated(peer.number, old, address))
        self._deliver(peer, packets, now, touched)
        return self._drops[Drop.UNAUTHENTIC_DATA] == bad

    def _may_float(self, peer: Peer, address: Address) -> bool:
        other = self._clientele.connected_at(address)
        free = other is None or other is peer or other.common_name == peer.common_name
        return free and self._can_float

    def _deliver(self, peer: Peer, packets: list[bytes], now: float, touched: dict[int, Peer]) -> None:
        """What came out of a client: check where it says it is from, pass it on."""
        own = [packet for packet in packets if self._is_source_of(peer, source(packet))]
        if len(own) < len(packets):
            self._drops.count(Drop.SPOOFED_SOURCE, len(packets) - len(own))
        if not self._client_to_client:
            self._out.deliver(own)
            return
        for packet in own:
            if self._clientele.behind(destination(packet) or b"") is None:
                self._out.deliver((packet,))
            else:
                self.send((packet,), now, touched)

    def _is_source_of(self, peer: Peer, address: bytes | None) -> bool:
        return address is not None and (address in peer.inner_sources or self._clientele.behind(address) is peer)


def split_runs(untrusted: Sequence[bytes]) -> list[tuple[bool, list[bytes]]]:
    """The packets in order, cut where data (True) follows control or the reverse."""
    runs: list[tuple[bool, list[bytes]]] = []
    for packet in untrusted:
        is_data = bool(packet) and packet[0] >> 3 in _DATA
        if runs and runs[-1][0] == is_data:
            runs[-1][1].append(packet)
        else:
            runs.append((is_data, [packet]))
    return runs


def _by_peer_id(untrusted: Sequence[bytes]) -> list[tuple[int | None, list[bytes]]]:
    """The data packets in order, cut where the peer id changes; None: the packet has none."""
    runs: list[tuple[int | None, list[bytes]]] = []
    for packet in untrusted:
        has_id = packet[0] >> 3 == Opcode.DATA_V2
        peer_id = int.from_bytes(packet[1:4], "big") if has_id else None
        if runs and runs[-1][0] == peer_id:
            runs[-1][1].append(packet)
        else:
            runs.append((peer_id, [packet]))
    return runs


def _common_source(rows: Rows) -> bytes | None:
    """The source address of all packets; None if they have several. Shape: IP packets of one version."""
    return rows.common(12, 4) if rows.first[0] >> 4 == 4 else rows.common(8, 16)


def _note_traffic(peer: Peer, now: float) -> None:
    """For `inactive`: what this client has moved so far."""
    data = peer.session.data
    peer.limits.note(data.octets_in + data.octets_out, now)

"""Which client is meant: a server's clients by number, session, peer id, outer address and inner address.

    handshake    found by (address, session id)
    connected    also by peer id, by address alone, and by the inner addresses and networks behind it
    leaving      again by (address, session id) alone: it may still acknowledge what it was told

Keeps the indexes in step with each other and decides nothing. Pure.
Source: openvpn-protocol.md sections 2.3 and 10.5.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from vpn.dataplane.inner import InnerRoutes
from vpn.server_peer import Peer, Stage
from vpn.session import Session
from vpn.settings import Address
from vpn.wire.packet import PeerId, SessionId


class Clientele:
    """`peers` holds every client that is not forgotten yet, by number. Read only outside of this class."""

    def __init__(self) -> None:
        self.peers: dict[int, Peer] = {}
        self._routes: InnerRoutes[Peer] = InnerRoutes()
        self._by_session: dict[tuple[Address, bytes], Peer] = {}
        self._by_peer_id: dict[int, Peer] = {}
        self._by_address: dict[Address, Peer] = {}  # connected ones
        self._last_number = 0

    # -- finding -----------------------------------------------------------------------------------------------------

    def of_session(self, address: Address, session_id: bytes) -> Peer | None:
        return self._by_session.get((address, session_id))

    def of_peer_id(self, peer_id: int) -> Peer | None:
        return self._by_peer_id.get(peer_id)

    def connected_at(self, address: Address) -> Peer | None:
        return self._by_address.get(address)

    def behind(self, inner: bytes) -> Peer | None:
        """The connected client that has this inner address, or a network with it. Shape: 4 or 16 octets."""
        return self._routes.find(inner)

    def at(self, address: Address) -> list[Peer]:
        """All clients at an outer address, in whatever stage."""
        return [peer for peer in self.peers.values() if peer.address == address]

    def in_stage(self, stage: Stage) -> list[Peer]:
        return [peer for peer in self.peers.values() if peer.stage is stage]

    @property
    def connected_count(self) -> int:
        return len(self._by_peer_id)

    def free_peer_id(self) -> PeerId:
        return next(PeerId(number) for number in range(1 << 24) if number not in self._by_peer_id)

    @property
    def all_acknowledged(self) -> bool:
        return all(peer.session.all_acknowledged for peer in self.peers.values())

    # -- changing ----------------------------------------------------------------------------------------------------

    def add(self, address: Address, session: Session, remote_id: SessionId) -> Peer:
        """A client whose handshake begins."""
        self._last_number += 1
        peer = Peer(self._last_number, address, session)
        self.peers[peer.number] = peer
        self._by_session[address, remote_id] = peer
        return peer

    def connect(
        self,
        peer: Peer,
        addresses: Iterable[IPv4Address | IPv6Address],
        networks: Iterable[IPv4Network | IPv6Network],
    ) -> None:
        """From here on data and inner packets find the client."""
        own = list(addresses)
        for address in own:
            self._routes.add_host(address, peer)
        for network in networks:
            self._routes.add_network(network, peer)
        peer.inner_sources = frozenset(address.packed for address in own)
        if peer.peer_id is not None:
            self._by_peer_id[peer.peer_id] = peer
        self._by_address[peer.address] = peer

    def move(self, peer: Peer, address: Address) -> None:
        """A connected client has another outer address now."""
        remote_id = peer.session.remote_id
        if self._by_address.get(peer.address) is peer:
            del self._by_address[peer.address]
        if remote_id is not None:
            self._by_session.pop((peer.address, remote_id), None)
            self._by_session[address, remote_id] = peer
        peer.address = address
        self._by_address[address] = peer

    def disconnect(self, peer: Peer) -> None:
        """Undo `connect`."""
        if self._by_address.get(peer.address) is peer:
            del self._by_address[peer.address]
        if peer.peer_id is not None and self._by_peer_id.get(peer.peer_id) is peer:
            del self._by_peer_id[peer.peer_id]
        self._routes.remove(peer)

    def remove(self, peer: Peer) -> None:
        """Nothing finds the client any more."""
        self.peers.pop(peer.number, None)
        remote_id = peer.session.remote_id
        if remote_id is not None and self._by_session.get((peer.address, remote_id)) is peer:
            del self._by_session[peer.address, remote_id]

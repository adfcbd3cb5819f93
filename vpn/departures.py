"""How a server's clients leave: refused, sent away, gone by themselves, and at last forgotten. Sans I/O.

    refuse = AUTH_FAILED, then leave        leave = counts as gone, last words are repeated        forget = no trace

Sources: openvpn-protocol.md sections 8.2 and 9.
"""

from __future__ import annotations

from vpn.clientele import Clientele
from vpn.events import ClientGone, CloseReason, RefusalReason, Refused, TransportUnusable
from vpn.outlets import Outlets
from vpn.pool import AddressPool
from vpn.server_peer import Peer, Stage
from vpn.wire.message import AuthFailure
from vpn.wire.peer_info import Protocol

_LINGER = 5.0  # how long a leaving client is told again what it has not acknowledged


class Departures:
    """Units: `now` in monotonic seconds."""

    def __init__(self, clientele: Clientele, pool: AddressPool, out: Outlets) -> None:
        self._clientele = clientele
        self._pool = pool
        self._out = out

    def refuse(self, peer: Peer, reason: RefusalReason, detail: str, now: float) -> None:
        """Tell the client why, then let it go.

        A full server is no reason for a client to give up: it is told to try again, or nothing if it is too old to
        tell that apart; then it gives up waiting and tries again, as it does with the real server, which never speaks.
        """
        for_now = reason is RefusalReason.SERVER_FULL
        if not for_now or Protocol.AUTH_FAIL_TEMP in peer.info.protocol:
            peer.session.send_text(AuthFailure(detail, temporary=for_now).build(), now)
        self._out.tell(Refused(peer.number, peer.address, reason, detail))
        self.leave(peer, CloseReason.AUTH_FAILED, detail or reason.value, now)

    def leave(self, peer: Peer, reason: CloseReason, detail: str, now: float) -> None:
        """The client counts as gone; what it was told last is repeated for a while."""
        if peer.stage in (Stage.LEAVING, Stage.GONE):
            return
        self._clientele.disconnect(peer)
        if peer.lease is not None:
            self._pool.release(peer.lease)
        peer.stage = Stage.LEAVING
        peer.limits.stop()
        traffic = peer.session.data
        traffic.close()
        peer.gone_at = now + _LINGER
        self._out.tell(
            ClientGone(
                peer=peer.number,
                peer_id=peer.peer_id,
                address=peer.address,
                common_name=peer.common_name,
                reason=reason,
                detail=detail,
                octets_in=traffic.octets_in,
                octets_out=traffic.octets_out,
            )
        )

    def distrust_stream(self, peer: Peer, now: float) -> None:
        """A TCP stream in which one packet is not authentic cannot be trusted any further."""
        if peer.stage is not Stage.GONE:
            detail = "a packet in the TCP stream is not authentic"
            self._out.tell(TransportUnusable(peer.address, detail))
            self.leave(peer, CloseReason.TRANSPORT, detail, now)

    def forget(self, peer: Peer) -> None:
        """Nothing is kept of the client."""
        peer.stage = Stage.GONE
        self._clientele.remove(peer)
        peer.session.close()

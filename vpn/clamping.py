"""From `mssfix` to the limits that the data path clamps TCP's segment sizes to. Pure."""

from __future__ import annotations

from vpn.dataplane.channel import Negotiated
from vpn.dataplane.mss import MssLimits, Path
from vpn.session_setup import SessionSetup

_IPV4_AND_TCP_OCTETS, _IPV6_AND_TCP_OCTETS = 40, 60


def segment_limits(mssfix: int | None, path: Path, *, inner: bool) -> MssLimits | None:
    """The limits for connections through `path`; None: no clamping.

    Shape: `mssfix` is the largest outer IP packet, or with `inner` the largest inner one
    """
    if mssfix is None:
        return None
    if inner:
        return MssLimits(mssfix - _IPV4_AND_TCP_OCTETS, mssfix - _IPV6_AND_TCP_OCTETS)
    return MssLimits.of(mssfix, path)


def session_limits(setup: SessionSetup, negotiated: Negotiated) -> MssLimits | None:
    """The limits for connections through a session whose ends have agreed so."""
    data, header_octets = setup.data, 1 if negotiated.peer_id is None else 4
    path = Path(
        setup.transport, setup.transport_ipv6, negotiated.cipher, data.digest, negotiated.compression, header_octets
    )
    return segment_limits(data.mssfix, path, inner=data.mssfix_inner)

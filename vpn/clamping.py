"""From `mssfix` to the limits that the data path clamps TCP's segment sizes to. Pure."""

from __future__ import annotations

from vpn.dataplane.mss import MssLimits, Path

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

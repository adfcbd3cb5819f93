"""The ways that had changed at the end of a variant: a lease or a fault came between, or the tunnel ended.

The drawings and tables of ways show how it was when the tunnel had just come up. What the kernel answered when the
work was done stands beside them where it differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from testbed.report.own_addresses import is_tunnel_interface
from testbed.result import VariantResult


def later_in_words(variant: VariantResult) -> str:
    """`www.example.com (93.184.216.34) beside the tunnel, by client-eth0`, and so on; nothing if nothing changed."""
    changed: dict[tuple[str, str], list[str]] = {}
    for row in variant.egress_after:
        changed.setdefault((str(row.get("site", "?")), _way(variant, row)), []).append(str(row.get("address", "?")))
    return "; ".join(f"{site} ({', '.join(addresses)}) {way}" for (site, way), addresses in changed.items())


def later_way(variant: VariantResult, row: Mapping[str, Any]) -> str:
    """The same of one row of `egress`, without the site: nothing if its way is what it was."""
    end = (row.get("site"), row.get("address"))
    return next(
        (_way(variant, one) for one in variant.egress_after if (one.get("site"), one.get("address")) == end), ""
    )


def _way(variant: VariantResult, row: Mapping[str, Any]) -> str:
    if row.get("error"):
        return f"has no way: {row['error']}"
    side = "directly" if variant.tunnel is None else "beside the tunnel"
    side = "through the tunnel" if is_tunnel_interface(variant, row.get("interface")) else side
    via = f" via {row['gateway']}" if row.get("gateway") else ""
    return f"{side}, by {row.get('interface', '?')}{via}"

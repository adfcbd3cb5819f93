"""Every option, by name."""

from __future__ import annotations

from vpn.config.option import Option
from vpn.config.table_network import CONNECTION_OPTIONS, INTERFACE_OPTIONS, ROUTE_OPTIONS
from vpn.config.table_process import PROCESS_OPTIONS, SERVER_OPTIONS, TIMER_OPTIONS
from vpn.config.table_security import CONTROL_OPTIONS, CREDENTIAL_OPTIONS, DATA_OPTIONS, TLS_OPTIONS

OPTIONS: dict[str, Option] = {
    option.name: option
    for rows in (
        CONNECTION_OPTIONS,
        INTERFACE_OPTIONS,
        ROUTE_OPTIONS,
        TLS_OPTIONS,
        CONTROL_OPTIONS,
        DATA_OPTIONS,
        CREDENTIAL_OPTIONS,
        SERVER_OPTIONS,
        TIMER_OPTIONS,
        PROCESS_OPTIONS,
    )
    for option in rows
}


def nearest(name: str) -> str:
    """A known option that is spelled much like `name`, or nothing."""
    from difflib import get_close_matches  # only a mistake needs it

    return next(iter(get_close_matches(name, OPTIONS, n=1, cutoff=0.7)), "")

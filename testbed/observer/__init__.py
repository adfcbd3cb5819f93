"""What somebody on the path learns: a capture file in, sightings out.

`observe(path)` reads a pcapng or pcap file and returns an `Observation`. The observer has only the wire: it knows no
key, no configuration and nothing of who did what, and every octet it reads may be hostile.
"""

from testbed.observer.model import (
    ClearText,
    Direction,
    Endpoint,
    Flow,
    Hint,
    Limits,
    Name,
    Observation,
    Stream,
    Tunnel,
    Volume,
)
from testbed.observer.observe import observe

__all__ = [
    "observe",
    "Observation",
    "Limits",
    "Flow",
    "Endpoint",
    "Volume",
    "Direction",
    "Stream",
    "Name",
    "Hint",
    "Tunnel",
    "ClearText",
]

"""Octets on the wire to values and back; no state, no crypto."""

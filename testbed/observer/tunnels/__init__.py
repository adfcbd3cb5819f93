"""Tunnels, told from the outside: which conversations carry others, by which protocol, and since which packet."""

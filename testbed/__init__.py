"""The VPN testbed: a small Internet, a real tunnel, and proof of what an observer learned."""

__version__ = "0.1.0"

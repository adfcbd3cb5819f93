"""How to start each VPN program on both ends of a tunnel, and how to tell that it is up.

`endpoint.py` says what an endpoint is, `openvpn_config.py` writes the configuration that our `vpn` and the real
`openvpn` both read, `start.py` starts the two ends in their nodes and waits for them. This package knows programs only
by their command lines: it imports none of them.
"""

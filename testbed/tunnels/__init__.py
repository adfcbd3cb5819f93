"""How to start each VPN program on both ends of a tunnel, and how to tell that it is up.

`ends.py` says what an end is, `openvpn_config.py` writes the configuration that our `vpn` and the real `openvpn` both
read, `wireguard.py` the script of wireguard-go's ends; `plans.py` turns a scenario's tunnel into what `start.py` starts
in the nodes, awaits (`answer.py` asks an address inside), signals, starts again and ends. This package knows programs
only by their command lines: it imports none of them.
"""

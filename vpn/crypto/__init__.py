"""Keys, derivations, protection of control packets, replay windows."""

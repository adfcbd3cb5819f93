"""Ground truth of a tunnel: which outer datagrams carried which inner packet, proven by opening them.

The lab's tunnel is the lab's own, so its keys are known when a run is over. `keylog` and `data_keys` derive what the
data channel was sealed with, `outer` takes the tunnel's packets out of the ISP's capture, `matching` opens them and
finds each in the capture of the client's tun device, `separable` says which inner flows stay apart from outside,
`export` writes it down. `control` takes the wrapping off control packets, for a capture that shows the handshake.

An observer never gets any of it: nothing here is imported by `testbed.observer`, and no verdict rests on it. It knows
the protocol from its description alone and imports nothing of `vpn`, so that it can find a fault there. Pure.
"""

"""Everything of the tunnel that touches the host: sockets, the tun device, netlink, files, signals, the clock.

In the order a start goes through them: `run` (command line to exit code), `log`, `client` and `server` (what to do
about events), `pump` (the event loop that moves packets), `transport` and `udp` (outer sockets), `tun`, `network`
(addresses, routes and resolver, applied and taken back), `routes` (which routes; pure), `netlink`, `resolver`,
`status`.
"""

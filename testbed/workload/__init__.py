"""What the client does in the lab: known actions, and for each the facts that it really created.

One file per verb (`dns_lookup`, `http_request`, `ping`, `command`), `attempt` for what they share, `request` for the
JSON in and out, `trust` for programs that must believe the lab's certificates. Nothing here knows of tunnels or taps.
"""

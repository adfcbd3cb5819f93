"""What this project calls itself on the wire (IV_VER): a 2.6 peer, and honestly not OpenVPN's own program."""

IV_VERSION = "2.6_vpn-testbed"

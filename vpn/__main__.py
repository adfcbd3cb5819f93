"""`python -m vpn`: see `vpn.cli`."""

import sys

from vpn.cli import main

sys.exit(main(sys.argv[1:]))

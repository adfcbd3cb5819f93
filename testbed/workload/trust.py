"""How programs come to believe the lab's certificates, for `run` actions and for `testbed exec` and `shell`.

Two ways, meant to be used together:
- `write_bundle` makes one file of the host's authorities and the lab's. Bind-mounted over the client node's
  /etc/ssl/certs/ca-certificates.crt (see `BUNDLE_TARGETS`; only where the file exists), curl, wget, git and everything
  else that reads that file just works, without any environment.
- `trust_environment` are the variables for programs that look elsewhere (Python's ssl reads a directory of hashed
  names, requests and Node bring their own authorities).
"""

from __future__ import annotations

import os
from pathlib import Path

BUNDLE_TARGETS = (
    Path("/etc/ssl/certs/ca-certificates.crt"),  # Debian, Ubuntu, Alpine, Arch
    Path("/etc/pki/tls/certs/ca-bundle.crt"),  # Fedora
)


def write_bundle(ca_certificate: Path, bundle: Path) -> Path:
    """Write the host's authorities followed by the lab's to `bundle` (a new file) and return it."""
    host = next((path.read_bytes() for path in BUNDLE_TARGETS if path.is_file()), b"")
    separator = b"" if not host or host.endswith(b"\n") else b"\n"
    descriptor = os.open(bundle, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with open(descriptor, "wb") as file:
        file.write(host + separator + ca_certificate.read_bytes())
    return bundle


def trust_environment(bundle: str | None, keylog: str | None = None) -> dict[str, str]:
    """Environment variables that make programs trust `bundle` and log TLS secrets to `keylog`."""
    environment = {}
    if bundle:
        names = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO")
        environment.update(dict.fromkeys(names, bundle))
    if keylog:
        environment["SSLKEYLOGFILE"] = keylog
    return environment

"""The certificates of the lab's sites, judged by OpenSSL at its strictest."""

from __future__ import annotations

import datetime
import ssl

import pytest

from testbed.services.certificates import Credentials, SiteAuthority

NOW = datetime.datetime.now(datetime.UTC)
AUTHORITY = SiteAuthority.create(NOW)
SITE = AUTHORITY.issue(("www.example.com",), ("192.0.2.1", "2001:db8::1"), NOW)


def shake_hands(host: str, trusted: SiteAuthority = AUTHORITY, site: Credentials = SITE) -> str | None:
    """A handshake between two memory buffers; the protocol version. Errors: ssl.SSLError as the client meets it."""
    client_context = ssl.create_default_context(cadata=trusted.pem.decode())
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(down, up, server_hostname=host)
    server = site.server_context().wrap_bio(up, down, server_side=True)
    for _ in range(4):
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return client.version()


@pytest.mark.parametrize("host", ["www.example.com", "0a1b.www.example.com", "192.0.2.1", "2001:db8::1"])
def test_a_site_is_itself_under_its_name_below_it_and_at_its_addresses(host: str) -> None:
    assert shake_hands(host) == "TLSv1.3"


@pytest.mark.parametrize("host", ["example.com", "a.b.www.example.com", "192.0.2.2"])
def test_a_site_is_nobody_else(host: str) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match=r"not valid for|mismatch"):
        shake_hands(host)


def test_another_lab_s_authority_does_not_vouch_for_it() -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands("www.example.com", trusted=SiteAuthority.create(NOW))


def test_a_name_longer_than_a_common_name_may_be_still_gets_its_certificate() -> None:
    name = f"{'a' * 60}.{'b' * 60}.example"
    assert shake_hands(name, site=AUTHORITY.issue((name,), ("192.0.2.1",), NOW)) == "TLSv1.3"


def test_no_key_is_in_a_repr_or_in_what_is_handed_out() -> None:
    assert b"PRIVATE" in SITE.chain_and_key
    assert "PRIVATE" not in repr(SITE)
    assert "key" not in repr(AUTHORITY).lower()
    assert b"PRIVATE" not in AUTHORITY.pem

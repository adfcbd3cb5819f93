"""remote-cert-tls by itself: OpenSSL's own purpose check would hide a mistake in it."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.sim.pki import authority
from vpn.settings import CertificateRole
from vpn.tls import judge_purpose

USAGES = {
    CertificateRole.SERVER: ExtendedKeyUsageOID.SERVER_AUTH,
    CertificateRole.CLIENT: ExtendedKeyUsageOID.CLIENT_AUTH,
}


@pytest.mark.parametrize("wanted", list(CertificateRole))
@pytest.mark.parametrize("role", list(CertificateRole))
def test_a_certificate_is_good_for_the_role_of_its_extended_key_usage_alone(
    role: CertificateRole, wanted: CertificateRole
) -> None:
    certificate = x509.load_pem_x509_certificate(authority().issue("x", USAGES[role]).certificate.encode())
    assert (judge_purpose(certificate, wanted) is None) is (role is wanted)
    assert judge_purpose(certificate, None) is None

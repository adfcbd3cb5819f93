"""The certificate authority of the lab's web sites: made at start, trusted by the lab's client, gone with the process.

Elliptic-curve keys (P-256) take a millisecond each. A site's private key reaches OpenSSL through an anonymous memory
file, because CPython's ssl loads keys from paths only and a key of ours never touches a disk; the authority's key stays
in this process's memory. The tunnel's certificates are none of this module's business: `vpn` has its own.

Source: RFC 5280; CA/Browser Forum baseline requirements for what today's clients insist on (subjectAltName, key usage).
"""

from __future__ import annotations

import datetime
import os
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = datetime.timedelta(days=30)
CLOCK_SKEW = datetime.timedelta(hours=1)


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """A site's certificate and private key, PEM."""

    chain_and_key: bytes

    def server_context(self, protocols: Sequence[str] = ("http/1.1",)) -> ssl.SSLContext:
        """A TLS server context of its own: each listener hangs its callback into it. Shape: `protocols` for ALPN."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(list(protocols))
        with self.as_file() as path:
            context.load_cert_chain(path)
        return context

    @contextmanager
    def as_file(self) -> Iterator[str]:
        """A path that exists meanwhile, for libraries that read certificates from paths only."""
        descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, self.chain_and_key)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)


@dataclass(frozen=True, slots=True, repr=False)
class SiteAuthority:
    """A self-signed authority and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, now: datetime.datetime) -> SiteAuthority:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "VPN testbed site CA")])
        builder = _builder(name, name, key.public_key(), now)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def issue(self, hosts: Sequence[str], addresses: Sequence[str], now: datetime.datetime) -> Credentials:
        """A fresh key and its certificate for `hosts`, every name directly below each, and the addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
        names: list[x509.GeneralName] = [x509.DNSName(f"{prefix}{host}") for host in hosts for prefix in ("", "*.")]
        names += [x509.IPAddress(ip_address(address)) for address in addresses]
        builder = _builder(subject, self.certificate.subject, key.public_key(), now)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        authority_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = builder.add_extension(authority_id, critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Credentials(certificate.public_bytes(Encoding.PEM) + private)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )

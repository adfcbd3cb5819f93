"""A lab certificate authority: CA, server and client certificates, revocation list. Objects in, PEM out.

Keys are EC P-256: making one takes a fraction of a millisecond, where RSA would take most of a second. The key usage
and extended key usage are what `remote-cert-tls server|client` of any OpenVPN asks for. The CRL itself is the record
of what is revoked; there is no index file that could disagree with it.

Source: RFC 5280; openvpn-protocol.md section 4
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vpn.pki.private_files import PkiError

CA_DAYS = 3650
CERTIFICATE_DAYS = 825  # the longest that strict verifiers accept
CRL_DAYS = 3650  # a lab's CRL must not expire and lock everybody out
_NOW_MARGIN = timedelta(hours=1)  # a peer whose clock is a little behind must not see "not yet valid"
_COMMON_NAME_MAXIMUM = 64  # RFC 5280 appendix A.1, ub-common-name


class Purpose(StrEnum):
    SERVER = "server"
    CLIENT = "client"


@dataclass(frozen=True, slots=True)
class Validity:
    """From when until when a certificate holds."""

    start: datetime
    end: datetime

    @classmethod
    def of_days(cls, now: datetime, days: int, start_in_days: int = 0) -> Validity:
        """`days` long; a negative `start_in_days` with few days makes an expired certificate, for tests of refusal."""
        start = now + timedelta(days=start_in_days) - _NOW_MARGIN
        end = now + timedelta(days=start_in_days + days)
        if end <= start:
            raise PkiError(f"a validity of {days} days is empty")
        return cls(start, end)


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate with its private key. The key does not show in `repr`."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def __repr__(self) -> str:
        return f"Identity({self.certificate.subject.rfc4514_string()})"

    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @classmethod
    def from_pem(cls, certificate: bytes, key: bytes) -> Identity:
        """Errors: PkiError if either does not parse, or they do not belong together."""
        try:
            parsed = x509.load_pem_x509_certificate(certificate)
            private = serialization.load_pem_private_key(key, password=None)
        except (ValueError, TypeError) as error:
            raise PkiError("the CA's certificate or key is not readable PEM") from error
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise PkiError("the CA's key is not an EC key, so it was not made here")
        if private.public_key() != parsed.public_key():
            raise PkiError("the CA's key does not belong to its certificate")
        return cls(parsed, private)


def make_authority(name: str, validity: Validity) -> Identity:
    """A self-signed CA that may sign certificates and CRLs, and no further CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(name)
    usage = _key_usage(key_cert_sign=True, crl_sign=True)
    builder = _builder(subject, subject, key.public_key(), validity)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(usage, critical=True)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = builder.add_extension(identifier, critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
    )
    return Identity(builder.sign(key, hashes.SHA256()), key)


def issue(authority: Identity, name: str, purpose: Purpose, validity: Validity) -> Identity:
    """A new key and its certificate for one purpose, with `name` as common and alternative name."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_subject(name), authority.certificate.subject, key.public_key(), validity)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    usage = _key_usage(digital_signature=True, key_agreement=purpose is Purpose.SERVER)
    builder = builder.add_extension(usage, critical=True)
    server, client = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
    extended = [server if purpose is Purpose.SERVER else client]
    builder = builder.add_extension(x509.ExtendedKeyUsage(extended), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(name)]), critical=False)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = builder.add_extension(issuer, critical=False)
    return Identity(builder.sign(authority.key, hashes.SHA256()), key)


def build_crl(authority: Identity, now: datetime, previous: bytes | None = None, revoked: int | None = None) -> bytes:
    """A signed CRL in PEM: what the previous one lists, and the serial number `revoked`.

    Errors: PkiError if the previous CRL is not readable or not this CA's
    """
    number = 1
    builder = x509.CertificateRevocationListBuilder().issuer_name(authority.certificate.subject)
    builder = builder.last_update(now - _NOW_MARGIN).next_update(now + timedelta(days=CRL_DAYS))
    listed: set[int] = set()
    if previous is not None:
        old = _load_crl(authority, previous)
        number = old.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number + 1
        for entry in old:
            listed.add(entry.serial_number)
            builder = builder.add_revoked_certificate(entry)
    if revoked is not None and revoked not in listed:
        entry_builder = x509.RevokedCertificateBuilder().serial_number(revoked).revocation_date(now)
        builder = builder.add_revoked_certificate(entry_builder.build())
    builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    crl = builder.add_extension(issuer, critical=False).sign(authority.key, hashes.SHA256())
    return crl.public_bytes(serialization.Encoding.PEM)


def _load_crl(authority: Identity, pem: bytes) -> x509.CertificateRevocationList:
    try:
        crl = x509.load_pem_x509_crl(pem)
    except ValueError as error:
        raise PkiError("the present CRL is not readable PEM") from error
    if not crl.is_signature_valid(authority.key.public_key()):
        raise PkiError("the present CRL was signed by another CA")
    return crl


def _subject(name: str) -> x509.Name:
    if not 1 <= len(name) <= _COMMON_NAME_MAXIMUM or not name.isprintable():
        raise PkiError(f"{name!r}: a name has 1 to {_COMMON_NAME_MAXIMUM} printable characters")
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name)
    except ValueError as error:
        raise PkiError(
            f"{name!r}: a certificate's name must be ASCII (an international name in its xn-- form)"
        ) from error


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, validity: Validity
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(validity.start).not_valid_after(validity.end)


def _key_usage(
    *, digital_signature: bool = False, key_agreement: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_agreement=key_agreement,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        encipher_only=False,
        decipher_only=False,
    )

"""TLS inside the control channel, over memory BIOs: the only module that imports OpenSSL.

`TlsContext` holds what all sessions of a core share (own certificate, CA, rules for the other end's certificate);
`TlsEnd` is one handshake and the stream that follows: octets in, octets out, no socket. Certificates are judged by
the time the caller gives, not by the machine's clock. A refusal carries a reason a person can act on.

Uses pyOpenSSL because it has the RFC 5705 exporter that CPython's ssl lacks. No resumption, no renegotiation.
Source: openvpn-protocol.md section 4; openvpn(8) on remote-cert-tls and verify-x509-name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL, crypto

from vpn.events import RefusalReason
from vpn.settings import CertificateRole, ClientCertificate, NameRule, TlsSettings

_READ_OCTETS = 65536
_REASONS = {
    9: RefusalReason.EXPIRED_CERTIFICATE,  # X509_V_ERR_CERT_NOT_YET_VALID
    10: RefusalReason.EXPIRED_CERTIFICATE,  # X509_V_ERR_CERT_HAS_EXPIRED
    23: RefusalReason.REVOKED_CERTIFICATE,  # X509_V_ERR_CERT_REVOKED
    26: RefusalReason.WRONG_PURPOSE,  # X509_V_ERR_INVALID_PURPOSE
}
_ERROR_TEXTS = {
    2: "its issuer is not known",
    3: "no CRL of its issuer",
    7: "its signature does not verify",
    9: "not yet valid",
    10: "expired",
    12: "the CRL has expired",
    18: "self-signed, and not the configured CA",
    19: "self-signed CA in its chain is not the configured one",
    20: "its issuer is not the configured CA",
    21: "its signature cannot be checked: the issuer is not the configured CA",
    23: "revoked",
    24: "its issuer may not issue certificates",
    26: "not meant for this role (extended key usage)",
}
# OpenVPN's names for the letters of a distinguished name, as `verify-x509-name … subject` and logs spell them
_SHORT_NAMES = {
    NameOID.COUNTRY_NAME: "C",
    NameOID.STATE_OR_PROVINCE_NAME: "ST",
    NameOID.LOCALITY_NAME: "L",
    NameOID.ORGANIZATION_NAME: "O",
    NameOID.ORGANIZATIONAL_UNIT_NAME: "OU",
    NameOID.COMMON_NAME: "CN",
    NameOID.EMAIL_ADDRESS: "emailAddress",
    NameOID.SERIAL_NUMBER: "serialNumber",
}


class BadTlsSettings(ValueError):
    """A certificate, key, CA, CRL or cipher list that cannot be used. The text says which, without secrets."""


class TlsFailed(Exception):
    """The handshake or the stream broke; nothing more can come of this end."""

    def __init__(self, reason: RefusalReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """Who the other end proved to be; empty strings if it showed no certificate."""

    common_name: str = ""
    subject: str = ""


class TlsContext:
    """Everything the handshakes of one core share. Errors: BadTlsSettings."""

    def __init__(
        self, settings: TlsSettings, *, is_server: bool, keylog: Callable[[bytes], None] | None = None
    ) -> None:
        self.settings = settings
        self.is_server = is_server
        self._context = SSL.Context(SSL.TLS_SERVER_METHOD if is_server else SSL.TLS_CLIENT_METHOD)
        self._ends: dict[SSL.Connection, TlsEnd] = {}
        self._restrict_versions()
        self._load_own_certificate()
        self._load_trust()
        self._context.set_verify(self._verify_mode(), self._verify)
        if keylog is not None:
            self._context.set_keylog_callback(lambda _connection, line: keylog(line))

    def open(self, unix_time: int) -> TlsEnd:
        """A new end, at the start of its handshake."""
        store = self._context.get_cert_store()
        if store is not None:
            store.set_time(datetime.fromtimestamp(unix_time, UTC))
        connection = SSL.Connection(self._context, None)
        if self.is_server:
            connection.set_accept_state()
        else:
            connection.set_connect_state()
        end = TlsEnd(connection, self._forget)
        self._ends[connection] = end
        return end

    def _forget(self, connection: SSL.Connection) -> None:
        self._ends.pop(connection, None)

    def _restrict_versions(self) -> None:
        context, settings = self._context, self.settings
        context.set_min_proto_version(settings.minimum_version)
        context.set_max_proto_version(settings.maximum_version)
        context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        for option, text, setter in (
            ("tls-cipher", settings.ciphers, context.set_cipher_list),
            ("tls-ciphersuites", settings.ciphersuites, context.set_tls13_ciphersuites),
        ):
            if text:
                with _blaming(option):
                    setter(text.encode())

    def _load_own_certificate(self) -> None:
        settings = self.settings
        if not settings.certificate:
            if self.is_server:
                raise BadTlsSettings("cert: a server needs a certificate")
            return
        with _blaming("cert"):
            own, *chain = x509.load_pem_x509_certificates(settings.certificate.encode())
            self._context.use_certificate(own)
            for certificate in chain:
                self._context.add_extra_chain_cert(certificate)
        with _blaming("key"):
            key = load_pem_private_key(settings.private_key.encode(), None)
            self._context.use_privatekey(key)  # type: ignore[arg-type]  # DH keys cannot be in a certificate's use
            self._context.check_privatekey()

    def _load_trust(self) -> None:
        store = self._context.get_cert_store()
        if store is None:
            raise BadTlsSettings("ca: OpenSSL has no certificate store")
        with _blaming("ca"):
            authorities = x509.load_pem_x509_certificates(self.settings.ca.encode())
            for authority in authorities:
                store.add_cert(crypto.X509.from_cryptography(authority))
            if self.is_server:
                for authority in authorities:
                    self._context.add_client_ca(authority)
        if self.settings.crl:
            with _blaming("crl-verify"):
                store.add_crl(x509.load_pem_x509_crl(self.settings.crl.encode()))
                store.set_flags(crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL)

    def _verify_mode(self) -> int:
        if not self.is_server or self.settings.client_certificate is ClientCertificate.REQUIRE:
            return SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        if self.settings.client_certificate is ClientCertificate.OPTIONAL:
            return SSL.VERIFY_PEER
        return SSL.VERIFY_NONE

    def _verify(self, connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, good: int) -> bool:
        """OpenSSL's callback for each certificate of the chain; the first refusal's reason is kept."""
        try:
            refusal = self._judge(certificate.to_cryptography(), error, depth, bool(good))
        except Exception:  # a stranger's certificate: whatever a parser stricter than OpenSSL's stumbles over
            detail = f"certificate at depth {depth} cannot be read"
            refusal = TlsFailed(RefusalReason.UNTRUSTED_CERTIFICATE, detail)
        end = self._ends.get(connection)
        if refusal is not None and end is not None:
            end.refuse(refusal)
        return refusal is None

    def _judge(self, certificate: x509.Certificate, error: int, depth: int, good: bool) -> TlsFailed | None:
        subject = subject_text(certificate)
        if not good:
            reason = _REASONS.get(error, RefusalReason.UNTRUSTED_CERTIFICATE)
            text = _ERROR_TEXTS.get(error, f"cannot be verified (OpenSSL error {error})")
            return TlsFailed(reason, f"certificate of {subject or 'unnamed subject'} (depth {depth}): {text}")
        if depth > 0:
            return None
        return judge_purpose(certificate, self.settings.remote_cert_tls) or judge_name(certificate, self.settings)


class TlsEnd:
    """One end of one TLS connection. After TlsFailed use nothing but `take_output` (it holds the alert)."""

    __slots__ = ("_connection", "_forget", "_refusal", "is_complete")

    def __init__(self, connection: SSL.Connection, forget: Callable[[SSL.Connection], None]) -> None:
        self._connection = connection
        self._forget = forget
        self._refusal: TlsFailed | None = None
        self.is_complete = False

    def feed(self, untrusted: bytes) -> None:
        """Take octets of the other end's TLS stream."""
        view = memoryview(untrusted)
        while view:
            view = view[self._connection.bio_write(bytes(view)) :]

    def drive(self) -> bool:
        """Go on with the handshake; returns whether it is complete. Errors: TlsFailed."""
        if not self.is_complete:
            try:
                self._connection.do_handshake()
                self.is_complete = True
            except SSL.WantReadError:
                pass
            except SSL.Error as error:
                raise self._failure(error) from None
        return self.is_complete

    def read_records(self) -> list[bytes]:
        """Plaintext that has come, one item for each record. Errors: TlsFailed."""
        records = []
        while True:
            try:
                records.append(self._connection.recv(_READ_OCTETS))
            except SSL.WantReadError:
                return records
            except SSL.ZeroReturnError:
                raise TlsFailed(RefusalReason.TLS_FAILURE, "the other end closed TLS") from None
            except SSL.Error as error:
                raise self._failure(error) from None

    def write(self, message: bytes) -> None:
        """Send one message as one record. Errors: TlsFailed."""
        try:
            self._connection.sendall(message)
        except SSL.Error as error:
            raise self._failure(error) from None

    def take_output(self) -> bytes:
        """What must reach the other end, as a stream."""
        parts = []
        with contextlib.suppress(SSL.WantReadError, SSL.Error):
            while True:
                parts.append(self._connection.bio_read(_READ_OCTETS))
        return b"".join(parts)

    def export(self, label: bytes, octets: int) -> bytes:
        """Keying material of RFC 5705, without a context (which differs from an empty one in TLS 1.2)."""
        return self._connection.export_keying_material(label, octets, None)

    def refuse(self, refusal: TlsFailed) -> None:
        """Note why the other end's certificate is not accepted; the first reason stays."""
        if self._refusal is None:
            self._refusal = refusal

    def close(self) -> None:
        self._forget(self._connection)

    @property
    def peer_certificate(self) -> PeerCertificate:
        shown = self._connection.get_peer_certificate(as_cryptography=True)
        return PeerCertificate() if shown is None else PeerCertificate(common_name(shown), subject_text(shown))

    @property
    def version(self) -> str:
        return self._connection.get_protocol_version_name()

    @property
    def cipher(self) -> str:
        return self._connection.get_cipher_name() or ""

    def _failure(self, error: SSL.Error) -> TlsFailed:
        if self._refusal is not None:
            return self._refusal
        texts = [item[2] for item in error.args[0]] if error.args and isinstance(error.args[0], list) else []
        detail = "; ".join(texts) or type(error).__name__
        return TlsFailed(_reason_of_text(detail), detail)


def _reason_of_text(text: str) -> RefusalReason:
    if "peer did not return a certificate" in text:
        return RefusalReason.NO_CERTIFICATE
    # an alert whose subject is a certificate: the other end did not like ours
    if "alert" in text and any(word in text for word in ("certificate", "unknown ca", "access denied")):
        return RefusalReason.REFUSED_BY_PEER
    return RefusalReason.TLS_FAILURE


def common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[-1].value) if names else ""


def subject_text(certificate: x509.Certificate) -> str:
    """The subject as OpenVPN writes it: `C=…, O=…, CN=…`."""
    parts = (
        f"{_SHORT_NAMES.get(attribute.oid, attribute.oid.dotted_string)}={attribute.value!s}"
        for attribute in certificate.subject
    )
    return ", ".join(parts)


def judge_purpose(certificate: x509.Certificate, role: CertificateRole | None) -> TlsFailed | None:
    """remote-cert-tls: the certificate must have a key usage and an extended key usage for `role`."""
    if role is None:
        return None
    wanted = ExtendedKeyUsageOID.SERVER_AUTH if role is CertificateRole.SERVER else ExtendedKeyUsageOID.CLIENT_AUTH
    subject = subject_text(certificate)
    try:
        certificate.extensions.get_extension_for_class(x509.KeyUsage)
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound as missing:
        name = "key usage" if missing.oid == x509.KeyUsage.oid else "extended key usage"
        return TlsFailed(
            RefusalReason.WRONG_PURPOSE, f"certificate of {subject} has no {name} (remote-cert-tls {role})"
        )
    except ValueError:
        return TlsFailed(RefusalReason.WRONG_PURPOSE, f"certificate of {subject} has unreadable extensions")
    if wanted not in usages:
        return TlsFailed(RefusalReason.WRONG_PURPOSE, f"certificate of {subject} is not for a TLS {role}")
    return None


def judge_name(certificate: x509.Certificate, settings: TlsSettings) -> TlsFailed | None:
    """verify-x509-name."""
    wanted = settings.verify_name
    if not wanted:
        return None
    rule = settings.verify_name_rule
    actual = subject_text(certificate) if rule is NameRule.SUBJECT else common_name(certificate)
    if actual.startswith(wanted) if rule is NameRule.NAME_PREFIX else actual == wanted:
        return None
    return TlsFailed(RefusalReason.WRONG_NAME, f"certificate has {rule} {actual!r}, required is {wanted!r}")


@contextlib.contextmanager
def _blaming(option: str) -> Iterator[None]:
    try:
        yield
    except (SSL.Error, crypto.Error, ValueError, TypeError) as error:
        # OpenSSL's errors quote no key material; cryptography's ValueError for keys may be long but says only formats
        raise BadTlsSettings(f"{option}: cannot be used ({type(error).__name__})") from None

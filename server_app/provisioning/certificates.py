"""Keys and certificates of one fleet: an authority, a server, devices.

Everything here turns values into bytes; nothing is written and nothing is sent. The
certificates carry the identifiers and usages that strict verifiers (Python 3.13 on)
insist on.
"""

import datetime
import ipaddress
from dataclasses import dataclass
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_public_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS = 3650
SERVER_DAYS = 825
"""The longest that verifiers of Apple's systems accept."""
RENEWAL_DAYS = 60
"""A server certificate with fewer days left is replaced."""

Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True, kw_only=True)
class Authority:
    """The certificate authority of one fleet.

    Attributes
    ----------
    key : EllipticCurvePrivateKey
    certificate : Certificate
        Self-signed; what everybody in the fleet trusts.
    """

    key: Key
    certificate: x509.Certificate

    @classmethod
    def create(cls, name: str) -> Self:
        """Make a new one."""
        key = ec.generate_private_key(ec.SECP384R1())
        subject = _name(name)
        builder = _builder(subject, subject, key, AUTHORITY_DAYS, ca=True)
        usage = _usage(sign_certificates=True)
        builder = builder.add_extension(usage, critical=True)
        return cls(key=key, certificate=builder.sign(key, hashes.SHA384()))

    @classmethod
    def load(cls, key: bytes, certificate: bytes) -> Self:
        """Read one that ``private_pem`` and ``certificate_pem`` wrote.

        Raises
        ------
        ValueError
            If either is not PEM, or the key is not the certificate's.
        """
        private = load_pem_private_key(key, password=None)
        parsed = x509.load_pem_x509_certificate(certificate)
        if (
            not isinstance(private, ec.EllipticCurvePrivateKey)
            or private.public_key() != parsed.public_key()
        ):
            raise ValueError("the key is not the certificate's")
        return cls(key=private, certificate=parsed)

    def server_certificate(self, key: Key, hosts: list[str]) -> x509.Certificate:
        """Certify a server under all its host names and IP addresses."""
        names = x509.SubjectAlternativeName([_host(host) for host in hosts])
        usage = ExtendedKeyUsageOID.SERVER_AUTH
        return self._leaf(hosts[0], key, usage, SERVER_DAYS, names)

    def client_certificate(self, key: Key, device: str) -> x509.Certificate:
        """Certify a device, for services that ask a client who it is (mutual TLS).

        As long-lived as the authority: a device is shut out by taking it off the
        fleet's list, not by an expiry that would strand the ones in the field.
        """
        names = x509.SubjectAlternativeName([x509.DNSName(device)])
        left = self.certificate.not_valid_after_utc - datetime.datetime.now(
            datetime.UTC
        )
        usage = ExtendedKeyUsageOID.CLIENT_AUTH
        return self._leaf(device, key, usage, left.days, names)

    def _leaf(
        self,
        name: str,
        key: Key,
        purpose: x509.ObjectIdentifier,
        days: int,
        names: x509.SubjectAlternativeName,
    ) -> x509.Certificate:
        issuer = self.certificate
        identifier = issuer.extensions.get_extension_for_class(
            x509.SubjectKeyIdentifier
        )
        authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
            identifier.value
        )
        return (
            _builder(_name(name), issuer.subject, key, days, ca=False)
            .add_extension(_usage(sign_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(authority, critical=False)
            .add_extension(names, critical=False)
            .sign(self.key, hashes.SHA384())
        )


def server_key() -> Key:
    """Make a key for TLS: P-256, cheap enough for the smallest device to verify."""
    return ec.generate_private_key(ec.SECP256R1())


def device_key() -> Key:
    """Make a key a SuperNode can authenticate with: P-384."""
    return ec.generate_private_key(ec.SECP384R1())


def private_pem(key: Key) -> bytes:
    """Return a private key as TLS libraries read it (PKCS 8)."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def private_openssh(key: Key) -> bytes:
    """Return a private key as ``flower-supernode`` reads it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


def public_openssh(key: Key) -> bytes:
    """Return the public key as ``flwr supernode register`` reads it, one line."""
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)


def openssh_to_pem(public: str) -> bytes:
    """Return a public key as the SuperLink keeps it."""
    key = load_ssh_public_key(public.encode())
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """Return a certificate in PEM."""
    return certificate.public_bytes(Encoding.PEM)


def days_left(certificate: bytes) -> int:
    """Return the whole days until a PEM certificate expires."""
    end = x509.load_pem_x509_certificate(certificate).not_valid_after_utc
    return (end - datetime.datetime.now(datetime.UTC)).days


def _name(common_name: str) -> x509.Name:
    # The field ends at 64 characters; the full name is in the alternative names.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Key, days: int, *, ca: bool
) -> x509.CertificateBuilder:
    # A board without a battery-backed clock may lag behind when it first connects.
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    public = key.public_key()
    constraints = x509.BasicConstraints(ca=ca, path_length=0 if ca else None)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=days + 1))
        .add_extension(constraints, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )

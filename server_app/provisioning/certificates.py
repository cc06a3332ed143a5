"""Keys and certificates of one fleet: an authority, a server, devices.

Everything here turns values into bytes; nothing is written and nothing is sent. The
certificates carry the identifiers and usages that strict verifiers (Python 3.13 on)
insist on, and none outlives the authority that signed it.
"""

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
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
DEVICE_DAYS = 365
"""A stolen ``client.key`` is worth a year at most, unless its device is renewed."""
WARNING_DAYS = 60
"""With fewer days left, whoever looks at the fleet is told to renew."""

SIGNER = "expertfleet"
"""The name of the operator's key among a device's trusted entities."""

Key = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey


def now() -> datetime.datetime:
    """Return the time everything here is dated by."""
    return datetime.datetime.now(datetime.UTC)


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
    def create(cls, name: str, key: Key | None = None) -> Self:
        """Make a new one, or certify the key of one whose certificate was lost."""
        key = key or device_key()
        end = now() + datetime.timedelta(days=AUTHORITY_DAYS)
        builder = _builder(_name(name), key.public_key(), end, ca=True)
        signed = builder.issuer_name(_name(name)).sign(key, hashes.SHA384())
        return cls(key=key, certificate=signed)

    @classmethod
    def load(cls, key: Key, certificate: bytes) -> Self:
        """Take a key and its PEM certificate; ValueError if they are not of one pair.

        Of several certificates the first one counts.
        """
        parsed = x509.load_pem_x509_certificate(certificate)
        if key.public_key() != parsed.public_key():
            raise ValueError("the key is not the certificate's")
        return cls(key=key, certificate=parsed)

    def server_certificate(
        self, key: PublicKey, hosts: Sequence[str]
    ) -> x509.Certificate:
        """Certify a server under all its host names and IP addresses."""
        names = [_host(host) for host in hosts]
        usage = ExtendedKeyUsageOID.SERVER_AUTH
        return self._leaf(hosts[0], key, usage, SERVER_DAYS, names)

    def client_certificate(self, key: PublicKey, device: str) -> x509.Certificate:
        """Certify a device, for services that ask a client who it is (mutual TLS)."""
        usage = ExtendedKeyUsageOID.CLIENT_AUTH
        return self._leaf(device, key, usage, DEVICE_DAYS, [x509.DNSName(device)])

    def _leaf(
        self,
        name: str,
        key: PublicKey,
        purpose: x509.ObjectIdentifier,
        days: int,
        names: Sequence[x509.GeneralName],
    ) -> x509.Certificate:
        issuer = self.certificate
        identifier = issuer.extensions.get_extension_for_class(
            x509.SubjectKeyIdentifier
        )
        authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
            identifier.value
        )
        wanted = now() + datetime.timedelta(days=days)
        end = min(wanted, issuer.not_valid_after_utc)
        return (
            _builder(_name(name), key, end, ca=False)
            .issuer_name(issuer.subject)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(authority, critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self.key, hashes.SHA384())
        )


def server_key() -> Key:
    """Make a key for TLS: P-256, cheap enough for the smallest device to verify."""
    return ec.generate_private_key(ec.SECP256R1())


def device_key() -> Key:
    """Make a key a SuperNode can authenticate with: P-384."""
    return ec.generate_private_key(ec.SECP384R1())


def app_key() -> ed25519.Ed25519PrivateKey:
    """Make a key that apps are signed with, of the one kind Flower verifies."""
    return ed25519.Ed25519PrivateKey.generate()


def private_pem(
    key: Key | ed25519.Ed25519PrivateKey, passphrase: bytes | None = None
) -> bytes:
    """Return a private key as TLS libraries read it (PKCS 8)."""
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def private_openssh(key: Key) -> bytes:
    """Return a private key as ``flower-supernode`` reads it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


def public_openssh(key: Key | PublicKey | ed25519.Ed25519PrivateKey) -> bytes:
    """Return the public key, or that of a private one, as Flower reads it: one line."""
    public = key if isinstance(key, PublicKey) else key.public_key()
    return public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)


def load_private(pem: bytes) -> Key:
    """Read a private key of ours; ValueError if it is none, or encrypted."""
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError as error:  # `cryptography`'s word for encrypted
        raise ValueError(str(error)) from None
    if not isinstance(key, Key):
        raise ValueError("it is on no elliptic curve")  # noqa: TRY004
    return key


def load_public(openssh: str) -> PublicKey:
    """Read a public key of ours, one line; ValueError if it is none."""
    key = load_ssh_public_key(openssh.encode())
    if not isinstance(key, PublicKey):
        raise ValueError("it is on no elliptic curve")  # noqa: TRY004
    return key


def openssh_to_pem(public: str) -> bytes:
    """Return a public key as the SuperLink keeps it."""
    key = load_ssh_public_key(public.encode())
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """Return a certificate in PEM."""
    return certificate.public_bytes(Encoding.PEM)


def trusted_entities(key: ed25519.Ed25519PrivateKey) -> bytes:
    """Return what a SuperNode is given to know the signature of this key by."""
    return f'{SIGNER}: "{public_openssh(key).decode()}"\n'.encode()


def split(pem: bytes) -> list[bytes]:
    """Return the certificates of a file one by one, each in PEM."""
    return [certificate_pem(each) for each in x509.load_pem_x509_certificates(pem)]


def expiry(certificate: bytes) -> datetime.datetime:
    """Return when the (first) PEM certificate ends."""
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc


def belong_together(key: bytes, certificate: bytes) -> bool:
    """Return whether a PEM key is that of the (first) PEM certificate."""
    private = load_pem_private_key(key, password=None)
    public = x509.load_pem_x509_certificate(certificate).public_key()
    return private.public_key() == public


def _name(common_name: str) -> x509.Name:
    # The field ends at 64 characters; the full name is in the alternative names.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _builder(
    subject: x509.Name,
    public: PublicKey,
    end: datetime.datetime,
    *,
    ca: bool,
) -> x509.CertificateBuilder:
    """Return a certificate that lacks its issuer and what only a leaf has."""
    # A board without a battery-backed clock may lag behind when it first connects.
    start = now() - datetime.timedelta(days=1)
    constraints = x509.BasicConstraints(ca=ca, path_length=0 if ca else None)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(constraints, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
        .add_extension(_usage(sign_certificates=ca), critical=True)
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

"""A certificate authority, a server certificate and device keys for one fleet."""

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

PEM, OPENSSH = (
    (Encoding.PEM, PrivateFormat.PKCS8),
    (Encoding.PEM, PrivateFormat.OpenSSH),
)


def _write_key(
    path: Path,
    key: ec.EllipticCurvePrivateKey,
    how: tuple[Encoding, PrivateFormat],
) -> None:
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(*how, NoEncryption()))


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    extension: x509.ExtensionType,
) -> bytes:
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=1))
        .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        .sign(issuer_key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )


def write_certificates(folder: Path) -> None:
    """Write ``ca.crt``, ``server.pem`` and ``server.key`` for the loopback."""
    ca, server = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    names = x509.SubjectAlternativeName(
        [
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")),
        ]
    )
    root = _certificate(
        "test CA", ca, "test CA", ca, x509.BasicConstraints(ca=True, path_length=0)
    )
    (folder / "ca.crt").write_bytes(root)
    leaf = _certificate("localhost", server, "test CA", ca, names)
    (folder / "server.pem").write_bytes(leaf)
    _write_key(folder / "server.key", server, PEM)


def write_device_key(path: Path) -> None:
    """Write the key pair of a device: ``path`` and ``path.pub``."""
    key = ec.generate_private_key(ec.SECP384R1())
    _write_key(path, key, OPENSSH)
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    path.with_suffix(".pub").write_bytes(public)

"""What apps are signed with, and what SuperExec proves to be itself with."""

import secrets
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from server_app.provisioning import ProvisioningError, certificates
from server_app.provisioning.private_files import read, write


def app_key(folder: Path) -> ed25519.Ed25519PrivateKey:
    """Read a fleet's key that apps are signed with.

    Raises
    ------
    ProvisioningError
        If it is none.
    """
    file = folder / "apps.key"
    pem = read(file)
    try:
        key = load_pem_private_key(pem, password=None)
    except (TypeError, ValueError) as error:
        raise ProvisioningError(f"{file} is damaged: {error}") from None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ProvisioningError(f"{file} is damaged: no Ed25519 key")
    return key


def ensure_secrets(folder: Path) -> None:
    """Make a fleet's key and its server's secret, where they are not there yet."""
    key, secret = folder / "apps.key", folder / "superexec.secret"
    if not key.exists():
        write(key, certificates.private_pem(certificates.app_key()))
    trusted = certificates.trusted_entities(app_key(folder))
    write(folder / "trusted.yaml", trusted, 0o644)
    if not secret.exists():
        write(secret, new_secret())


def new_secret() -> bytes:
    """Return 32 random bytes in letters: whoever copies it by hand loses no byte."""
    return secrets.token_hex(32).encode()

"""Certificates for keys that are there already, or for new ones where there are none.

Which files there are is ``directory``'s business; who signs, that of ``authority``.
"""

from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives import hashes

from server_app.provisioning import certificates
from server_app.provisioning.app_keys import new_secret
from server_app.provisioning.certificates import Authority
from server_app.provisioning.members import Device, IssuedCertificate
from server_app.provisioning.private_files import write


def issue_server(
    folder: Path, authority: Authority, hosts: tuple[str, ...], *, new_key: bool
) -> None:
    """Certify the server's key under these names.

    Parameters
    ----------
    folder : Path
        The fleet's directory.
    authority : Authority
    hosts : tuple of str
    new_key : bool
        Make another key; one that is missing or damaged is made anyway.
    """
    file, old = folder / "server.key", None
    if not new_key:
        with suppress(OSError, ValueError):
            old = certificates.load_private(file.read_bytes())
    key = old or certificates.server_key()
    certificate = authority.server_certificate(key.public_key(), hosts)
    if old is None:
        write(file, certificates.private_pem(key))
    write(folder / "server.pem", certificates.certificate_pem(certificate), 0o644)


def issue_client(
    name: str, device: Device, authority: Authority, *, new_keys: bool
) -> tuple[Device, dict[str, bytes]]:
    """Certify a device's key for TLS.

    Parameters
    ----------
    new_keys : bool
        Make another key, and another secret of its SuperNode. Both are made anyway for
        a device of before its key was noted: there is nothing to certify again.

    Returns
    -------
    device, files
        The device with one more certificate, and what of its bundle is new.
    """
    files: dict[str, bytes] = {}
    if device.client_key and not new_keys:
        public = certificates.load_public(device.client_key)
    else:
        key = certificates.server_key()
        public = key.public_key()
        files["client.key"] = certificates.private_pem(key)
        files["superexec.secret"] = new_secret()
    certificate = authority.client_certificate(public, name)
    files["client.crt"] = certificates.certificate_pem(certificate)
    issued = IssuedCertificate(
        sha256=certificate.fingerprint(hashes.SHA256()).hex(),
        expires=certificate.not_valid_after_utc,
    )
    return device.renewed(issued, certificates.public_openssh(public).decode()), files

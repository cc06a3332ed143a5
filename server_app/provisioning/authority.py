"""The fleet's authority on the disk, and how another one takes its place.

::

    ca.crt          whom everybody trusts; two certificates during a change
    ca.key          its key, here or wherever ``--ca-key`` says, perhaps encrypted
    ca.crt.next     the successor during a change; its key lies beside the other one,
    ca.key.next     named after it

A change has two steps. ``begin`` makes the successor and lets ``ca.crt`` carry both,
so that devices can be given a bundle that trusts both; the server still shows a
certificate of the old one, which is all that the others trust. ``finish`` puts the new
one in its place. Each step can be repeated after a power cut.
"""

from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_private_key

from server_app.provisioning import ProvisioningError, certificates
from server_app.provisioning.certificates import Authority
from server_app.provisioning.private_files import read, write

NAME = "ExpertFleet authority"


class AuthorityFiles:
    """One authority.

    Parameters
    ----------
    certificate : Path
        ``ca.crt`` in the fleet's directory.
    key : Path
    passphrase : bytes, optional
        What new keys are encrypted with and old ones are opened with.
    """

    def __init__(self, certificate: Path, key: Path, passphrase: bytes | None) -> None:
        self.certificate = certificate
        self.key = key
        self._next_certificate, self._next_key = (
            path.with_name(f"{path.name}.next") for path in (certificate, key)
        )
        self._passphrase = passphrase

    @property
    def changing(self) -> bool:
        """Whether a change is under way."""
        return self._next_certificate.exists()

    def ensure(self) -> bool:
        """Make an authority where there is none; return whether there was one.

        Devices trust nothing else: one that is there is kept whatever else is missing.
        """
        if self.certificate.exists():
            self._current()  # the same errors as later, at once
            return True
        kept = self.key.exists()
        self._create(
            self.certificate, self.key, self._private(self.key) if kept else None
        )
        return kept

    def for_server(self) -> Authority:
        """Read the one that certifies the server; ``ProvisioningError`` if it ended."""
        return _alive(self._current())

    def for_devices(self) -> Authority:
        """Read the one that certifies devices, the newest; errors as for the server."""
        return _alive(self._newest())

    def begin(self) -> None:
        """Make a successor, unless there is one, and trust both."""
        old = _split(self.certificate)[0]
        if not self.changing:
            self._current()  # its key must be at hand to be told from a wrong one
            self._create(self._next_certificate, self._next_key)
        write(self.certificate, old + _split(self._next_certificate)[0], 0o644)

    def finish(self) -> None:
        """Trust the successor alone and forget the key of the old one."""
        self._newest()
        write(self.certificate, _split(self._next_certificate)[0], 0o644)
        if self._next_key.exists():
            self._next_key.replace(self.key)
        self._next_certificate.unlink()

    def _current(self) -> Authority:
        return self._load(self.key, self.certificate)

    def _newest(self) -> Authority:
        if not self.changing:
            return self._current()
        # A `finish` that was cut off has moved the key and left the certificate.
        key = self._next_key if self._next_key.exists() else self.key
        return self._load(key, self._next_certificate)

    def _create(
        self, certificate: Path, key: Path, old: certificates.Key | None = None
    ) -> None:
        made = Authority.create(NAME, old)
        if old is None:
            write(key, certificates.private_pem(made.key, self._passphrase))
        write(certificate, certificates.certificate_pem(made.certificate), 0o644)

    def _load(self, key: Path, certificate: Path) -> Authority:
        pem = _split(certificate)[0]
        private = self._private(key)
        try:
            return Authority.load(private, pem)
        except ValueError as error:
            raise self._unusable(key, error) from None

    def _private(self, path: Path) -> certificates.Key:
        try:
            pem = read(path)
        except ProvisioningError as error:
            raise ProvisioningError(f"{error}; where is it? --ca-key FILE") from None
        try:
            key = load_pem_private_key(pem, password=self._passphrase)
        except TypeError:  # `cryptography`'s word for it
            raise ProvisioningError(
                f"{path} is not encrypted: no --ca-passphrase"
                if self._passphrase
                else f"{path} is encrypted: --ca-passphrase FILE, or - to be asked"
            ) from None
        except ValueError as error:
            raise self._unusable(path, error) from None
        if not isinstance(key, certificates.Key):
            raise ProvisioningError(f"{path} is not the key of an authority")
        return key

    def _unusable(self, key: Path, error: ValueError) -> ProvisioningError:
        return ProvisioningError(
            f"the authority in {self.certificate.parent} cannot be used with {key}: "
            f"{str(error).partition('.')[0]}"
        )


def _alive(authority: Authority) -> Authority:
    end = authority.certificate.not_valid_after_utc
    if end <= certificates.now():
        raise ProvisioningError(
            f"the authority ended on {end:%Y-%m-%d}: `fleet renew --ca` makes another"
        )
    return authority


def _split(path: Path) -> list[bytes]:
    """Return the certificates of a file, each in PEM; the server's authority first."""
    pem = read(path)
    try:
        return certificates.split(pem)
    except ValueError as error:
        raise ProvisioningError(
            f"the authority in {path.parent} is damaged: {path.name}: "
            f"{str(error).partition('.')[0]}"
        ) from None

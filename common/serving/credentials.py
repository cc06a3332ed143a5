"""TLS for the service: the server's certificate, and whose certificates it accepts.

The files are looked at again with every connection: one that is renewed needs no
restart.
"""

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import grpc

from common.files import version
from common.newest import Newest

logger = logging.getLogger("expertfleet.serving")


class CredentialsError(ValueError):
    """Files that make no TLS server; the message names the option or file."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Credentials:
    """PEM texts and the files they are from.

    Attributes
    ----------
    files : tuple of Path or None
        Of certificate, key and authority.
    certificate, key : bytes
        The server's.
    client_ca : bytes or None
        Callers must show a certificate of this authority; None lets anybody call.
    """

    files: tuple[Path, Path, Path | None]
    certificate: bytes
    key: bytes
    client_ca: bytes | None = None

    @classmethod
    def read(
        cls, certificate: Path | None, key: Path | None, client_ca: Path | None
    ) -> Self | None:
        """Read the files the options name; None if they name none.

        Raises
        ------
        CredentialsError
            If one of a pair is missing, unreadable or no PEM, or if certificate and
            key do not belong together.
        """
        if certificate is None and key is None and client_ca is None:
            return None
        if certificate is None or key is None:
            raise CredentialsError("--tls-cert and --tls-key go together")
        pair = _pem(certificate, b"CERTIFICATE"), _pem(key, b"PRIVATE KEY")
        _check_pair(certificate, key)
        ca = None if client_ca is None else _pem(client_ca, b"CERTIFICATE")
        files = certificate, key, client_ca
        return cls(files=files, certificate=pair[0], key=pair[1], client_ca=ca)

    @property
    def summary(self) -> str:
        """What they ask of a caller, for the log."""
        return "TLS, client certificates required" if self.client_ca else "TLS"

    def for_server(self) -> grpc.ServerCredentials:
        """Return them as gRPC takes them, and reads them again when they change."""
        newest = Newest(
            "the certificates read before",
            self._version,
            partial(self.read, *self.files),
            CredentialsError,
            logger,
        )

        def newer() -> grpc.ServerCertificateConfiguration | None:
            if not newest.refresh() or newest.value is None:
                return None
            logger.info("the certificates have changed")
            return newest.value._configuration()

        first = (newest.value or self)._configuration()
        # The type stubs do not know that None means "as before".
        read: Callable[[], Any] = newer
        return grpc.dynamic_ssl_server_credentials(first, read, bool(self.client_ca))

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        pair = self.key, self.certificate
        return grpc.ssl_server_certificate_configuration([pair], self.client_ca)

    def _version(self) -> Hashable:
        return tuple(version(path) for path in self.files if path is not None)


def _pem(path: Path, kind: bytes) -> bytes:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise CredentialsError(f"{path} cannot be read: {error.strerror}") from None
    if kind + b"-----" not in text:
        raise CredentialsError(f"{path} holds no PEM {kind.decode().lower()}")
    return text


def _check_pair(certificate: Path, key: Path) -> None:
    # gRPC itself only fails at the first handshake, and does not say why.
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        raise CredentialsError(
            f"{certificate} and {key} are no pair of certificate and key: {error}"
        ) from None

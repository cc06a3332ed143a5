"""TLS for the service: the server's certificate, and who may call."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import grpc


class CredentialsError(ValueError):
    """Files that make no TLS server; the message names the option or file."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Credentials:
    """PEM texts.

    Attributes
    ----------
    certificate, key : bytes
        The server's certificate chain and its private key.
    client_ca : bytes or None
        Callers must show a certificate of this authority; None lets anybody call.
    """

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
        return cls(certificate=pair[0], key=pair[1], client_ca=ca)

    @property
    def summary(self) -> str:
        """What they ask of a caller, for the log."""
        return "TLS, client certificates required" if self.client_ca else "TLS"

    def for_server(self) -> grpc.ServerCredentials:
        """Return them as gRPC takes them."""
        return grpc.ssl_server_credentials(
            [(self.key, self.certificate)],
            root_certificates=self.client_ca,
            require_client_auth=self.client_ca is not None,
        )


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

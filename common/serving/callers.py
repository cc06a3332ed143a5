"""Who is calling: names, certificates, and a list of those who may.

TLS itself refuses a certificate that expired or is of another authority, but only once,
when a connection begins. What is decided here is asked again for every call, and for
calls that are open while the list changes.
"""

import logging
import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from common.newest import Newest

logger = logging.getLogger("expertfleet.serving")


End = tuple[grpc.StatusCode, str]
"""How a call ends without an answer."""


class CallerListError(ValueError):
    """A list of callers that cannot be read; the message says which and why."""


class CallerList(Protocol):
    """A list of callers that somebody else keeps and may change at any time."""

    def version(self) -> Hashable:
        """Return something that changes with the list, cheaply: with every call."""

    def names(self) -> Mapping[str, str]:
        """Return names by the SHA-256 fingerprint (hex) of a client certificate.

        CallerListError if the list cannot be read.
        """


class CallRefused(Exception):
    """A call that ends without an answer; ``code`` is the status it ends with."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, kw_only=True)
class Caller:
    """The other end of a call.

    Attributes
    ----------
    name : str
        Fingerprint of its certificate, else its address without the port: what limits
        for each caller go by.
    connection : str
        Its end of the connection as gRPC writes it, ``ipv4:192.0.2.7:40000``.
    expires : float
        End of its certificate in seconds of :func:`time.time`.
    """

    name: str
    connection: str
    expires: float = float("inf")


class CallerCheck:
    """Knows who may call.

    Parameters
    ----------
    members : CallerList or None
        None: TLS has decided already.

    Raises
    ------
    CallerListError
        If there is a list that cannot be read.
    """

    def __init__(self, members: CallerList | None = None) -> None:
        self._names: Newest[Mapping[str, str]] | None = None
        if members is not None:
            self._names = Newest(
                "the list of callers read before",
                members.version,
                members.names,
                CallerListError,
                logger,
            )

    def refusal(self, caller: Caller) -> End | None:
        """Return what the calls of one that may not, or no longer, call end with."""
        if caller.expires <= time.time():
            text = "the client certificate has expired"
            return grpc.StatusCode.UNAUTHENTICATED, text
        if self._names is None:
            return None
        self._names.refresh()
        if caller.name in self._names.value:
            return None
        text = "the client certificate is not on the fleet's list"
        return grpc.StatusCode.PERMISSION_DENIED, text


def identify(context: "grpc.aio.ServicerContext[Any, Any]") -> Caller:
    """Return who calls."""
    peer = context.peer()
    if shown := [*context.auth_context().get("x509_pem_cert", ())]:
        name, expires = _certificate(shown[0])
        return Caller(name=name, connection=peer, expires=expires)
    return Caller(name=peer.rpartition(":")[0], connection=peer)


@lru_cache(1024)
def _certificate(pem: bytes) -> tuple[str, float]:
    """Return fingerprint and end of a certificate."""
    certificate = x509.load_pem_x509_certificate(pem)
    end = certificate.not_valid_after_utc.timestamp()
    return certificate.fingerprint(SHA256()).hex(), end

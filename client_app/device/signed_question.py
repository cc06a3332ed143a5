"""Whether the SuperLink knows this device's key, asked without starting anything.

To be let in a SuperNode sends ``ActivateNode``, signed, with how often it will be
heard. The SuperLink looks at the signature and its time first, then for the key, and
then at how often: ``never``, which is no answer it takes, therefore tells the three
apart and activates nothing. Written out here, since Flower's own client costs a device
a second and 40 MB (a test compares with what Flower sends).
"""

import base64
import os
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_private_key,
)

PATH = "/v1/fleet/activate-node"

REGISTERED, UNKNOWN = 2003, 2004
"""Flower's codes for a heartbeat it does not take, and for a key it does not know."""

_PUBLIC_KEY = b"\x0a"
"""Field 1 of ``ActivateNodeRequest``, in bytes. Field 2, never, is left out."""


_UNKNOWN_FIELD = b"\x7a"
"""Field 15, in bytes, which Flower does not know and reads over."""


def signed_question(key: Path, more: int = 0) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of the question, dated now.

    Parameters
    ----------
    key : Path
    more : int
        Bytes that the body carries beside, which nobody looks at. They do not compress.

    Raises
    ------
    OSError, TypeError, ValueError
        If it is no key that a SuperNode can have.
    """
    private = load_ssh_private_key(key.read_bytes(), password=None)
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise TypeError("it is on no elliptic curve")
    public = private.public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )
    moment = datetime.now(UTC).isoformat()
    signature = private.sign(moment.encode(), ec.ECDSA(hashes.SHA256()))
    headers = {
        "content-type": "application/protobuf",
        "accept": "application/protobuf",
        "flwr-public-key": base64.b64encode(public).decode(),
        "flwr-timestamp": moment,
        "flwr-signature": base64.b64encode(signature).decode(),
    }
    body = _PUBLIC_KEY + _varint(len(public)) + public
    if more:
        body += _UNKNOWN_FIELD + _varint(more) + os.urandom(more)
    return body, headers


def _varint(number: int) -> bytes:
    digits = b""
    while number > 0x7F:
        digits += bytes([number & 0x7F | 0x80])
        number >>= 7
    return digits + bytes([number])

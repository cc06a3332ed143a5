"""Signed apps: devices run what the operator signed, and nothing else.

Flower's SuperNode verifies an app with ``--trusted-entities``, but a signature reaches
it only with an app that the SuperLink fetched from a hub. So the SuperLink is told
(``FLWR_SUPERGRID_API_URL``) that its hub is here, at ``apps`` of ``fleet.json``, and
``hub`` is it for as long as the SuperLink needs to fetch one app. Who else
answers there can hand out apps, not signatures.
"""

import base64
import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import click
from cryptography.hazmat.primitives.asymmetric import ed25519

from common import flower_internals
from common.flower_internals import (
    create_message_to_sign,
    get_metadata_from_config,
    load_and_validate,
)
from server_app.provisioning import ProvisioningError, certificates
from server_app.provisioning.server_files import split_address


@dataclass(frozen=True, kw_only=True)
class SignedApp:
    """An app as Flower packs it, with the operator's signature.

    Attributes
    ----------
    spec : str
        ``@publisher/name==version``.
    content : bytes
        The packed app.
    signature : bytes
        Ed25519, over the time and the SHA-256 of the content.
    signed_at : int
        Unix time in seconds.
    """

    spec: str
    content: bytes
    signature: bytes
    signed_at: int


def sign(app: Path, key: ed25519.Ed25519PrivateKey) -> SignedApp:
    """Pack an app and sign it.

    Raises
    ------
    ProvisioningError
        If there is no app that Flower can pack.
    """
    try:
        config, _ = load_and_validate(app / "pyproject.toml")
        content = compressed(flower_internals.build_fab_from_disk(app))
        name, version = get_metadata_from_config(config)
    except (click.ClickException, click.exceptions.Exit, ValueError, OSError) as error:
        why = " ".join(str(getattr(error, "message", error)).split())
        raise ProvisioningError(f"no app in {app}: {why}") from None
    when = int(certificates.now().timestamp())
    message = create_message_to_sign(hashlib.sha256(content).digest(), when)
    return SignedApp(
        spec=f"@{name}=={version}",
        content=content,
        signature=key.sign(message),
        signed_at=when,
    )


def compressed(fab: bytes) -> bytes:
    """Return an app with the same files in fewer bytes: Flower stores them as they are.

    Every device fetches it in one piece, over a link that may be weak. The same app
    gives the same bytes, whatever else the archive says of its files.
    """
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(fab)) as stored,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as smaller,
    ):
        for entry in stored.infolist():
            smaller.writestr(
                entry, stored.read(entry), zipfile.ZIP_DEFLATED, compresslevel=9
            )
    return packed.getvalue()


@contextmanager
def hub(app: SignedApp, address: str) -> Iterator[None]:
    """Hand out one app at this address, once.

    Raises
    ------
    ProvisioningError
        If the address cannot be listened at.
    """
    verification = {
        "public_key_id": certificates.SIGNER,
        "signed_at": app.signed_at,
        "signature": base64.urlsafe_b64encode(app.signature).decode(),
    }
    offer = {"fab_url": f"http://{address}/app", "verifications": [verification]}

    class Hub(BaseHTTPRequestHandler):
        timeout = 20.0  # seconds; nobody keeps the operator waiting

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            try:
                wanted = json.loads(self.rfile.read(min(length, 4096)))
                asked = f"{wanted['app_id']}=={wanted['app_version']}"
            except (ValueError, TypeError, KeyError):
                asked = ""
            if asked == app.spec:
                self._answer(200, json.dumps(offer).encode())
            else:
                self._answer(404, b'{"detail": "only the app being submitted"}')

        def do_GET(self) -> None:
            self._answer(200, app.content)

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    try:
        server = HTTPServer(split_address(address), Hub)
    except OSError as error:
        raise ProvisioningError(
            f"cannot offer the app at {address}: {error.strerror}"
        ) from None
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()

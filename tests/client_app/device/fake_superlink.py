"""What a SuperLink answers a device that is being looked at, over real TLS.

Signatures and requests are read with Flower's own code; its errors have Flower's
numbers. That a real one says the same is tried in ``tests/deployment``.
"""

import http.server
import json
import ssl
import threading
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from email.utils import formatdate
from pathlib import Path
from typing import ClassVar

from flwr.common.constant import (
    SYSTEM_TIME_TOLERANCE,
    TIMESTAMP_HEADER,
    TIMESTAMP_TOLERANCE,
)
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.supercore.constant import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLEET_HTTP_SIGNATURE_HEADER,
)
from flwr.supercore.error import ApiErrorCode
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature


class FakeSuperLink(http.server.BaseHTTPRequestHandler):
    """Answers at whatever time it is told; knows the keys it is told."""

    ahead = 0.0
    """Seconds that its clock is ahead of the test's."""
    known: ClassVar[set[bytes]] = set()
    """Public keys in PEM."""
    status = 0
    """What it answers questions with instead, as a proxy does without a SuperLink."""

    def do_HEAD(self) -> None:
        self._answer(404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        asked = ActivateNodeRequest.FromString(body)
        if self.status:
            self._answer(self.status)
        elif not self._signed(asked.public_key):
            self._answer(401, json.dumps({"detail": "Invalid"}).encode())
        elif asked.public_key not in self.known:
            self._fail(412, ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED)
        else:
            assert not asked.heartbeat_interval, "it would have been activated"
            self._fail(400, ApiErrorCode.FLEET_INVALID_HEARTBEAT_INTERVAL)

    def _signed(self, public: bytes) -> bool:
        said = self.headers[TIMESTAMP_HEADER]
        age = time.time() + self.ahead - datetime.fromisoformat(said).timestamp()
        least, most = SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE
        signature = b64decode(self.headers[FLEET_HTTP_SIGNATURE_HEADER])
        return (
            -least < age < most
            and b64decode(self.headers[FLEET_HTTP_PUBLIC_KEY_HEADER]) == public
            and verify_signature(bytes_to_public_key(public), said.encode(), signature)
        )

    def _fail(self, status: int, code: int) -> None:
        self._answer(status, json.dumps({"code": code, "detail": "no"}).encode())

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response_only(status)
        self.send_header("Date", formatdate(time.time() + self.ahead, usegmt=True))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def answering(certificate: Path, key: Path, port: int = 0) -> Iterator[int]:
    """Answer with this certificate; yield the port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    with http.server.HTTPServer(("127.0.0.1", port), FakeSuperLink) as httpd:
        httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
        thread = threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield httpd.server_port
        finally:
            httpd.shutdown()
            thread.join()

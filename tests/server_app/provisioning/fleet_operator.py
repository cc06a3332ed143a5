"""Somebody who types ``fleet`` commands, and devices that connect."""

import socket
import ssl
import tarfile
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from server_app.__main__ import main
from server_app.provisioning.directory import FleetDirectory

HOST = "lab.example"


class Operator:
    """Types ``fleet`` commands, at any time."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.fleet = FleetDirectory(folder)
        self._capsys = capsys
        self.said = self.warned = ""

    def types(self, *arguments: str, code: int = 0) -> str:
        assert main(["fleet", "--dir", str(self.folder), *arguments]) == code
        self.said, self.warned = self._capsys.readouterr()
        return self.warned if code else self.said

    def init(self, *more: str) -> None:
        # Nothing listens on the discard port.
        self.types("init", *more, "--host", HOST, "--control", "127.0.0.1:9")

    def unpack(self, name: str, over: Path) -> Path:
        """Bring a bundle to its device, and delete it here."""
        with tarfile.open(self.fleet.bundle_file(name)) as tar:
            tar.extractall(over, filter="data")
        self.fleet.bundle_file(name).unlink()
        return over

    def meets(self, bundle: Path) -> str:
        """Let a device connect with TLS on both sides; return its fingerprint.

        Raises
        ------
        SSLError
            If either does not trust the other.
        """
        theirs = ssl.create_default_context(cafile=bundle / "ca.crt")
        theirs.verify_flags |= ssl.VERIFY_X509_STRICT
        theirs.load_cert_chain(bundle / "client.crt", bundle / "client.key")
        ours = ssl.create_default_context(
            ssl.Purpose.CLIENT_AUTH, cafile=self.folder / "ca.crt"
        )
        ours.verify_mode = ssl.CERT_REQUIRED
        ours.load_cert_chain(self.folder / "server.pem", self.folder / "server.key")
        near, far = socket.socketpair()
        seen: list[bytes] = []

        def serve() -> None:
            try:
                with ours.wrap_socket(far, server_side=True) as connection:
                    seen.append(connection.getpeercert(binary_form=True) or b"")
                    connection.sendall(b"x")
            except OSError:
                far.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with theirs.wrap_socket(near, server_hostname=HOST) as connection:
                if connection.recv(1) != b"x":
                    raise ssl.SSLError("refused")
        finally:
            near.close()
            thread.join()
        shown = x509.load_der_x509_certificate(seen[0])
        return shown.fingerprint(hashes.SHA256()).hex()

"""Keys and certificates hold in real TLS handshakes, and only where they should."""

import datetime
import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509

from server_app.provisioning.certificates import (
    Authority,
    certificate_pem,
    device_key,
    expiry,
    openssh_to_pem,
    private_openssh,
    private_pem,
    public_openssh,
    server_key,
)

HOSTS = ["superlink.example", "127.0.0.1"]


class Party:
    """Files of one end of a connection."""

    def __init__(self, folder: Path, authority: Authority, *, server: bool) -> None:
        key = server_key()
        certificate = (
            authority.server_certificate(key.public_key(), HOSTS)
            if server
            else authority.client_certificate(key.public_key(), "pi0")
        )
        self.key, self.cert, self.ca = (folder / n for n in ("key", "cert", "ca"))
        folder.mkdir()
        self.key.write_bytes(private_pem(key))
        self.cert.write_bytes(certificate_pem(certificate))
        self.ca.write_bytes(certificate_pem(authority.certificate))

    def context(self, purpose: ssl.Purpose) -> ssl.SSLContext:
        context = ssl.create_default_context(purpose, cafile=str(self.ca))
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_cert_chain(self.cert, self.key)
        return context


def handshake(server: Party, client: Party, host: str) -> str:
    """Connect with mutual TLS; return who the server takes the client for."""
    ours, theirs = socket.socketpair()
    context = server.context(ssl.Purpose.CLIENT_AUTH)
    context.verify_mode = ssl.CERT_REQUIRED
    seen: list[str] = []

    def serve() -> None:
        try:
            with context.wrap_socket(theirs, server_side=True) as connection:
                names = dict(connection.getpeercert())["subjectAltName"]  # type: ignore[arg-type]
                seen.append(str(names[0][1]))
                connection.sendall(b"x")
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        trusting = client.context(ssl.Purpose.SERVER_AUTH)
        with trusting.wrap_socket(ours, server_hostname=host) as connection:
            if connection.recv(1) != b"x":
                raise ssl.SSLError("refused")
    finally:
        ours.close()
        thread.join()
    return seen[0]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("test")


@pytest.mark.parametrize("host", HOSTS)
def test_both_sides_prove_who_they_are(
    host: str, authority: Authority, tmp_path: Path
) -> None:
    server = Party(tmp_path / "server", authority, server=True)
    client = Party(tmp_path / "client", authority, server=False)
    assert handshake(server, client, host) == "pi0"


def test_another_name_another_authority_and_another_purpose_are_refused(
    authority: Authority, tmp_path: Path
) -> None:
    server = Party(tmp_path / "server", authority, server=True)
    client = Party(tmp_path / "client", authority, server=False)
    with pytest.raises(ssl.SSLError, match=r"Hostname mismatch|not valid for"):
        handshake(server, client, "other.example")
    stranger = Party(tmp_path / "stranger", Authority.create("x"), server=False)
    stranger.ca = client.ca
    with pytest.raises((ssl.SSLError, ConnectionError)):
        handshake(server, stranger, HOSTS[0])
    # A stolen device key does not make a server.
    with pytest.raises((ssl.SSLError, ConnectionError)):
        handshake(client, client, "pi0")


def test_an_authority_is_read_back_and_checked(authority: Authority) -> None:
    pem = certificate_pem(authority.certificate)
    assert Authority.load(authority.key, pem).certificate == authority.certificate
    with pytest.raises(ValueError, match="not the certificate's"):
        Authority.load(server_key(), pem)


def test_an_authority_signs_no_other_authority(authority: Authority) -> None:
    constraints = authority.certificate.extensions.get_extension_for_class(
        x509.BasicConstraints
    ).value
    assert (constraints.ca, constraints.path_length) == (True, 0)
    leaf = authority.server_certificate(server_key().public_key(), HOSTS)
    found = leaf.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert not found.ca
    left = expiry(certificate_pem(leaf)) - datetime.datetime.now(datetime.UTC)
    assert 823 <= left.days <= 826


def test_device_keys_are_what_flower_reads() -> None:

    key = device_key()
    assert key.curve.name == "secp384r1"
    assert private_openssh(key).startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----")
    line = public_openssh(key).decode()
    assert line.startswith("ecdsa-sha2-nistp384 ")
    assert b"BEGIN PUBLIC KEY" in openssh_to_pem(line)

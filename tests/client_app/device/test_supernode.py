"""A device that the server will not have: one line says why, and no exit code 0."""

import argparse
import http.server
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID
from flwr.common import constant

from client_app.device import clock, supernode
from client_app.device.clock import clock_offset, clock_problem
from client_app.device.supernode import main
from server_app.__main__ import main as server
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[3]


class Dated(http.server.BaseHTTPRequestHandler):
    """Answers 404 at whatever time it is told."""

    ahead = 0.0

    def do_HEAD(self) -> None:
        self.send_response_only(404)
        self.send_header("Date", formatdate(time.time() + self.ahead, usegmt=True))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys") / "fleet"
    init = ["fleet", "--dir", str(folder), "init", "--host", "localhost"]
    assert server(init) == 0
    return folder


@contextmanager
def answering(certificate: Path, key: Path) -> Iterator[int]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    with http.server.HTTPServer(("127.0.0.1", 0), Dated) as httpd:
        httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield httpd.server_port
        httpd.shutdown()


@pytest.fixture
def superlink(keys: Path) -> Iterator[str]:
    with answering(keys / "server.pem", keys / "server.key") as port:
        yield f"127.0.0.1:{port}"


@pytest.fixture
def bundle(keys: Path, superlink: str, tmp_path: Path) -> Path:
    (tmp_path / "device.toml").write_text(
        f'superlink = "{superlink}"\n\n[node-config]\nname = "pi0"\n'
    )
    (tmp_path / "ca.crt").write_bytes((keys / "ca.crt").read_bytes())
    (tmp_path / "supernode.key").write_text("any")
    return tmp_path


def started(bundle: Path) -> int:
    parser = argparse.ArgumentParser()
    supernode.add_arguments(parser)
    args = parser.parse_args([f"--state-dir={bundle / 'state'}", str(bundle)])
    args.flags = []
    return main(args)


@pytest.mark.parametrize(
    ("ahead", "said"),
    [
        (0.0, ""),
        (200.0, ""),
        (400.0, "7 minutes behind the server's"),
        (-60.0, "60 s ahead of the server's"),
        (20 * 365 * 86400.0, "7300 days behind the server's"),
    ],
)
def test_the_clock_is_compared_with_the_servers(
    ahead: float,
    said: str,
    superlink: str,
    keys: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Dated, "ahead", ahead)
    offset = clock_offset(superlink, keys / "ca.crt")
    assert offset is not None
    assert said in clock_problem(offset)
    assert bool(said) == bool(clock_problem(offset))


def test_a_clock_that_finds_every_certificate_expired_is_told_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    expired = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(datetime(2000, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2001, 1, 1, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
        .sign(key, SHA256())
    )
    (tmp_path / "ca.crt").write_bytes(expired.public_bytes(Encoding.PEM))
    (tmp_path / "key").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    monkeypatch.setattr(Dated, "ahead", -86400.0 * 9000)
    with answering(tmp_path / "ca.crt", tmp_path / "key") as port:
        said = clock_problem(clock_offset(f"localhost:{port}", tmp_path / "ca.crt"))
    assert "9000 days ahead of the server's" in said


def test_nobody_to_ask_is_no_problem(keys: Path) -> None:
    for address in (f"127.0.0.1:{free_port()}", "no host", ""):
        assert clock_offset(address, keys / "ca.crt") is None
    assert clock_offset("127.0.0.1:1", keys / "none.crt") is None
    assert clock_problem(None) == ""


def test_the_limits_are_flowers() -> None:
    assert constant.SYSTEM_TIME_TOLERANCE == clock.AHEAD
    assert constant.TIMESTAMP_TOLERANCE + constant.SYSTEM_TIME_TOLERANCE == clock.BEHIND


def test_a_wrong_clock_ends_the_device_before_it_is_refused(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Dated, "ahead", 3600.0)
    monkeypatch.setattr(supernode, "_run", lambda *_: pytest.fail("it was started"))
    assert started(bundle) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: this device's clock is 60 minutes behind")


@pytest.mark.parametrize(
    ("ended", "ahead", "code", "said"),
    [
        ((0, False), 0.0, 1, "refused this device"),
        ((0, False), 400.0, 1, "this device's clock is 7 minutes behind"),
        ((0, True), 400.0, 0, ""),
        ((3, False), 0.0, 3, ""),
    ],
)
def test_a_supernode_that_stops_by_itself_was_refused(
    ended: tuple[int, bool],
    ahead: float,
    code: int,
    said: str,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*_: object) -> tuple[int, bool]:
        monkeypatch.setattr(Dated, "ahead", ahead)
        return ended

    monkeypatch.setattr(supernode, "_run", run)
    assert started(bundle) == code
    assert said in capsys.readouterr().err


def test_two_devices_on_one_machine_get_a_port_each(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], _: object) -> tuple[int, bool]:
        port = int(command[command.index("--port") + 1])
        doors.append(socket.create_server(("127.0.0.1", port)))  # it is free
        return 0, True

    doors: list[socket.socket] = []
    monkeypatch.setattr(supernode, "_run", run)
    assert started(bundle) == started(bundle) == 0
    assert len({door.getsockname()[1] for door in doors}) == 2
    for door in doors:
        door.close()


@pytest.mark.parametrize(
    "flags", [["--port", "9095"], ["--port=9095"], ["--isolation=process"]]
)
def test_a_port_that_somebody_else_has_to_know_is_not_chosen(flags: list[str]) -> None:
    assert supernode.own_port(flags) == []


PARENT = """
import os, sys
from client_app.device.supernode import _run
print("started", flush=True)
print(_run([sys.executable, "-c", sys.argv[1]], dict(os.environ)), flush=True)
"""
CHILD = """
import signal, sys, time
def end(number, frame):
    print("asked", number, flush=True)
    sys.exit(7)
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
time.sleep(60)
"""


def parent(child: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PARENT, child],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_signal_is_passed_on_and_an_own_end_is_told_apart() -> None:
    process = parent(CHILD)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["started\n", "ready\n"]
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=200)[0] == "asked 15\n(7, True)\n"
    alone = parent("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert alone.communicate(timeout=200)[0] == "started\n(137, False)\n"


def test_ctrl_c_in_a_terminal_reaches_the_supernode_once() -> None:
    # Passed on, and not by the terminal as well: it is of another group.
    process = parent("import os; print(os.getpgrp() == os.getpid(), flush=True)")
    assert process.communicate(timeout=200)[0] == "started\nTrue\n(0, False)\n"


@pytest.mark.parametrize("made", ["directory", "bytes"])
def test_a_configuration_that_cannot_be_read_is_one_line(
    made: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("device.toml", "ca.crt", "supernode.key"):
        (tmp_path / name).write_bytes(b"\xff")
    if made == "directory":
        (tmp_path / "device.toml").unlink()
        (tmp_path / "device.toml").mkdir()
    assert started(tmp_path) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'device.toml'} cannot be read: ")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child")
def test_what_is_killed_leaves_no_supernode_behind() -> None:
    process = parent(f"import os; print(os.getpid(), flush=True)\n{CHILD}")
    assert process.stdout is not None
    process.stdout.readline()
    child = int(process.stdout.readline())
    process.stdout.readline()
    process.kill()
    assert process.stdout.read() == "asked 15\n"
    with pytest.raises(ProcessLookupError):
        for _ in range(600):
            os.kill(child, 0)
            time.sleep(0.05)
    process.wait()

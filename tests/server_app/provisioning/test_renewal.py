"""Keys over years: what ends is renewed, and no device is stranded on the way.

The clock is turned back while a fleet is made, so that its certificates have really
ended for the TLS library that is asked afterwards.
"""

import datetime
import json
import os
import socket
import ssl
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from server_app.__main__ import main
from server_app.provisioning import ProvisioningError, certificates
from server_app.provisioning.certificates import AUTHORITY_DAYS, DEVICE_DAYS
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


@pytest.fixture
def operator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Operator:
    return Operator(tmp_path / "fleet", capsys)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    real = certificates.now

    def turn(days: float) -> None:
        shift = datetime.timedelta(days=days)
        monkeypatch.setattr(certificates, "now", lambda: real() + shift)

    return turn


def ends(path: Path) -> datetime.datetime:
    return certificates.expiry(path.read_bytes())


def test_an_ended_server_certificate_is_renewed_and_the_devices_stay_as_they_are(
    operator: Operator, clock: Callable[[float], None], tmp_path: Path
) -> None:
    clock(-825)
    operator.init()
    clock(-100)
    operator.types("add", "pi0")
    bundle = operator.unpack("pi0", tmp_path / "pi0")
    clock(-61.5)
    operator.types("list")
    assert "the server's" not in operator.warned
    clock(-60.5)
    for command in (["list"], ["init"]):
        operator.types(*command)
        assert "the server's certificate ends in 60 days: `fleet renew --server`" in (
            operator.warned
        )
    clock(0)
    with pytest.raises(ssl.SSLError, match="expired"):
        operator.meets(bundle)
    operator.types("list")
    assert "the server's certificate has ended" in operator.warned
    operator.types("renew", "--server")
    assert operator.meets(bundle) in operator.fleet.members().accepted()
    operator.types("list")
    assert "the server's" not in operator.warned


def test_serve_says_what_ends_soon(
    operator: Operator,
    clock: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock(-800)
    operator.init()
    clock(0)
    monkeypatch.setattr("common.serving.cli.serve", lambda *given: 0)
    monkeypatch.setattr("server_app.commands.serve.RunSource", lambda run: None)
    command = ["serve", "--run", "RUN", "--fleet", str(operator.folder)]
    assert main(command) == 0
    assert "the server's certificate ends in 24 days" in capsys.readouterr().err


def test_a_device_is_renewed_and_removed(
    operator: Operator, clock: Callable[[float], None], tmp_path: Path
) -> None:
    clock(-DEVICE_DAYS)
    operator.init()
    operator.types("add", "pi0", "pi1")
    before = operator.unpack("pi0", tmp_path / "pi0")
    own = {n: (before / n).read_bytes() for n in ("supernode.key", "device.toml")}
    old = x509.load_pem_x509_certificate((before / "client.crt").read_bytes())
    fingerprint = old.fingerprint(hashes.SHA256()).hex()
    clock(-30.5)
    assert "until" in operator.types("list")
    assert "the client certificate of pi0 ends in 30 days" in operator.warned
    operator.types("renew", "pi0")
    operator.types("list")
    assert "of pi0" not in operator.warned
    assert "of pi1" in operator.warned
    # Whichever of the two it shows, until the bundle got there.
    assert fingerprint in operator.fleet.members().accepted()
    clock(0)
    assert fingerprint not in operator.fleet.members().accepted()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        operator.meets(before)
    operator.unpack("pi0", before)
    shown = operator.meets(before)
    assert operator.fleet.members().accepted()[shown] == "pi0"
    assert own == {n: (before / n).read_bytes() for n in own}
    operator.types("remove", "pi0")
    assert shown not in operator.fleet.members().accepted()


def test_a_bundle_that_waits_keeps_its_keys_when_it_is_renewed(
    operator: Operator, tmp_path: Path
) -> None:
    operator.init()
    operator.types("add", "pi0")
    operator.types("renew", "pi0")
    bundle = operator.unpack("pi0", tmp_path / "pi0")
    key = (bundle / "supernode.pub").read_text().strip()
    assert key == operator.fleet.members().devices["pi0"].public_key
    assert operator.meets(bundle) in operator.fleet.members().accepted()


def test_another_authority_takes_over_without_stranding_anybody(
    operator: Operator, clock: Callable[[float], None], tmp_path: Path
) -> None:
    clock(-AUTHORITY_DAYS)
    operator.init()
    clock(-20.5)
    operator.types("renew", "--server")
    # Nothing it signs outlives it.
    assert ends(operator.folder / "server.pem") == ends(operator.folder / "ca.crt")
    operator.types("add", "pi0", "pi1")
    assert "the authority ends in 20 days: `fleet renew --ca`" in operator.warned
    assert "the server's" not in operator.warned
    first = operator.unpack("pi0", tmp_path / "pi0")
    second = operator.unpack("pi1", tmp_path / "pi1")
    clock(0)
    assert "ended" in operator.types("add", "pi2", code=2)
    clock(-1)
    assert "no change" in operator.types("renew", "--ca", "--finish", code=2)
    operator.types("renew", "--ca")
    assert len(certificates.split((operator.folder / "ca.crt").read_bytes())) == 2
    # Between the steps: those who have their bundle and those who do not.
    operator.unpack("pi0", first)
    assert len(certificates.split((first / "ca.crt").read_bytes())) == 2
    said = operator.types("renew", "--ca", "--finish", code=2)
    assert said.startswith("error: pi1 would be stranded")
    operator.unpack("pi1", second)
    operator.types("renew", "--ca", "--finish")
    clock(0)  # the old one has really ended
    for bundle in (first, second):
        assert operator.meets(bundle) in operator.fleet.members().accepted()
    assert [p.name for p in operator.folder.glob("*.next")] == []
    operator.types("add", "pi2")
    assert operator.warned == ""


def test_both_authorities_are_good_during_a_change(
    operator: Operator, tmp_path: Path
) -> None:
    operator.init()
    operator.types("add", "pi0", "pi1")
    late = operator.unpack("pi0", tmp_path / "pi0")
    soon = operator.unpack("pi1", tmp_path / "pi1")
    operator.types("renew", "--ca")
    operator.unpack("pi1", soon)
    operator.types("renew", "--server")
    operator.types("renew", "--ca")  # a second time changes nothing
    assert len(certificates.split((operator.folder / "ca.crt").read_bytes())) == 2
    for bundle in (late, soon):
        assert operator.meets(bundle) in operator.fleet.members().accepted()


@pytest.mark.parametrize("lost", ["ca.crt", "server.key", "ca.key.next", "ca.crt.next"])
def test_a_power_cut_in_a_change_is_made_good_by_doing_it_again(
    operator: Operator, tmp_path: Path, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator.init()
    operator.types("add", "pi0")
    bundle = operator.unpack("pi0", tmp_path / "pi0")
    operator.types("renew", "--ca")
    operator.unpack("pi0", bundle)
    replace, unlink = os.replace, os.unlink

    def cut_replace(source: Path, target: Path) -> None:
        if lost in {Path(source).name, Path(target).name}:
            raise KeyboardInterrupt
        replace(source, target)

    def cut_unlink(path: Path) -> None:
        if Path(path).name == lost:
            raise KeyboardInterrupt
        unlink(path)

    with monkeypatch.context() as power:
        power.setattr(os, "replace", cut_replace)
        power.setattr(os, "unlink", cut_unlink)
        operator.types("renew", "--ca", "--finish", code=130)
    operator.types("renew", "--ca", "--finish")
    assert operator.meets(bundle) in operator.fleet.members().accepted()
    operator.types("add", "pi1")


def test_an_authority_is_never_replaced(operator: Operator, tmp_path: Path) -> None:
    operator.init()
    operator.types("add", "pi0")
    bundle = operator.unpack("pi0", tmp_path / "pi0")
    authority = (operator.folder / "ca.crt").read_bytes()
    (operator.folder / "fleet.json").unlink()
    operator.init()
    assert "kept the authority" in operator.said
    assert (operator.folder / "ca.crt").read_bytes() == authority
    operator.meets(bundle)
    # Half a fleet, as after a power cut in the first `init`.
    for lost in ("fleet.json", "ca.crt"):
        (operator.folder / lost).unlink()
    operator.init()
    operator.meets(bundle)
    for lost in ("fleet.json", "ca.key"):
        (operator.folder / lost).unlink()
    said = operator.types("init", "--host", HOST, code=2)
    assert "ca.key" in said and "--ca-key" in said
    assert (operator.folder / "ca.crt").exists()


def test_the_authority_s_key_lives_elsewhere_and_encrypted(
    operator: Operator, tmp_path: Path
) -> None:
    key, secret = tmp_path / "stick" / "our.key", tmp_path / "words"
    secret.write_text("correct horse\nnot this line\n")
    offline = ("--ca-key", str(key), "--ca-passphrase", str(secret))
    operator.init(*offline)
    assert b"ENCRYPTED" in key.read_bytes()
    assert key.stat().st_mode & 0o777 == 0o600
    assert not (operator.folder / "ca.key").exists()
    assert "--ca-key FILE" in operator.types("add", "pi0", code=2)
    assert "--ca-passphrase" in operator.types("add", *offline[:2], "pi0", code=2)
    secret.write_text("wrong\n")
    assert "cannot be used with" in operator.types("add", *offline, "pi0", code=2)
    secret.write_text("\n")
    assert "first line is empty" in operator.types("add", *offline, "pi0", code=2)
    secret.write_text("correct horse\n")
    operator.types("add", *offline, "pi0")
    bundle = operator.unpack("pi0", tmp_path / "pi0")
    operator.types("list")  # needs no key
    operator.types("renew", *offline, "--ca")
    assert b"ENCRYPTED" in key.with_name("our.key.next").read_bytes()
    operator.unpack("pi0", bundle)
    operator.types("renew", *offline, "--ca", "--finish")
    assert operator.meets(bundle) in operator.fleet.members().accepted()
    assert {p.name for p in operator.folder.glob("*.key*")} == {
        "server.key",
        "apps.key",
    }


def test_another_s_directory_and_another_s_link_are_refused(
    operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir(mode=0o755)
    link = tmp_path / "link"
    link.symlink_to(mine)
    operator.folder = link
    operator.init()  # my own link
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 4711)
    said = operator.types("init", "--host", HOST, code=2)
    if os.getuid():  # root's links are everybody's: the directory is refused then
        assert f"{link} is a link of user" in said
    else:
        assert "belongs to user" in said
    assert "belongs to user" in _refusal(mine)
    assert "belongs to user" in _refusal(mine, lock=True)


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes links of another user")
def test_a_link_of_another_user_on_the_way_is_refused(tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "fleet"
    mine.mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(mine.parent)
    os.lchown(link, 65534, 65534)
    assert "is a link of user 65534" in _refusal(link / "fleet", lock=True)
    os.chown(mine, 65534, 65534)
    assert "belongs to user 65534" in _refusal(mine, lock=True)
    assert mine.stat().st_mode & 0o777 == 0o755  # not touched


def _refusal(folder: Path, *, lock: bool = False) -> str:
    fleet = FleetDirectory(folder)
    with pytest.raises(ProvisioningError) as refused:
        if lock:
            with fleet.locked():
                pytest.fail("locked")
        fleet.members()
    return str(refused.value)


def test_a_fleet_of_before_certificates_were_dated_is_read(operator: Operator) -> None:
    operator.init()
    operator.types("add", "pi0")
    file = operator.folder / "fleet.json"
    content = json.loads(file.read_text())
    device = content["devices"]["pi0"]
    [certificate] = device.pop("certificates")
    device["certificate_sha256"] = certificate["sha256"]
    file.write_text(json.dumps(content))
    assert operator.fleet.members().accepted() == {certificate["sha256"]: "pi0"}
    operator.types("list")
    operator.types("renew", "pi0")
    old, new = operator.fleet.members().devices["pi0"].certificates
    assert old.expires is not None and new.expires is not None


def test_renew_says_what_it_needs(operator: Operator) -> None:
    operator.init()
    assert "renew what?" in operator.types("renew", code=2)
    assert "goes with --ca" in operator.types("renew", "--finish", code=2)
    assert "no device 'pi9'" in operator.types("renew", "pi9", code=2)

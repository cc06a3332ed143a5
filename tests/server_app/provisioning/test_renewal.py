"""Keys over years: what ends is renewed, and no device is stranded on the way."""

import json
import ssl
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from server_app.__main__ import main
from server_app.provisioning.certificates import DEVICE_DAYS, SERVER_DAYS
from tests.server_app.provisioning.fleet_operator import Operator


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
    # By way of the command: it reads the options of `cli.serve` when it is imported.
    monkeypatch.setattr("server_app.commands.serve.cli.serve", lambda *_, **options: 0)
    monkeypatch.setattr("server_app.run_source.RunSource", lambda run: None)
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


def test_keys_stay_when_certificates_are_renewed(
    operator: Operator, clock: Callable[[float], None], tmp_path: Path
) -> None:
    operator.init()
    operator.types("add", "pi0")
    bundle = operator.unpack("pi0", tmp_path / "pi0")
    secrets = ("client.key", "superexec.secret", "supernode.key")
    before = {name: (bundle / name).read_bytes() for name in secrets}
    key = (operator.folder / "server.key").read_bytes()
    operator.types("renew", "--server", "pi0")
    # What travels to the device is no secret.
    with tarfile.open(operator.fleet.bundle_file("pi0")) as tar:
        assert set(tar.getnames()) == {"ca.crt", "client.crt", "trusted.yaml"}
    operator.unpack("pi0", bundle)
    operator.meets(bundle)
    operator.types("renew", "--ca")
    operator.unpack("pi0", bundle)
    operator.types("renew", "--ca", "--finish")
    assert operator.meets(bundle) in operator.fleet.members().accepted()
    assert before == {name: (bundle / name).read_bytes() for name in secrets}
    assert key == (operator.folder / "server.key").read_bytes()
    operator.types("renew", "--server", "pi0", "--new-keys")
    operator.unpack("pi0", bundle)
    assert operator.meets(bundle) in operator.fleet.members().accepted()
    after = {name: (bundle / name).read_bytes() for name in secrets}
    assert [n for n in secrets if before[n] != after[n]] == list(secrets[:2])
    assert key != (operator.folder / "server.key").read_bytes()


def test_what_is_due_is_renewed_at_once(
    operator: Operator, clock: Callable[[float], None]
) -> None:
    clock(-825)
    operator.init()
    clock(-300)
    operator.types("add", "pi0", "pi1")
    clock(-100)
    operator.types("add", "pi2")
    assert "nothing ends within 60 days" in operator.types("renew", "--due")
    clock(0)
    said = operator.types("renew", "--due")
    assert "new server certificate" in said
    assert ["pi0" in said, "pi1" in said, "pi2" in said] == [False] * 3
    clock(20)
    said = operator.types("renew", "--due")
    assert ["pi0" in said, "pi1" in said, "pi2" in said] == [True, True, False]
    assert operator.warned == ""


def test_devices_stay_connected_to_a_server_across_an_expiry(
    operator: Operator, clock: Callable[[float], None], tmp_path: Path
) -> None:
    """Certificates of five seconds, by the clock of the TLS library."""
    operator.init()
    operator.types("add", "pi0")
    bundle = operator.unpack("pi0", tmp_path / "pi0")
    clock(-SERVER_DAYS + 5 / 86400)
    operator.types("renew", "--server")
    clock(-DEVICE_DAYS + 5 / 86400)
    operator.types("renew", "pi0")
    operator.unpack("pi0", bundle)
    clock(0)
    operator.meets(bundle)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        for _ in range(600):
            operator.meets(bundle)
            time.sleep(0.1)
    operator.types("check", code=1)
    lines = operator.said.splitlines()
    wrong = [line.split()[1] for line in lines if line.startswith("!!")]
    assert wrong == ["server", "SuperLink", "pi0"]  # nothing listens there
    operator.types("renew", "--due")
    operator.unpack("pi0", bundle)
    assert operator.meets(bundle) in operator.fleet.members().accepted()

"""The authority of a fleet: kept safe, and changed without stranding anybody."""

import datetime
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from server_app.provisioning import certificates
from server_app.provisioning.certificates import AUTHORITY_DAYS
from tests.server_app.provisioning.fleet_operator import HOST, Operator


def ends(path: Path) -> datetime.datetime:
    return certificates.expiry(path.read_bytes())


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


@pytest.mark.parametrize("lost", ["ca.crt", "server.pem", "ca.key.next", "ca.crt.next"])
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

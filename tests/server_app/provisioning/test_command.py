"""``fleet`` as a person types it: files, permissions, and one line for each mistake.

What needs a SuperLink is in ``tests/deployment``.
"""

import json
import stat
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flwr.common.config import parse_config_args

from client_app.__main__ import main as device
from client_app.device.supernode import supernode_command
from client_app.device.unpacked_bundle import BundleError, Scalar, read_bundle
from server_app.__main__ import main
from server_app.provisioning.directory import FleetDirectory
from server_app.provisioning.server_files import UNITS

Command = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "fleet"


@pytest.fixture
def fleet(folder: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command that succeeds; return what it printed."""

    def run(*arguments: str) -> str:
        assert main(["fleet", "--dir", str(folder), *arguments]) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command that fails; return the one line it prints."""

    def run(*arguments: str) -> str:
        assert main(["fleet", "--dir", str(folder), *arguments]) == 2
        [line] = capsys.readouterr().err.splitlines()
        return line.removeprefix("error: ")

    return run


def init(fleet: Command, *more: str) -> None:
    # Nothing listens on the discard port.
    fleet("init", "--host", "lab.example", "--control", "127.0.0.1:9", *more)


def modes(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_private_keys_are_nowhere_but_in_their_bundle(
    fleet: Command, folder: Path
) -> None:
    init(fleet)
    said = fleet("add", "pi0", "--expert-cap", "3")
    assert "not registered yet (no SuperLink answers at 127.0.0.1:9" in said
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert modes(folder) == {
        "fleet.json": 0o600,
        "ca.key": 0o600,
        "ca.crt": 0o644,
        "server.key": 0o600,
        "server.pem": 0o644,
        "superexec.secret": 0o600,
        "apps.key": 0o600,
        "trusted.yaml": 0o644,
        "nginx.conf": 0o644,
        "flwr/config.toml": 0o644,
        "owners/fleet.json": 0o644,
        **{f"systemd/expertfleet-{name}.service": 0o644 for name in UNITS},
        "bundles/pi0.tar": 0o600,
    }
    with tarfile.open(folder / "bundles/pi0.tar") as tar:
        content = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
        assert {m.name: m.mode for m in tar if m.mode == 0o600} == {
            "supernode.key": 0o600,
            "client.key": 0o600,
            "superexec.secret": 0o600,
        }
    assert set(content) == {
        *("ca.crt", "supernode.key", "supernode.pub"),
        *("client.key", "client.crt", "device.toml"),
        *("trusted.yaml", "superexec.secret"),
    }
    assert content["device.toml"].decode() == (
        'superlink = "lab.example:8000"\n\n[node-config]\nname = "pi0"\n'
        "expert-cap = 3\n"
    )
    secrets = [content[n] for n in content if n.endswith((".key", ".secret"))]
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".tar":
            assert not any(secret in path.read_bytes() for secret in secrets)
    for own in ("ca.key", "apps.key", "superexec.secret"):
        assert (folder / own).read_bytes() not in content.values()


def test_a_device_starts_from_its_bundle(
    fleet: Command, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    init(fleet)
    fleet("add", "pi0", "--data-path", "/srv/my cam")
    bundle = tmp_path / "bundle"
    with tarfile.open(folder / "bundles/pi0.tar") as tar:
        tar.extractall(bundle, filter="data")
    given: dict[str, Scalar] = {"state-dir": "/var/lib/x", "expert-cap": 2}
    assert supernode_command(read_bundle(bundle), given) == [
        "flower-supernode",
        "--superlink",
        "lab.example:8000",
        "--root-certificates",
        str(bundle / "ca.crt"),
        "--auth-supernode-private-key",
        str(bundle / "supernode.key"),
        "--node-config",
        'name="pi0" data-path="/srv/my cam" state-dir="/var/lib/x" expert-cap=2',
    ]
    monkeypatch.setattr("client_app.device.supernode.look_at_link", lambda _: [])

    def run(argv: list[str], env: dict[str, str]) -> tuple[int, bool]:
        started.append(argv)
        return 0, True

    monkeypatch.setattr("client_app.device.supernode.run_program", run)
    arguments = ["supernode", str(bundle), "--state-dir=/s", "--set=expert-cap=2"]
    arguments += ["--data-path", "/data"]
    device([*arguments, "--", "--isolation=process", "--port", "9"])
    assert started[0][3:7] == [  # after python -m MODULE
        *("--trusted-entities", str(bundle / "trusted.yaml")),
        *("--superexec-auth-secret-file", str(bundle / "superexec.secret")),
    ]
    assert started[0][-4:-1] == [
        'name="pi0" data-path="/data" state-dir="/s" expert-cap=2',
        "--isolation=process",
        "--port",
    ]
    # What Flower makes of it.
    [*_, config] = supernode_command(read_bundle(bundle), {})
    assert parse_config_args([config]) == {"name": "pi0", "data-path": "/srv/my cam"}
    with pytest.raises(BundleError, match="state-dir"):
        supernode_command(read_bundle(bundle), {"state-dir": 'a"b'})
    (bundle / "supernode.key").unlink()
    with pytest.raises(BundleError, match=r"supernode\.key is missing"):
        read_bundle(bundle)


def test_init_again_changes_only_what_is_asked_for(
    fleet: Command, folder: Path
) -> None:
    init(fleet)
    authority = (folder / "ca.crt").read_bytes()
    before = (folder / "server.pem").read_bytes()
    assert "nothing to do" in fleet("init")
    assert (folder / "server.pem").read_bytes() == before
    said = fleet("init", "--host", "new.example", "--host", "10.1.2.3")
    assert "new.example, 10.1.2.3, localhost, 127.0.0.1" in said
    assert (folder / "server.pem").read_bytes() != before
    assert (folder / "ca.crt").read_bytes() == authority


def test_mistakes_are_one_line(fleet: Command, refused: Command, folder: Path) -> None:
    assert refused("list").startswith(f"no fleet in {folder}: create one with")
    assert not folder.exists()
    assert refused("init").startswith("a new fleet needs --host")
    assert "neither a host name" in refused("init", "--host", "a b")
    assert "is not HOST:PORT" in refused("init", "--host", "a", "--superlink", "a")
    assert "at least 1" in refused("init", "--host", "a", "--size", "0")
    init(fleet, "--size", "2")
    fleet("add", "pi0", "pi1")
    assert refused("add", "pi0").startswith("there is a device 'pi0' already")
    assert refused("add", "Pi/../0").startswith("device name 'Pi/../0' is not allowed")
    assert refused("add", "pi2").startswith("the fleet is full: it was made for 2")
    assert (
        refused("remove", "pi7") == "no device 'pi7' in this fleet; did you mean 'pi1'?"
    )
    assert "2 devices carry 2 in their bundles" in refused("init", "--size", "3")
    for path in ("data", "", '/a"b', "/a\\b", "/a\nb"):
        said = refused("add", "pi2", "--data-path", path)
        assert said.startswith(f"--data-path {path!r} is not allowed: a path on the")
    assert refused("register").startswith("no SuperLink answers at 127.0.0.1:9")
    (folder / "ca.key").write_text("no key")
    fleet("remove", "pi1")
    assert "the authority in" in refused("add", "pi1")
    assert not (folder / "bundles/pi1.tar").exists()
    (folder / "fleet.json").write_text('{"superlink": 3}')
    assert "fleet.json is damaged: superlink" in refused("list")


def test_a_device_whose_key_is_good_elsewhere_is_not_forgotten(
    fleet: Command, refused: Command, folder: Path
) -> None:
    init(fleet)
    fleet("add", "pi0")
    FleetDirectory(folder).note_registered("pi0")
    assert refused("remove", "pi0").startswith("pi0 stays: its key is still good")
    assert (folder / "bundles/pi0.tar").exists()


def test_a_share_that_was_given_back_is_given_again(
    fleet: Command, folder: Path
) -> None:
    init(fleet, "--size", "2")
    fleet("add", "pi0", "pi1")
    fleet("remove", "pi0")
    fleet("add", "pi2")
    devices = json.loads((folder / "fleet.json").read_text())["devices"]
    assert {name: d["partition_id"] for name, d in devices.items()} == {
        "pi1": 1,
        "pi2": 0,
    }


def node_config(folder: Path, name: str) -> dict[str, Any]:
    with tarfile.open(folder / f"bundles/{name}.tar") as tar:
        file = tar.extractfile("device.toml")
        assert file is not None
        found: dict[str, Any] = tomllib.loads(file.read().decode())["node-config"]
        return found


def test_devices_have_data_of_their_own_unless_the_fleet_shares_a_set(
    fleet: Command, folder: Path
) -> None:
    init(fleet)
    fleet("add", "pi0")
    fleet("add", "pi1", "pi2", "--data-path", "/srv/käfer")
    assert node_config(folder, "pi0") == {"name": "pi0"}
    assert node_config(folder, "pi1") == {"name": "pi1", "data-path": "/srv/käfer"}
    listed = [line.split()[:2] for line in fleet("list").splitlines()[1:4]]
    assert listed == [["pi0", "its"], ["pi1", "/srv/käfer"], ["pi2", "/srv/käfer"]]
    owners = json.loads((folder / "owners/fleet.json").read_text())
    assert owners["size"] is None
    assert {d["partition_id"] for d in owners["devices"].values()} == {None}
    # What follows has shares; who has data of its own takes none.
    fleet("init", "--size", "1")
    fleet("add", "pi3", "--data-path", "~/data")
    fleet("add", "pi4")
    share = {"name": "pi4", "partition-id": 0, "num-partitions": 1}
    assert node_config(folder, "pi4") == share
    assert node_config(folder, "pi3") == {"name": "pi3", "data-path": "~/data"}
    assert "share 0 of 1" in fleet("list")


def test_a_fleet_of_before_keeps_its_shares(fleet: Command, folder: Path) -> None:
    init(fleet, "--size", "2")
    fleet("add", "pi0")
    file = folder / "fleet.json"
    content = json.loads(file.read_text())
    del content["devices"]["pi0"]["data_path"]
    file.write_text(json.dumps(content))
    fleet("add", "pi1")
    assert node_config(folder, "pi1")["partition-id"] == 1


@pytest.mark.parametrize("where", ["added", "expires"])
def test_a_time_without_its_zone_is_damage_in_one_line(
    where: str, fleet: Command, refused: Command, folder: Path
) -> None:
    init(fleet)
    fleet("add", "pi0")
    file = folder / "fleet.json"
    content = json.loads(file.read_text())
    device = content["devices"]["pi0"]
    holder = device if where == "added" else device["certificates"][0]
    holder[where] = "2030-01-01T00:00:00"
    file.write_text(json.dumps(content))
    assert where in refused("list") and "timezone" in refused("list")


@pytest.mark.slow
def test_two_operators_at_once_lose_no_device(fleet: Command, folder: Path) -> None:
    init(fleet, "--size", "3")

    def add(name: str) -> int:
        command = [sys.executable, "-m", "server_app", "fleet", "--dir", str(folder)]
        return subprocess.run([*command, "add", name], capture_output=True).returncode

    with ThreadPoolExecutor() as pool:
        assert list(pool.map(add, ["pi0", "pi1", "pi2"])) == [0, 0, 0]
    listed = fleet("list")
    assert all(name in listed for name in ("pi0", "pi1", "pi2"))
    devices = json.loads((folder / "fleet.json").read_text())["devices"]
    assert sorted(d["partition_id"] for d in devices.values()) == [0, 1, 2]

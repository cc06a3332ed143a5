"""``fleet`` as a person types it: files, permissions, and one line for each mistake.

What needs a SuperLink is in ``tests/deployment``.
"""

import json
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from client_app.__main__ import main as device
from client_app.supernode import BundleError, supernode_command
from server_app.__main__ import main
from server_app.provisioning.directory import FleetDirectory

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
        "bundles/pi0.tar": 0o600,
    }
    with tarfile.open(folder / "bundles/pi0.tar") as tar:
        content = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
        assert {m.name: m.mode for m in tar if m.mode == 0o600} == {
            "supernode.key": 0o600,
            "client.key": 0o600,
        }
    assert set(content) == {
        *("ca.crt", "supernode.key", "supernode.pub"),
        *("client.key", "client.crt", "device.toml"),
    }
    assert content["device.toml"].decode() == (
        'superlink = "lab.example:8000"\n\n[node-config]\nname = "pi0"\n'
        "partition-id = 0\nnum-partitions = 10\nexpert-cap = 3\n"
    )
    secrets = [content["supernode.key"], content["client.key"]]
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".tar":
            assert not any(secret in path.read_bytes() for secret in secrets)
    assert (folder / "ca.key").read_bytes() not in content.values()


def test_a_device_starts_from_its_bundle(
    fleet: Command, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    init(fleet)
    fleet("add", "pi0")
    bundle = tmp_path / "bundle"
    with tarfile.open(folder / "bundles/pi0.tar") as tar:
        tar.extractall(bundle, filter="data")
    assert supernode_command(bundle, {"state-dir": "/var/lib/x", "expert-cap": 2}) == [
        "flower-supernode",
        "--superlink",
        "lab.example:8000",
        "--root-certificates",
        str(bundle / "ca.crt"),
        "--auth-supernode-private-key",
        str(bundle / "supernode.key"),
        "--node-config",
        'name="pi0" partition-id=0 num-partitions=10 state-dir="/var/lib/x" '
        "expert-cap=2",
    ]
    monkeypatch.setattr("os.execve", lambda program, argv, env: started.append(argv))
    arguments = ["supernode", str(bundle), "--state-dir=/s", "--set=expert-cap=2"]
    device([*arguments, "--", "--isolation=process", "--port", "9"])
    assert started[0][-4:-1] == [
        'name="pi0" partition-id=0 num-partitions=10 state-dir="/s" expert-cap=2',
        "--isolation=process",
        "--port",
    ]
    with pytest.raises(BundleError, match="state-dir"):
        supernode_command(bundle, {"state-dir": 'a"b'})
    (bundle / "supernode.key").unlink()
    with pytest.raises(BundleError, match=r"supernode\.key is missing"):
        supernode_command(bundle, {})


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
    FleetDirectory(folder).note_registered({"pi0": True})
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


@pytest.mark.slow
def test_two_operators_at_once_lose_no_device(fleet: Command, folder: Path) -> None:
    init(fleet)

    def add(name: str) -> int:
        command = [sys.executable, "-m", "server_app", "fleet", "--dir", str(folder)]
        return subprocess.run([*command, "add", name], capture_output=True).returncode

    with ThreadPoolExecutor() as pool:
        assert list(pool.map(add, ["pi0", "pi1", "pi2"])) == [0, 0, 0]
    listed = fleet("list")
    assert all(name in listed for name in ("pi0", "pi1", "pi2"))
    devices = json.loads((folder / "fleet.json").read_text())["devices"]
    assert sorted(d["partition_id"] for d in devices.values()) == [0, 1, 2]

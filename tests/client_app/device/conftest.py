"""A fleet of one device, and a server that answers it."""

import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from client_app.device.unpacked_bundle import Bundle, read_bundle
from server_app.provisioning.certificates import openssh_to_pem
from server_app.provisioning.directory import FleetDirectory
from server_app.provisioning.members import Members
from tests.client_app.device.fake_superlink import FakeSuperLink, answering
from tests.ports import free_port


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FleetDirectory:
    """A fleet with the device ``pi0``, whose key the server knows."""
    address = f"127.0.0.1:{free_port()}"
    made = FleetDirectory(tmp_path / "fleet")
    made.create(Members(superlink=address, control=address, hosts=("127.0.0.1",)))
    made.add("pi0", data_path=str(tmp_path / "data"))
    known = {openssh_to_pem(made.members().device("pi0").public_key)}
    monkeypatch.setattr(FakeSuperLink, "known", known)
    return made


@pytest.fixture
def bundle(fleet: FleetDirectory, tmp_path: Path) -> Bundle:
    """What ``pi0`` was given."""
    with tarfile.open(fleet.bundle_file("pi0")) as tar:
        tar.extractall(tmp_path / "bundle", filter="data")
    return read_bundle(tmp_path / "bundle")


@pytest.fixture
def superlink(fleet: FleetDirectory) -> Iterator[str]:
    """The address of a server that answers, which is also the bundle's."""
    address = fleet.members().superlink
    port = int(address.rpartition(":")[2])
    with answering(fleet.path / "server.pem", fleet.path / "server.key", port):
        yield address

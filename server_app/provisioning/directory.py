"""The fleet's directory: its authority, its server's certificate, who belongs to it.

::

    fleet/            0700
      fleet.json      addresses and devices: public keys and fingerprints, no secret
      ca.crt ca.key   the authority; ca.key never leaves this directory
      server.pem server.key   for ``flower-superlink``
      bundles/NAME.tar        0600; the only copy of a device's private keys

Every file is written in one piece, and one process changes the directory at a time.
"""

import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.files import atomic_write
from common.sections import nearest
from server_app.provisioning import ProvisioningError, bundle, certificates
from server_app.provisioning.certificates import Authority

DEVICE_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
LOOPBACK = ("localhost", "127.0.0.1")
"""Always among the server's names: the server itself talks to the SuperLink."""


class Device(BaseModel):
    """What is known of a device before it ever connected."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    partition_id: int = Field(ge=0, description="which share of the data set it has")
    expert_cap: int = Field(0, ge=0, description="most experts it holds; 0: it decides")
    public_key: str = Field(description="OpenSSH form, one line")
    certificate_sha256: str = Field(description="fingerprint of its client certificate")
    added: datetime
    registered: bool = Field(False, description="whether a SuperLink knows its key")


class Members(BaseModel):
    """The content of ``fleet.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    superlink: str = Field(description="HOST:PORT that devices connect to")
    control: str = Field(description="HOST:PORT of the Control API, for the operator")
    hosts: tuple[str, ...] = Field(description="names in the server's certificate")
    size: int = Field(ge=1, description="shares the data set is cut into")
    devices: dict[str, Device] = Field(default_factory=dict)

    def device(self, name: str) -> Device:
        """Return a device.

        Raises
        ------
        ProvisioningError
            If there is none of this name.
        """
        if name not in self.devices:
            raise ProvisioningError(
                f"no device {name!r} in this fleet{nearest(name, self.devices)}"
            )
        return self.devices[name]

    def with_device(self, name: str, device: Device | None) -> "Members":
        """Return the same with one device set, or left out if None."""
        others = {key: value for key, value in self.devices.items() if key != name}
        devices = others if device is None else {**others, name: device}
        return self.model_copy(update={"devices": devices})


class FleetDirectory:
    """The files of one fleet.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def authority_file(self) -> Path:
        """The certificate that everybody in the fleet trusts."""
        return self.path / "ca.crt"

    def bundle_file(self, name: str) -> Path:
        """Return where the bundle of a device is."""
        return self.path / "bundles" / f"{name}.tar"

    def exists(self) -> bool:
        """Whether a fleet has been created here."""
        return (self.path / "fleet.json").is_file()

    def members(self) -> Members:
        """Read who belongs to the fleet.

        Raises
        ------
        ProvisioningError
            If there is no fleet here, or its list cannot be read.
        """
        file = self.path / "fleet.json"
        try:
            return Members.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            raise ProvisioningError(
                f"no fleet in {self.path}: create one with `python -m server_app "
                "fleet init --host NAME`"
            ) from None
        except OSError as error:
            raise ProvisioningError(f"cannot read {file}: {error.strerror}") from None
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"])) or "its JSON"
            raise ProvisioningError(
                f"{file} is damaged: {where}: {problem['msg']}"
            ) from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from changing the directory meanwhile."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)
            descriptor = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise ProvisioningError(
                f"cannot use {self.path}: {error.strerror}"
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def create(self, members: Members) -> None:
        """Make the authority and the server's key; write the list last of all."""
        authority = Authority.create("ExpertFleet authority")
        self._write("ca.key", certificates.private_pem(authority.key))
        pem = certificates.certificate_pem(authority.certificate)
        self._write("ca.crt", pem, 0o644)
        self.certify_server(members.hosts)
        self.save(members)

    def certify_server(self, hosts: tuple[str, ...]) -> None:
        """Give the server a new key, certified under these names."""
        key = certificates.server_key()
        certificate = self._authority().server_certificate(key, list(hosts))
        self._write("server.key", certificates.private_pem(key))
        self._write("server.pem", certificates.certificate_pem(certificate), 0o644)

    def server_days_left(self) -> int:
        """Return the days until the server's certificate expires, 0 if it is gone."""
        try:
            return certificates.days_left((self.path / "server.pem").read_bytes())
        except (OSError, ValueError):
            return 0

    def save(self, members: Members) -> None:
        """Write who belongs to the fleet."""
        self._write("fleet.json", members.model_dump_json(indent=2).encode() + b"\n")

    def add(self, name: str, expert_cap: int = 0) -> Device:
        """Make a device's keys and its bundle, and take it into the list.

        Parameters
        ----------
        name : str
            Lower-case letters, digits and hyphens, as a host name.
        expert_cap : int
            Most experts it may ever hold; 0 leaves it to what it measures.

        Raises
        ------
        ProvisioningError
            If the name cannot be used or is taken, or the fleet is full.
        """
        members = self.members()
        if not DEVICE_NAME.fullmatch(name):
            raise ProvisioningError(
                f"device name {name!r} is not allowed: 1 to 63 lower-case letters, "
                "digits and hyphens, no hyphen at either end"
            )
        if name in members.devices:
            raise ProvisioningError(
                f"there is a device {name!r} already: remove it first to give it new "
                "keys"
            )
        taken = {device.partition_id for device in members.devices.values()}
        free = [share for share in range(members.size) if share not in taken]
        if not free:
            raise ProvisioningError(
                f"the fleet is full: it was made for {members.size} devices (`fleet "
                "init --size N` before the first `fleet add`)"
            )
        key, tls = certificates.device_key(), certificates.server_key()
        certificate = self._authority().client_certificate(tls, name)
        device = Device(
            partition_id=free[0],
            expert_cap=expert_cap,
            public_key=certificates.public_openssh(key).decode(),
            certificate_sha256=certificate.fingerprint(hashes.SHA256()).hex(),
            added=datetime.now(UTC).replace(microsecond=0),
        )
        files = {
            "ca.crt": self.authority_file.read_bytes(),
            "supernode.key": certificates.private_openssh(key),
            "supernode.pub": certificates.public_openssh(key) + b"\n",
            "client.key": certificates.private_pem(tls),
            "client.crt": certificates.certificate_pem(certificate),
            "device.toml": bundle.device_config(
                name,
                members.superlink,
                partition_id=device.partition_id,
                num_partitions=members.size,
                expert_cap=expert_cap,
            ),
        }
        self._write(f"bundles/{name}.tar", bundle.pack(files))
        self.save(members.with_device(name, device))
        return device

    def remove(self, name: str) -> None:
        """Take a device off the list and delete its bundle.

        Raises
        ------
        ProvisioningError
            If there is none of this name.
        """
        members = self.members()
        members.device(name)
        self.save(members.with_device(name, None))
        self.bundle_file(name).unlink(missing_ok=True)

    def note_registered(self, known: Mapping[str, bool]) -> None:
        """Remember which devices a SuperLink knows."""
        members = self.members()
        for name, registered in known.items():
            device = members.devices[name]
            updated = device.model_copy(update={"registered": registered})
            members = members.with_device(name, updated)
        self.save(members)

    def _authority(self) -> Authority:
        try:
            return Authority.load(
                (self.path / "ca.key").read_bytes(), self.authority_file.read_bytes()
            )
        except OSError as error:
            raise ProvisioningError(
                f"cannot read {error.filename}: {error.strerror}"
            ) from None
        except ValueError as error:
            raise ProvisioningError(
                f"the authority in {self.path} is damaged: {error}"
            ) from None

    def _write(self, name: str, content: bytes, mode: int = 0o600) -> None:
        try:
            with atomic_write(self.path / name, mode) as file:
                file.write(content)
        except OSError as error:
            raise ProvisioningError(
                f"cannot write {self.path / name}: {error.strerror}"
            ) from None

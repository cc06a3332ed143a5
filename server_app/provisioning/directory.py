"""The fleet's directory: its authority, its server's certificate, who belongs to it.

::

    fleet/            0700
      fleet.json      addresses and devices: public keys and fingerprints, no secret
      ca.crt ca.key   the authority (``authority``); ca.key may lie elsewhere
      server.pem server.key   for ``flower-superlink`` and the proxy
      superexec.secret        what SuperExec proves to the SuperLink that it is
      apps.key trusted.yaml   what apps are signed with, and how devices verify it
                              (``app_keys``, as the secret)
      nginx.conf systemd/ flwr/   what the server is started from (``server_files``)
      owners/fleet.json       what owners allow, for the ServerApps; no key, no address
      bundles/NAME.tar        0600; the only copy of a device's private keys

Every file is written in one piece, and one process changes the directory at a time. It
has to be the caller's own: whoever else owns it, or a link on the way to it, could
read what is written here.
"""

import fcntl
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from common.settings.section import first_problem
from server_app.provisioning import ProvisioningError, bundle, certificates
from server_app.provisioning.app_keys import app_key, ensure_secrets
from server_app.provisioning.authority import AuthorityFiles
from server_app.provisioning.certificates import Authority
from server_app.provisioning.issuing import issue_client, issue_server
from server_app.provisioning.members import Device, Members
from server_app.provisioning.private_files import (
    refuse_owner,
    refuse_strangers,
    write,
)
from server_app.provisioning.server_files import server_files

DEVICE_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
LOOPBACK = ("localhost", "127.0.0.1")
"""Always among the server's names: the server itself talks to the SuperLink."""


class FleetDirectory:
    """The files of one fleet.

    Parameters
    ----------
    path : Path
    ca_key : Path, optional
        The authority's private key, where it is not kept in the directory.
    ca_passphrase : bytes, optional
        What that key is encrypted with.
    """

    def __init__(
        self,
        path: Path,
        ca_key: Path | None = None,
        ca_passphrase: bytes | None = None,
    ) -> None:
        self.path = path
        self.authority = AuthorityFiles(
            self.authority_file, ca_key or path / "ca.key", ca_passphrase
        )

    @property
    def authority_file(self) -> Path:
        """The certificates that everybody in the fleet trusts."""
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
        refuse_strangers(self.path)
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
            why = first_problem(error)
            raise ProvisioningError(f"{file} is damaged: {why}") from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from changing the directory meanwhile."""
        refuse_strangers(self.path)
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise ProvisioningError(
                f"cannot use {self.path}: {error.strerror}"
            ) from None
        try:
            # Once more, of what was opened: it may have been swapped meanwhile.
            refuse_owner(self.path, os.fstat(descriptor).st_uid)
            os.fchmod(descriptor, 0o700)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def create(self, members: Members) -> bool:
        """Write the list of a new fleet, last of all.

        Returns
        -------
        bool
            Whether its authority was there already: it is kept, since devices in the
            field trust no other.
        """
        found = self.authority.ensure()
        self.certify_server(members.hosts)
        self.save(members)
        return found

    def certify_server(
        self,
        hosts: tuple[str, ...],
        authority: Authority | None = None,
        *,
        new_key: bool = False,
    ) -> None:
        """Certify the server's key under these names, or another key."""
        authority = authority or self.authority.for_server()
        issue_server(self.path, authority, hosts, new_key=new_key)

    def begin_change(self) -> None:
        """Make another authority and bundles that trust both, the old and the new."""
        members = self.members()
        self.authority.begin()
        for name in members.devices:
            self.renew(name)

    def finish_change(self) -> None:
        """Let the server show a certificate of the new authority, and trust no other.

        Raises
        ------
        ProvisioningError
            If no change is under way, or a device may not have its bundle yet.
        """
        members = self.members()
        if not self.authority.changing:
            raise ProvisioningError(
                "no change of the authority is under way: `fleet renew --ca` begins one"
            )
        waiting = [name for name in members.devices if self.bundle_file(name).exists()]
        if waiting:
            raise ProvisioningError(
                f"{', '.join(waiting)} would be stranded: bring each its bundle in "
                f"{self.path / 'bundles'}, delete it there, then finish"
            )
        self.certify_server(members.hosts, self.authority.for_devices())
        self.authority.finish()

    def save(self, members: Members) -> None:
        """Write who belongs to the fleet, and before it what follows from that."""
        ensure_secrets(self.path)
        for name, text in server_files(members, self.path.absolute()):
            write(self.path / name, text, 0o644)
        content = members.model_dump_json(indent=2).encode() + b"\n"
        write(self.path / "fleet.json", content)

    def add(
        self, name: str, expert_cap: int = 0, memory: int = 0, data_path: str = ""
    ) -> None:
        """Make a device's keys and its bundle, and take it into the list.

        Parameters
        ----------
        name : str
            Lower-case letters, digits and hyphens, as a host name.
        expert_cap : int
            Most experts it may ever hold; 0 leaves it to what it measures.
        memory : int
            Most bytes it trains in; 0 leaves it to what it measures. Like the cap, held
            by the server.

        data_path : str
            Where the device has data of its own; "" for a share of the data set where
            the fleet was made for one, else the device says it itself.

        Raises
        ------
        ProvisioningError
            If the name cannot be used or is taken, or no share is left.
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
        share = None if data_path else members.free_share()
        key = certificates.device_key()
        device = Device(
            partition_id=share,
            data_path=data_path,
            expert_cap=expert_cap,
            memory=memory,
            public_key=certificates.public_openssh(key).decode(),
            certificates=(),
            added=certificates.now().replace(microsecond=0),
        )
        own = {
            "supernode.key": certificates.private_openssh(key),
            "supernode.pub": certificates.public_openssh(key) + b"\n",
            "device.toml": bundle.device_config(name, device, members),
        }
        self._issue(name, device, own)

    def renew(self, name: str, *, new_keys: bool = False) -> None:
        """Give a device a new client certificate and whom to trust, in a new bundle.

        It is unpacked over the old one and has no secret: the keys stay as they are on
        the device, and so does ``device.toml``, which its owner may have changed. A
        bundle that waits to be brought there keeps all it has. With ``new_keys`` it has
        another ``client.key`` and ``superexec.secret``; the key of its SuperNode
        changes only when the device is removed and added again.

        Raises
        ------
        ProvisioningError
            If there is none of this name, or its bundle is damaged.
        """
        device, file = self.members().device(name), self.bundle_file(name)
        try:
            own = bundle.unpack(file.read_bytes())
        except FileNotFoundError:
            own = {}
        except (OSError, tarfile.TarError) as error:
            raise ProvisioningError(
                f"{file} cannot be read ({error}): remove {name} and add it again"
            ) from None
        self._issue(name, device, own, new_keys=new_keys)

    def _issue(
        self,
        name: str,
        device: Device,
        own: Mapping[str, bytes],
        *,
        new_keys: bool = False,
    ) -> None:
        """Certify a device and write its bundle: its own files and the fleet's."""
        authority = self.authority.for_devices()
        device, issued = issue_client(name, device, authority, new_keys=new_keys)
        ensure_secrets(self.path)
        files = {
            **own,
            **issued,
            "ca.crt": self.authority_file.read_bytes(),
            "trusted.yaml": certificates.trusted_entities(app_key(self.path)),
        }
        # The list first: a bundle whose certificate is not listed would be refused.
        self.save(self.members().with_device(name, device))
        write(self.bundle_file(name), bundle.pack(files))

    def remove(self, name: str) -> None:
        """Take a device off the list, if it is on it, and delete its bundle."""
        self.save(self.members().with_device(name, None))
        self.bundle_file(name).unlink(missing_ok=True)

    def note_registered(self, name: str) -> None:
        """Remember that a SuperLink knows a device."""
        members = self.members()
        device = members.device(name).model_copy(update={"registered": True})
        self.save(members.with_device(name, device))

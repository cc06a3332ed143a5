"""Who belongs to the fleet: the content of ``fleet.json``, without any secret.

A service that asks its clients for certificates wants ``Members.accepted``: exactly the
fingerprints that are let in now. Where the file lies is ``directory``'s business.
"""

import datetime
from typing import Any, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from common.errors import nearest
from server_app.provisioning import ProvisioningError, certificates


class IssuedCertificate(BaseModel):
    """A client certificate that was issued to a device."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(description="fingerprint, hexadecimal")
    expires: AwareDatetime | None = Field(
        None, description="None: with the authority that signed it"
    )

    def good(self) -> bool:
        """Whether it has not expired yet."""
        return self.expires is None or certificates.now() < self.expires


class Device(BaseModel):
    """What is known of a device before it ever connected."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    partition_id: int | None = Field(
        None, ge=0, description="which share of the data set it has; None: own data"
    )
    data_path: str = Field("", description="where its own data are; empty: it says")
    expert_cap: int = Field(0, ge=0, description="most experts it holds; 0: it decides")
    memory: int = Field(0, ge=0, description="most bytes it trains in; 0: it decides")
    public_key: str = Field(description="OpenSSH form, one line")
    certificates: tuple[IssuedCertificate, ...] = Field(description="the newest last")
    client_key: str = Field(
        "", description="public half of its client.key; empty: nobody noted it"
    )
    added: AwareDatetime
    registered: bool = Field(False, description="whether a SuperLink knows its key")

    @model_validator(mode="before")
    @classmethod
    def _of_an_older_fleet(cls, found: Any) -> Any:
        # Before devices could be renewed each had one certificate for good.
        if isinstance(found, dict) and "certificate_sha256" in found:
            found = dict(found)
            found["certificates"] = [{"sha256": found.pop("certificate_sha256")}]
        return found

    @property
    def expires(self) -> datetime.datetime | None:
        """When its newest certificate ends; None: with the authority."""
        return self.certificates[-1].expires if self.certificates else None

    def renewed(self, certificate: IssuedCertificate, client_key: str) -> Self:
        """Return it with one more certificate; those before stay good until they end.

        Which of them the device shows is known only once its bundle got there.
        """
        end = certificates.now() + datetime.timedelta(days=certificates.DEVICE_DAYS)
        kept = [
            each if each.expires else each.model_copy(update={"expires": end})
            for each in self.certificates
            if each.good()
        ]
        certified = {"certificates": (*kept, certificate), "client_key": client_key}
        return self.model_copy(update=certified)


class Members(BaseModel):
    """The content of ``fleet.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    superlink: str = Field(description="HOST:PORT that devices connect to")
    control: str = Field(description="HOST:PORT of the Control API, for the operator")
    apps: str = Field(
        "127.0.0.1:8002", description="HOST:PORT where `fleet run` hands out an app"
    )
    hosts: tuple[str, ...] = Field(description="names in the server's certificate")
    size: int | None = Field(
        None, ge=1, description="shares one data set is cut into; None: own data"
    )
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

    def free_share(self) -> int | None:
        """Return the share the next device gets; None where there are no shares.

        Raises
        ------
        ProvisioningError
            If all are given away.
        """
        if self.size is None:
            return None
        taken = {device.partition_id for device in self.devices.values()}
        share = min({*range(self.size)} - taken, default=None)
        if share is None:
            raise ProvisioningError(
                f"the fleet is full: it was made for {self.size} devices with a share "
                "of one data set (`fleet init --size N` before the first `fleet add`); "
                "a device with data of its own needs none (`fleet add --data-path`)"
            )
        return share

    def with_device(self, name: str, device: Device | None) -> Self:
        """Return the same with one device set, or left out if None."""
        others = {key: value for key, value in self.devices.items() if key != name}
        devices = others if device is None else {**others, name: device}
        return self.model_copy(update={"devices": devices})

    def accepted(self) -> dict[str, str]:
        """Return the device of every certificate that is let in now.

        Returns
        -------
        dict of str to str
            SHA-256 fingerprint (hexadecimal, lower case, no colons) to name.
        """
        return {
            certificate.sha256: name
            for name, device in self.devices.items()
            for certificate in device.certificates
            if certificate.good()
        }

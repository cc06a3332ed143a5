"""What a device's owner says in its node configuration (``--node-config``).

It wins over the run's settings and over what is measured. Keys of others are left
alone.

A device has data of its own, which nobody cuts, unless it is told which share of a data
set that all have is its: ``partition-id`` of ``num-partitions``. Not here: what is in
those data (``common.own``).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common import refusals
from common.data.datasets import own_files
from common.data.partition import FOLDERS
from common.errors import SettingsError
from common.own.client_folders import client_folders
from common.settings import explain
from common.settings.privacy_settings import PrivacySettings
from common.settings.sections import DataSettings
from common.text import CLIENT_NAME

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Place = Annotated[str, Field(min_length=1)]


class NodeConfig(BaseModel):
    """The keys that are ours, in kebab case.

    Attributes
    ----------
    partition_id, num_partitions : int
        Which share of the data set, from 0, of how many; -1 and 0 for data of its own,
        as where neither is said.
    data_path : str or None
        File or folder with data of its own; wins over a share.
    name : str
        Its own stable name; see :meth:`client`.
    expert_cap : int or None
        Experts of each layer it may hold.
    memory_bytes : int
        Memory its owner allows; 0 means no cap.
    flops_per_second, uplink_bytes_per_second : float
        Instead of what would be measured; 0 measures.
    downlink_bytes_per_second : float
        Instead of what is supposed: that it is no slower than the uplink.
    data_dir, state_dir, pretrained : str or None
        Places on this device.
    max_epsilon : float or None
        What all runs together may spend of its samples' privacy; then no run without
        ``privacy = "device"`` gets anything of them.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        coerce_numbers_to_str=True,
        alias_generator=lambda name: name.replace("_", "-"),
    )

    partition_id: Annotated[int, Field(ge=-1)] = -1
    num_partitions: Annotated[int, Field(ge=0)] = 0
    data_path: Place | None = None
    name: Annotated[str, Field(pattern=f"^({CLIENT_NAME})?$")] = ""
    expert_cap: Annotated[int, Field(ge=0)] | None = None
    memory_bytes: Annotated[int, Field(ge=0)] = 0
    flops_per_second: Amount = 0.0
    uplink_bytes_per_second: Amount = 0.0
    downlink_bytes_per_second: Amount = 0.0
    data_dir: str | None = None
    state_dir: str | None = None
    pretrained: str | None = None
    max_epsilon: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @classmethod
    def of(cls, config: Mapping[str, object]) -> Self:
        """Read a node configuration.

        Raises
        ------
        SettingsError
            With one line that names the key, the value and what is allowed.
        """
        try:
            found = cls.model_validate(dict(config))
        except ValidationError as error:
            raise SettingsError(f"node configuration: {explain(error)}") from None
        share, of = found.partition_id, found.num_partitions
        if (share >= 0) != (of > 0):
            raise SettingsError(
                f"node configuration: partition-id = {share} does not go with "
                f"num-partitions = {of}: a share of a data set has both, 0 to N-1 of "
                "N; a device with data of its own has neither"
            )
        if share >= of > 0:
            raise SettingsError(
                f"node configuration: partition-id = {share} is not allowed: expected "
                f"0 to {of - 1}, for num-partitions = {of}"
            )
        return found

    def allowed(self, rules: PrivacySettings) -> PrivacySettings:
        """Return what a run says of privacy, with no more epsilon than is allowed here.

        Raises
        ------
        SettingsError
            If the owner allows only so much, and the run does not count it.
        """
        if (most := self.max_epsilon) is None:
            return rules
        if not (rules.is_device and rules.leaves_out):
            raise SettingsError(
                f"node configuration: max-epsilon = {most:g} allows only runs with "
                'privacy = "device" and private-reports = "leave-out"'
            )
        least = min(most, rules.max_epsilon or most)
        return rules.model_copy(update={"max_epsilon": least})

    def in_folder(self, data: DataSettings) -> Self:
        """Return the device that a virtual client with a folder simulates.

        With ``partition="folders"`` the clients are the folders of ``data-dir``, in the
        order of their names; each is called as its folder, and nothing is cut. A device
        that says where its own data lie is none of them.

        Raises
        ------
        SettingsError
            If there are not as many folders as clients.
        """
        if data.partition != FOLDERS or not self.num_partitions or self.data_path:
            return self
        folder = client_folders(data.data_dir, self.num_partitions)[self.partition_id]
        mine = {"name": folder.name, "data_path": str(folder)}
        return self.model_copy(update={**mine, "partition_id": -1, "num_partitions": 0})

    def own_data(self, data: DataSettings, *, by_task: bool = False) -> Path | None:
        """Return the file or folder with data of its own.

        Parameters
        ----------
        data : DataSettings
            Of the run.
        by_task : bool
            Whether the run has a task: then a folder is read as a whole, and no set has
            to be there by name.

        Returns
        -------
        Path or None
            ``data-path``. Without it what goes by the data set's name in the
            ``data-dir`` that the device itself says, and with a task that folder. None
            for a share of a data set and for all of a set that ships with the app,
            where the run has no task.

        Raises
        ------
        SettingsError
            If the run has a task, and the device does not say where its data lie.
        """
        if self.data_path is not None:
            return Path(self.data_path).expanduser()
        if self.num_partitions and self.data_dir is None:
            if by_task:
                raise SettingsError(
                    refusals.of_share(self.partition_id, self.num_partitions)
                )
            return None
        folder = Path(self.data_dir or data.data_dir).expanduser()
        names = own_files(data.dataset, data.reader, alone=not self.num_partitions)
        found = next((p for name in names if (p := folder / name).exists()), None)
        if found is not None or not by_task:
            return found
        if self.data_dir:
            return folder
        raise SettingsError(
            "node configuration: data-path is missing: the file or folder with this "
            "device's data"
        )

    def client(self, node_id: int) -> str:
        """Return the name the server knows it by.

        Parameters
        ----------
        node_id : int
            Flower's number of this node. It stands for the name of a device with data
            of its own that was given none; see :data:`NAMELESS`.
        """
        if self.name:
            return self.name
        # Who has all of a set, in a place of its own, shares it with nobody.
        alone = self.num_partitions == 1 and self.data_dir is not None
        own = self.data_path is not None or not self.num_partitions or alone
        return f"node-{node_id}" if own else f"client-{self.partition_id}"


NAMELESS = (
    "this device has no name of its own and is another one after every start: say "
    "name in its node configuration"
)
"""What a device is told that goes by Flower's number of its node."""

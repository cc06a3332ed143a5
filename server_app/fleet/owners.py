"""What the owners of devices allow: a list the server goes by, not by a device's word.

The list is the fleet's ``fleet.json`` or a file of the same form; it holds no secret,
so that a server in a container needs nothing else of the fleet's directory::

    {"size": 10,
     "devices": {"pi0": {"partition_id": 0, "expert_cap": 2, "memory": 1000000000}}}

The fleet's unit and compose file name it in the environment (:data:`VARIABLE`), so that
it counts whatever a run's settings leave out.

What it does not say is up to the device, as everything is without a list. A device on
the list can ask for less than it is allowed, never for more.
"""

import logging
import os
from functools import partial
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import SettingsError
from common.files import version
from common.newest import Newest
from common.settings.run_settings import RunSettings
from common.settings.section import first_problem
from common.wire import QueryReply

logger = logging.getLogger("flwr.expertfleet")

VARIABLE = "EXPERTFLEET_OWNERS"
"""In the environment of a ServerApp: the list, where ``fleet-list`` names none."""


class Allowance(BaseModel):
    """What one device may have; 0 or None where that is its own business."""

    model_config = ConfigDict(frozen=True)

    partition_id: int | None = Field(None, ge=0)
    expert_cap: int = Field(0, ge=0)
    memory: int = Field(0, ge=0)


class _File(BaseModel):
    model_config = ConfigDict(frozen=True)

    size: int | None = Field(None, ge=1)
    devices: dict[str, Allowance]


class Owners:
    """The list, as it is now.

    Parameters
    ----------
    path : Path or None
        None: there is no list, and devices are believed.
    admit_unknown : bool
        Whether a device that is not on the list takes part, as one that is allowed
        nothing in particular.

    Raises
    ------
    SettingsError
        If there is a path, and no list that can be read.
    """

    def __init__(self, path: Path | None, *, admit_unknown: bool) -> None:
        self._admit_unknown = admit_unknown
        self._list: Newest[_File] | None = None
        if path is not None:
            self._list = Newest(
                "the list read before",
                partial(version, path),
                partial(_read, path),
                SettingsError,
                logger,
            )

    @classmethod
    def of(cls, settings: RunSettings) -> Self:
        """Return what the settings name, else what the server's environment does."""
        named = settings.fleet_list or os.environ.get(VARIABLE, "")
        path = Path(named) if named else None
        return cls(path, admit_unknown=settings.unknown_clients == "admit")

    def refresh(self) -> bool:
        """Read the list again if it has changed, and keep it where that fails.

        Returns
        -------
        bool
            Whether there is a new one.
        """
        return self._list is not None and self._list.refresh()

    def refusal(self, claimed: QueryReply) -> str:
        """Return why a device may not take part; empty if it may."""
        if self._list is None:
            return ""
        allowance = self._list.value.devices.get(claimed.client)
        if allowance is None:
            return "" if self._admit_unknown else "it is not on the list in fleet-list"
        share, size = allowance.partition_id, self._list.value.size
        shares = size or claimed.num_partitions
        if not claimed.num_partitions:  # with data of its own it takes nobody's share
            return ""
        if share is None or (claimed.partition_id, claimed.num_partitions) == (
            share,
            shares,
        ):
            return ""
        return (
            f"it says it has share {claimed.partition_id} of {claimed.num_partitions}, "
            f"its owner gave it share {share} of {shares}"
        )

    def allowed(self, claimed: QueryReply) -> QueryReply:
        """Return what a device says of itself, with its owner's word where that counts.

        The cap is the owner's alone: a device's own is what it asks for, see
        :meth:`most`.
        """
        if self._list is None:
            return claimed
        allowance = self._list.value.devices.get(claimed.client, Allowance())
        changes = {"expert_cap": allowance.expert_cap}
        if memory := allowance.memory:
            said = claimed.memory_available
            changes["memory_available"] = memory if said is None else min(said, memory)
            changes["memory_bytes"] = min(claimed.memory_bytes or memory, memory)
        return claimed.model_copy(update=changes)

    def most(self, claimed: QueryReply) -> float:
        """Return the most experts a device asks for; infinity where it may not say."""
        asked = claimed.expert_cap if self._list is not None else 0
        return asked or float("inf")


def _read(path: Path) -> _File:
    try:
        return _File.model_validate_json(path.read_bytes())
    except OSError as error:
        raise SettingsError(
            f"fleet-list = {str(path)!r} cannot be read: {error.strerror}"
        ) from None
    except ValidationError as error:
        raise SettingsError(
            f"fleet-list = {str(path)!r} is damaged: {first_problem(error)}"
        ) from None

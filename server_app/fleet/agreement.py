"""The task of a run as its clients are told it.

Its scale may have to be worked out of what all devices have: then it is fixed once,
before the first round, and kept; who comes later does not move it. Who is admitted is
up to ``server_app.fleet.admission``.
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from flwr.app import RecordDict

from common import wire
from common.data import fingerprint
from common.errors import SettingsError
from common.seeding import derive
from common.settings import Settings
from common.shape import dataset_of, server_task
from common.task import Fixed, Task, task_from_json
from common.wire import QueryReply
from server_app.fleet.fleet_scale import FleetRange, misfits
from server_app.fleet.same_data import servers_test_set
from server_app.fleet.stated import stated_moments

logger = logging.getLogger("flwr.expertfleet")

_NAMED = 6


class Agreement:
    """What server and clients agree on.

    Parameters
    ----------
    settings : Settings
    projections : int
        Of the samples, of which the strategy wants to know class means; 0 for none.
    base : str
        Version of the frozen base of the model; "" for none.

    Attributes
    ----------
    projections : int
        As given.
    fleet_range : FleetRange or None
        What the scale was worked out of; None before, and where it was known at once.

    Raises
    ------
    SettingsError
        If the scale is to be worked out of what clients shall not say.
    """

    def __init__(
        self, settings: Settings, projections: int = 0, base: str = ""
    ) -> None:
        self._settings = settings
        self._base = base
        self.projections = projections
        self.fleet_range: FleetRange | None = None
        if settings.privacy.leaves_out and self.task.needs_moments:
            raise SettingsError(
                'private-reports = "leave-out" is not allowed with a scale that is '
                "worked out of the devices' samples: give the task a fixed scale"
            )

    @cached_property
    def task(self) -> Task:
        """The task; its scale may still be to be worked out."""
        return server_task(self._settings)

    @property
    def of_own_data(self) -> bool:
        """Whether every device has data of its own."""
        return bool(self._settings.data.task)

    @cached_property
    def data_hash(self) -> str:
        """Hash of the server's data set; "" if it has none."""
        if self.of_own_data:
            return ""
        return fingerprint(dataset_of(self._settings)).train

    def one_test_set(self, profiles: Iterable[QueryReply]) -> bool:
        """Whether clients all have the server's test set.

        Only then does a mean of their accuracies on it (``client_global``) say
        anything.
        """
        return all(servers_test_set(profile, self._settings) for profile in profiles)

    @property
    def told_classes(self) -> tuple[str, ...]:
        """The classes of which devices tell whether they have any sample."""
        return () if self._settings.data.private_counts else self.task.classes

    def query(self) -> RecordDict:
        """Return the content of a query."""
        # Exact in the float64 of any other language.
        seed = derive(self._settings.run.seed, "statistic") % 2**53
        asked = wire.Query(
            task=self.task.to_json(),
            data_hash=self.data_hash,
            statistic_seed=seed if self.projections else None,
            projections=self.projections,
            base=self._base or None,
        )
        return wire.encode_query(asked)

    def told(self, profile: QueryReply) -> str:
        """Return the task as an order to a client states it.

        Who has the server's data set has it from there.
        """
        return "" if profile.num_partitions else self.task.to_json()

    def misfits(self, said: Mapping[int, QueryReply]) -> dict[int, str]:
        """Return who cannot have the scale of the others, with the reason, by node.

        Parameters
        ----------
        said : mapping of int to QueryReply
            The last word of every node, also of those refused for this: the first to
            come may be the one that is wrong.
        """
        stated = {node: stated_moments(profile) for node, profile in said.items()}
        known = {node: each for node, each in stated.items() if each is not None}
        if self.fleet_range is None:
            return misfits(known, self.task) if self.task.needs_moments else {}
        found = {n: self.fleet_range.misfit(m, self.task) for n, m in known.items()}
        return {node: reason for node, reason in found.items() if reason}

    def settle(self, said: Sequence[QueryReply]) -> str:
        """Fix the scale for the whole run, if it is to be worked out.

        Parameters
        ----------
        said : sequence of QueryReply
            Of all who take part. They are merged in the order of their names: which of
            them answered first does not matter.

        Returns
        -------
        str
            What there is to say of the samples of all; "" if nothing.
        """
        if not self.task.needs_moments:
            return ""
        stated = [stated_moments(p) for p in sorted(said, key=lambda p: p.client)]
        self.fleet_range = FleetRange.of([each for each in stated if each is not None])
        self.task = self.task.scaled_by(self.fleet_range.moments)
        logger.info(
            "scale of this run, of the %d training samples of %d devices: %s",
            sum(profile.num_examples for profile in said),
            len(said),
            self._scale_in_words(),
        )
        return self.fleet_range.constant(self.task)

    def warning(self, profile: QueryReply) -> str:
        """Return why the scale may be wrong for a device; "" if nothing says so."""
        stated = stated_moments(profile)
        if self.fleet_range is None or stated is None:
            return ""
        return self.fleet_range.warning(stated, self.task)

    def _scale_in_words(self) -> str:
        task, scale = self.task, self.task.scale
        if not isinstance(scale, Fixed):
            return str(scale)
        plain = task.plain_channels or (False,) * task.num_channels
        channels = zip(task.channel_names, scale.mean, scale.std, plain, strict=True)
        told = [
            f"{name} {mean * task.full:.4g} +- {std * task.full:.4g}"
            for name, mean, std, stays in channels
            if not stays
        ]
        more = f" and {len(told) - _NAMED} more" if len(told) > _NAMED else ""
        return ", ".join(told[:_NAMED]) + more

    @property
    def largest_answer(self) -> int:
        """The most bytes a correct answer to a query has."""
        return wire.most_query_bytes(
            self.task.num_classes, self.task.num_channels, self.projections
        )

    def facts(self) -> dict[str, Any]:
        """Return the task as ``run.json`` has it."""
        facts: dict[str, Any] = json.loads(self.task.to_json())
        return facts

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        known = self.fleet_range
        return {
            "task": self.task.to_json(),
            "range": None if known is None else known.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore it; raises SettingsError if it is no task."""
        self.task = task_from_json(state["task"])
        known = state["range"]
        self.fleet_range = None if known is None else FleetRange.restored(known)

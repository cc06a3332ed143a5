"""From what a device says and shows of itself to the experts it may hold.

Memory counts wherever a device reports it: more than fits is never assigned. Time and
link are measured with a clock, so they count only if ``train-seconds`` and
``upload-seconds`` ask for it: without them a run does not depend on any clock.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf, isfinite

import numpy as np

from common.cost import (
    Costs,
    training_copies,
    training_memory,
    training_work,
    upload,
)
from common.local_method import PLAIN, LocalMethod
from common.moe import ModelSpec
from common.settings import Settings
from common.shape import dataset_of, test_samples
from common.wire import QueryReply
from server_app.fleet.capacity import affordable, budgets
from server_app.fleet.client import Link


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How many experts each resource affords; infinity where it is unknown."""

    memory: float = inf
    time: float = inf
    uplink: float = inf

    def __str__(self) -> str:
        """Name those that limit anything."""
        known = ((name, value) for name, value in vars(self).items() if isfinite(value))
        return ", ".join(f"{name} {value:.0f}" for name, value in known) or "none"


class DeviceBudget:
    """Budgets of the devices of one run.

    Parameters
    ----------
    settings : Settings
    spec : ModelSpec
        What is trained.
    largest : int
        No budget exceeds it.
    method : LocalMethod
        How it is trained.
    private_parts : iterable of str
        What of it is not sent.
    widths : sequence of float
        Share of the channels that a device with a budget of 1, 2, ... trains; empty
        where a budget is a number of experts.
    """

    def __init__(
        self,
        settings: Settings,
        spec: ModelSpec,
        largest: int,
        *,
        method: LocalMethod = PLAIN,
        private_parts: Iterable[str] = (),
        widths: Sequence[float] = (),
    ) -> None:
        self._settings = settings
        self._spec = spec
        self._largest = largest
        self._method = method
        self._private = tuple(private_parts)
        self._widths = tuple(widths)

    def __call__(self, tier: int, profile: QueryReply, link: Link) -> int:
        """Return k_c; 0 for a device that has not the memory for one expert."""
        limits = self.limits(profile, link)
        # Too slow for one expert is late; too small for one expert is dead.
        timed = (max(1, limits.time), max(1, limits.uplink))
        [allowed] = budgets(
            [tier], [profile.expert_cap], self._largest, [limits.memory], *timed
        )
        return int(allowed)

    def holds_everything(self, profile: QueryReply) -> bool:
        """Whether a device can hold all experts at once, whatever its tier is.

        By its owner's word if there is one, else by its memory; what nobody knows
        limits nothing.
        """
        most = len(self._widths) or self._spec.num_experts
        if profile.expert_cap:
            return profile.expert_cap >= most
        return self.limits(profile, Link()).memory >= most

    def limits(self, profile: QueryReply, link: Link) -> Limits:
        """Return what memory, time and uplink afford."""
        rounds, margin = self._settings.rounds, self._settings.rounds.capacity_margin
        speed, uplink = profile.flops_per_second, profile.uplink or link.speed
        epochs = self._method.passes(self._settings.training.local_epochs)
        passes = profile.num_examples * epochs
        operations = speed * rounds.train_seconds / max(1, passes)
        return Limits(
            memory=affordable(profile.memory_available, self.memory(profile), margin),
            time=affordable(operations or None, self._work, margin),
            uplink=affordable(
                uplink * rounds.upload_seconds or None, self._upload, margin
            ),
        )

    @cached_property
    def _work(self) -> Costs:
        return self._costs(training_work)

    @cached_property
    def _upload(self) -> Costs:
        return self._costs(self._sent)

    def _costs(self, of: Callable[[ModelSpec], Costs]) -> Costs:
        """Return what a budget of 1, 2, ... takes, by a formula of ``common.cost``."""
        if not self._widths:
            return of(self._spec)
        narrow = (replace(self._spec, width=width) for width in self._widths)
        return np.array([of(spec)[0] for spec in narrow])

    def _sent(self, spec: ModelSpec) -> Costs:
        return upload(spec, self._settings.wire.upload_dtype, self._private)

    def memory(self, profile: QueryReply) -> Costs:
        """Return the bytes a device's process reaches with each budget, shape (E,)."""
        if profile.memory_available is None:
            return np.zeros(0)

        def of(spec: ModelSpec) -> Costs:
            return training_memory(
                spec,
                batch=self._settings.training.batch_size,
                train_samples=profile.num_examples,
                test_samples=self._test_samples,
                more_copies=training_copies(self._settings.training, self._method),
                candidates=self._method.candidates,
            )

        return (profile.process_bytes or 0) + self._costs(of)

    @cached_property
    def _test_samples(self) -> int:
        if self._settings.data.task:  # devices are sent none
            return 0
        return len(test_samples(self._settings, dataset_of(self._settings))[1])

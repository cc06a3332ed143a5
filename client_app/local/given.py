"""What a method is given, what it answers with, and the steps that methods share."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import nn

from client_app.local_round import objective_of, train_locally, training_stream
from client_app.session import Session
from client_app.statistics import LocalResult
from client_app.training import Beside, Objective
from common.moe import GATE, MoEModel, Vector
from common.wire import TrainOrder


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a method starts from.

    Attributes
    ----------
    session : Session
    order : TrainOrder
    model : MoEModel
        With the parts received and the seeded initial values of all others.
    received : mapping of str to vector
        The parts that came, by name.
    kept : vector or None
        What the client kept of an earlier round; None if it kept nothing.
    """

    session: Session
    order: TrainOrder
    model: MoEModel
    received: Mapping[str, Vector]
    kept: Vector | None = None

    @cached_property
    def objective(self) -> Objective:
        """The local objective that the order asks for."""
        return objective_of(self.session, self.order)

    @cached_property
    def rng(self) -> np.random.Generator:
        """The random stream of this round; each use goes on where the last ended."""
        return training_stream(self.session, self.order.server_round)

    def fit(
        self,
        parts: Iterable[str] | None = None,
        *,
        epochs: int | None = None,
        objective: Objective | None = None,
        beside: Beside | None = None,
    ) -> LocalResult:
        """Train the model, or only some parts of it, as the objective asks.

        Parameters
        ----------
        epochs : int, optional
            ``local-epochs`` if left out.
        objective : Objective, optional
            The order's if left out.
        beside : callable, optional
            See :func:`client_app.training.train`.
        """
        with only(self.model, parts):
            return train_locally(
                self.model,
                self.session,
                objective or self.objective,
                self.rng,
                epochs=epochs,
                beside=beside,
            )

    def changes(self) -> dict[str, Vector]:
        """Return what training has changed of the parts that are sent back."""
        changes = self.model.vectors(self.order.shared_parts())
        for name, vector in changes.items():
            vector -= self.received[name]
        return changes

    def keep_share(self) -> None:
        """Leave the model its share of what changed in the parts that are shared."""
        if self.order.keep_share == 1:  # its bits stay as they are
            return
        share = np.float32(self.order.keep_share)
        own = {
            name: self.received[name] + share * change
            for name, change in self.changes().items()
        }
        if self.order.mixes == "sum":  # its gate began at 0
            own[GATE] = share * self.model.vectors([GATE])[GATE]
        self.model.load(own)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What came of a round.

    Attributes
    ----------
    result : LocalResult
        Statistics of what is shared.
    changes : dict of str to vector
        What is sent, by part.
    kept : vector or None
        What stays for the next round; None for nothing.
    own : bool
        Whether the model is one of the client's own by now, and no longer the shared
        one, of whose change the client uses its share (``client-keep``).
    """

    result: LocalResult
    changes: dict[str, Vector]
    kept: Vector | None = None
    own: bool = False


@contextmanager
def only(model: MoEModel, parts: Iterable[str] | None) -> Iterator[None]:
    """Freeze all parameters within but those of some parts; None freezes nothing."""
    frozen: list[nn.Parameter] = []
    if parts is not None:
        modules, trained = model.parts(), set()
        for part in parts:
            trained |= {id(parameter) for parameter in modules[part].parameters()}
        frozen = [
            parameter
            for parameter in model.parameters()
            if parameter.requires_grad and id(parameter) not in trained
        ]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


def joined(model: MoEModel, parts: Iterable[str]) -> Vector:
    """Return parts as one vector, one after the other."""
    vectors = model.vectors(parts)
    return np.concatenate([np.zeros(0, np.float32), *vectors.values()])


def put(model: MoEModel, parts: Iterable[str], vector: Vector) -> None:
    """Load what :func:`joined` gave."""
    start = 0
    for part in parts:
        stop = start + model.spec.size(part)
        model.load({part: vector[start:stop]})
        start = stop

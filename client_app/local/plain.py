"""Plain training: all that the order names, for ``local-epochs``.

Private parts are trained with the rest and stay (FedPer, FedBN; with all parts private,
local training).
"""

from client_app.local.given import Given, Trained, joined, put
from common.moe import ModelSpec, Vector
from common.wire import TrainOrder


def size(spec: ModelSpec, order: TrainOrder) -> int:
    """Return the values of the private parts."""
    return sum(spec.size(part) for part in order.private_parts)


def recall(given: Given) -> None:
    """Load the private parts; who has none goes on from the seeded initial ones."""
    if given.kept is not None:
        put(given.model, given.order.private_parts, given.kept)


def train(given: Given) -> Trained:
    """Train everything at once."""
    recall(given)
    result = given.fit()
    changes = given.changes()
    return Trained(result=result, changes=changes, kept=private(given))


def private(given: Given) -> Vector | None:
    """Return the private parts as one vector, None if there are none."""
    parts = given.order.private_parts
    return joined(given.model, parts) if parts else None

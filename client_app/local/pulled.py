"""Ditto: beside the shared model a model of its own, pulled to what was received.

    w_c <- w, trained for local-epochs                        (sent)
    v   <- v - lr (grad F_c(v) + lambda (v - w))              (kept)

w is what was received, not what the client made of it. v runs for ``personal_epochs``;
a client that has none yet starts it from w.
"""

from dataclasses import replace

from client_app.local.given import Given, Trained, joined, put
from common.moe import ModelSpec
from common.wire import TrainOrder


def size(spec: ModelSpec, order: TrainOrder) -> int:
    """Return the values of v."""
    return sum(spec.size(part) for part in order.shared_parts())


def recall(given: Given) -> None:
    """Load v; who has none answers with w."""
    if given.kept is not None:
        put(given.model, given.order.shared_parts(), given.kept)


def train(given: Given) -> Trained:
    """Train w, then v."""
    model, order = given.model, given.order
    parts = order.shared_parts()
    received = [p.detach().clone() for p in model.parameters() if p.requires_grad]
    result = given.fit()
    changes = given.changes()
    model.load({part: given.received[part] for part in parts})
    recall(given)
    if order.personal_epochs:
        pulled = replace(given.objective, proximal=order.pull, anchor=received)
        given.fit(epochs=order.personal_epochs, objective=pulled)
    kept = joined(model, parts)
    return Trained(result=result, changes=changes, kept=kept, own=True)

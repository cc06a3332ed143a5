"""Alternating training: first what is private, then what is shared (FedRep).

``personal_epochs`` epochs of the private parts with all others frozen, then
``local-epochs`` of the others with the private ones frozen.
"""

from client_app.local import plain
from client_app.local.given import Given, Trained
from client_app.statistics import LocalResult

size, recall = plain.size, plain.recall


def train(given: Given) -> Trained:
    """Train the private parts, then the shared ones; one of them may be nothing."""
    order, shared = given.order, given.order.shared_parts()
    recall(given)
    result: LocalResult | None = None
    if order.private_parts and order.personal_epochs:
        result = given.fit(order.private_parts, epochs=order.personal_epochs)
    if shared or result is None:
        result = given.fit(shared)
    changes = given.changes()
    return Trained(result=result, changes=changes, kept=plain.private(given))

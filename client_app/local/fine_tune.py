"""Fine-tuning: what is sent is as in plain training; then some epochs for own use.

The next round starts from what is received again: nothing of it is sent or kept.
"""

from client_app.local import plain
from client_app.local.given import Given, Trained

size, recall = plain.size, plain.recall


def train(given: Given) -> Trained:
    """Train, note what is sent, and go on training for ``personal_epochs``."""
    recall(given)
    result = given.fit()
    changes, kept = given.changes(), plain.private(given)
    if given.order.personal_epochs:
        given.fit(epochs=given.order.personal_epochs)
    return Trained(result=result, changes=changes, kept=kept)

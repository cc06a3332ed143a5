"""How a client trains in a round: one module for each method an order may name.

A method is given the model with the parts that were received, and what it kept itself;
it answers with what is sent, what is kept, and statistics, and leaves in the model what
the client uses itself: that is measured and saved on the device.

Not here: messages and files (``client_app.app``, ``client_app.kept``), and the steps of
training (``client_app.training``).
"""

from typing import Protocol

from client_app.local import alternating, fine_tune, mixture, plain, pulled
from client_app.local.given import Given, Trained
from common.local_method import MethodName
from common.moe import ModelSpec
from common.wire import TrainOrder

__all__ = ["BY_NAME", "Given", "Method", "Trained"]


class Method(Protocol):
    """What each of these modules has."""

    def size(self, spec: ModelSpec, order: TrainOrder) -> int:
        """Return how many values are kept between rounds, 0 for nothing."""

    def recall(self, given: Given) -> None:
        """Make the model the client's own, as the last round left it."""

    def train(self, given: Given) -> Trained:
        """Train; the model ends as the client's own."""


BY_NAME: dict[MethodName, Method] = {
    "plain": plain,
    "fine-tune": fine_tune,
    "alternating": alternating,
    "ditto": pulled,
    "apfl": mixture,
}

"""What the server can measure by itself: its own predictor on the global test set."""

import torch
from flwr.app import ArrayRecord, MetricRecord

from common.config import Settings
from common.data import Dataset
from common.shape import test_samples
from server_app.strategies.base import ExpertStrategy

BATCH = 512


class ServerEvaluation:
    """Measures ``server_global`` (METHODS 1); called by the round loop.

    Parameters
    ----------
    strategy : ExpertStrategy
        Whose ``global_model`` is evaluated.
    dataset : Dataset
    settings : Settings
        ``test-samples`` limits the global test set.
    """

    def __init__(
        self, strategy: ExpertStrategy, dataset: Dataset, settings: Settings
    ) -> None:
        x, y = test_samples(settings, dataset)
        self._strategy = strategy
        self._x = torch.from_numpy(dataset.normalise(x))
        self._y = torch.from_numpy(y.copy())

    @torch.inference_mode()
    def __call__(self, server_round: int, arrays: ArrayRecord) -> MetricRecord:
        """Return the accuracy of the server's predictor after a round."""
        model = self._strategy.global_model().eval()
        correct = 0
        for x, y in zip(self._x.split(BATCH), self._y.split(BATCH), strict=True):
            correct += int((model(x).argmax(1) == y).sum())
        return MetricRecord({"server_global": correct / len(self._y)})

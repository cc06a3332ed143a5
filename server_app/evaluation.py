"""What the server can measure by itself, on the global test set.

Its own predictor, and what each expert alone recognises. The experts are those of the
global model, without any gate.
"""

from collections.abc import Callable

import numpy as np
import torch
from flwr.app import ArrayRecord, MetricRecord
from numpy.typing import NDArray

from common.config import Settings
from common.data import Dataset
from common.moe import COMMON, GATE, MoEModel
from common.moe.cost import evaluation_batch
from common.shape import device_of, test_samples
from server_app.strategies.base import ExpertStrategy


class ServerEvaluation:
    """Measures ``server_global`` (METHODS 1); called by the round loop.

    Parameters
    ----------
    strategy : ExpertStrategy
        Whose ``global_model`` is evaluated.
    dataset : Dataset
    settings : Settings
        ``test-samples`` limits the global test set.
    learned : callable, optional
        Is given what each expert recognises, shape (E, K), see :func:`expert_recall`.
    """

    def __init__(
        self,
        strategy: ExpertStrategy,
        dataset: Dataset,
        settings: Settings,
        learned: Callable[[NDArray[np.float64]], None] | None = None,
    ) -> None:
        x, y = test_samples(settings, dataset)
        self._strategy = strategy
        self._learned = learned
        self._device = device_of(settings)
        self._x = torch.from_numpy(dataset.normalise(x)).to(self._device)
        self._y = torch.from_numpy(y.copy()).to(self._device)

    @torch.inference_mode()
    def __call__(self, server_round: int, arrays: ArrayRecord) -> MetricRecord:
        """Return the accuracy of the server's predictor after a round."""
        model = self._strategy.global_model().to(self._device).eval()
        correct, size = 0, evaluation_batch(self._strategy.spec)
        for x, y in zip(self._x.split(size), self._y.split(size), strict=True):
            correct += int((model(x).argmax(1) == y).sum())
        if self._learned is not None and (experts := bare_experts(self._strategy)):
            self._learned(expert_recall(experts.to(self._device), self._x, self._y))
        return MetricRecord({"server_global": correct / len(self._y)})


def bare_experts(strategy: ExpertStrategy) -> MoEModel | None:
    """Return extractor and experts of the global model, its gate not loaded.

    None for a strategy that keeps its experts in another form (Fed-MoE), and for
    experts inside an encoder, which recognise nothing by themselves.
    """
    spec, published = strategy.spec, strategy.published()
    if spec.encoder is not None:
        return None
    names = [name for name in spec.part_names() if name not in (COMMON, GATE)]
    if any(name not in published for name in names):
        return None
    model = spec.build(range(spec.num_experts))
    model.load({name: published[name] for name in names})
    return model.eval()


def expert_recall(
    model: MoEModel, x: torch.Tensor, y: torch.Tensor
) -> NDArray[np.float64]:
    """Return the share of every class that each expert alone gets right.

    Parameters
    ----------
    model : MoEModel
        Holding the experts to measure.
    x : Tensor, shape (n, *input_shape)
    y : Tensor of int, shape (n,)

    Returns
    -------
    ndarray, shape (E, K)
        NaN for a class without samples.
    """
    experts, classes = list(model.moe.experts.values()), model.spec.num_classes
    right = torch.zeros(len(experts), classes, dtype=torch.float64, device=y.device)
    size = evaluation_batch(model.spec)
    for inputs, labels in zip(x.split(size), y.split(size), strict=True):
        features = model.moe.scale * model.extractor(inputs)
        for row, expert in zip(right, experts, strict=True):
            hits = labels[expert(features).argmax(1) == labels]
            row += torch.bincount(hits, minlength=classes)
    # 0 / 0 is NaN: nothing is known about a class that was not tested.
    return (right / torch.bincount(y, minlength=classes)).cpu().numpy()

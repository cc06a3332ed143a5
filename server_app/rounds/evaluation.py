"""What the server can measure by itself, on the global test set.

Its own predictor, and what each expert alone recognises. The experts are those of the
global model, without any gate.
"""

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, MetricRecord
from numpy.typing import NDArray

from common.cost import evaluation_batch
from common.data import model_input
from common.moe import COMMON, GATE, MoEModel
from common.moe.counting import count_answers
from common.own.own_data import OwnData, open_own_data
from common.settings import Settings
from common.shape import dataset_of, device_of, test_samples, tokeniser_for
from common.task import Task
from server_app.contract import Algorithm
from server_app.fleet.agreement import Agreement
from server_app.rounds.measuring import SERVER, Evaluate, metrics_of

Recall = NDArray[np.float64]
Learned = Callable[[Callable[[], Recall | None]], None]


def server_evaluation(
    strategy: Algorithm, agreement: Agreement, learned: Learned | None = None
) -> Evaluate | None:
    """Return what measures the global model; None where the server has no test set.

    Parameters
    ----------
    agreement : Agreement
        Its task's scale may become known only when clients have been asked.
    learned : callable, optional
        See :class:`ServerEvaluation`.
    """
    settings = strategy.settings
    if not settings.data.task:
        dataset = dataset_of(settings)
        x, y = test_samples(settings, dataset)
        return ServerEvaluation(strategy, dataset.normalise(x), y, learned)
    if (own := own_test_set(settings, agreement.task)) is None:
        return None

    @cache
    def measure() -> ServerEvaluation:
        task = agreement.task  # its scale is known by now
        x = model_input(own.x, task.input_shape, task.normaliser, task.model_kind)
        return ServerEvaluation(strategy, x, own.y, learned)

    return lambda server_round, arrays: measure()(server_round, arrays)


def own_test_set(settings: Settings, task: Task) -> OwnData | None:
    """Return the server's own test set, ``test-data``; None if it has none.

    All of it is for testing, whatever its folders are called.

    Raises
    ------
    DataError
        If nothing of it can be used.
    """
    if not settings.data.test_data:
        return None
    path = Path(settings.data.test_data)
    return open_own_data(path, task, tokeniser_for(settings), None)


class ServerEvaluation:
    """Measures ``server_global`` (docs/methods.md, 1); called by the round loop.

    Parameters
    ----------
    strategy : Algorithm
        Whose ``global_model`` is evaluated.
    x, y : ndarray
        The global test set: samples as the model takes them, and labels.
    learned : callable, optional
        Is given a function that measures what each expert recognises, shape (E, K),
        see :func:`expert_recall`, or None where experts recognise nothing alone.
    """

    def __init__(
        self,
        strategy: Algorithm,
        x: NDArray[Any],
        y: NDArray[np.int64],
        learned: Learned | None = None,
    ) -> None:
        self._strategy = strategy
        self._learned = learned
        self._device = device_of(strategy.settings)
        self._x = torch.from_numpy(x).to(self._device)
        self._y = torch.from_numpy(y.copy()).to(self._device)

    def __call__(self, server_round: int, arrays: ArrayRecord) -> MetricRecord:
        """Return the accuracy of the server's predictor, and what it is made of."""
        model = self._strategy.global_model()
        if self._device.type != "cpu":
            # A strategy of a user's may have returned what it computes with.
            model = deepcopy(model).to(self._device)
        spec = self._strategy.spec
        counts = count_answers(
            model.eval(),
            self._x,
            self._y,
            num_classes=spec.num_classes,
            batch=evaluation_batch(spec),
        )
        if self._learned is not None:
            self._learned(self._recall)
        return metrics_of(SERVER, counts)

    @torch.inference_mode()
    def _recall(self) -> Recall | None:
        experts = bare_experts(self._strategy)
        if experts is None:
            return None
        return expert_recall(experts.to(self._device), self._x, self._y)


def bare_experts(strategy: Algorithm) -> MoEModel | None:
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

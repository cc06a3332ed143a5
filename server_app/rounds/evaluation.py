"""What the server can measure by itself, on the global test set.

Its own predictor, what it would hand each client where devices differ, and what each
expert alone recognises. The experts are those of the
global model, without any gate.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, MetricRecord
from numpy.typing import NDArray
from torch import nn

from common.class_counts import ClassCounts, summed
from common.cost import evaluation_batch
from common.data import (
    PLAIN,
    ClientData,
    Dataset,
    Domain,
    parse_partition,
    seen_in,
)
from common.feature_table import cache_folder
from common.features import Features, identity_of_test
from common.moe import COMMON, GATE, MoEModel
from common.moe.counting import count_answers
from common.moe.described import alike
from common.own.own_data import OwnData, open_own_data
from common.settings import Settings
from common.settings.sizes import parse_bytes
from common.shape import (
    dataset_of,
    device_of,
    test_rows,
    test_samples,
    tokeniser_for,
)
from common.task import Task
from server_app.contract import Algorithm
from server_app.fleet.agreement import Agreement
from server_app.fleet.client import Client
from server_app.fleet.client_domains import domain_of
from server_app.rounds.measure_exchange import SERVED, SERVER, Evaluate, metrics_of

Recall = NDArray[np.float64]
Learned = Callable[[Callable[[], Recall | None]], None]


def server_evaluation(
    strategy: Algorithm,
    agreement: Agreement,
    learned: Learned | None = None,
    clients: Callable[[], Sequence[Client]] = tuple,
) -> Evaluate | None:
    """Return what measures the global model; None where the server has no test set.

    Parameters
    ----------
    agreement : Agreement
        Its task's scale may become known only when clients have been asked.
    learned : callable, optional
        See :class:`ServerEvaluation`.
    clients : callable
        Returns the clients known by now; asked where devices differ.
    """
    settings = strategy.settings
    if not settings.data.task:
        dataset = dataset_of(settings)
        x, y = test_samples(settings, dataset)
        if parse_partition(settings.data.partition).factors:
            return DomainEvaluation(strategy, dataset, x, y, learned, clients)
        found = _of_test_set(
            strategy, seen_in(PLAIN, dataset, *_whole(dataset)), dataset
        )
        return ServerEvaluation(strategy, found, y, learned)
    if (own := own_test_set(settings, agreement.task)) is None:
        return None

    @cache
    def measure() -> ServerEvaluation:
        task = agreement.task  # its scale is known by now
        scaled = replace(own, normaliser=task.normaliser)
        x = _inputs(strategy, scaled, np.arange(own.rows), own.rows_digest)
        return ServerEvaluation(strategy, x, own.y, learned)

    return lambda server_round, arrays: measure()(server_round, arrays)


def _inputs(
    strategy: Algorithm, data: ClientData, rows: NDArray[np.int64], identity: str
) -> NDArray[Any]:
    """Return samples as the model takes them; what is frozen is computed once."""
    limit = parse_bytes(strategy.settings.run.feature_cache)
    features = Features.of(strategy.spec, cache_folder(), limit)
    if features is None:
        return data.normalise(data.x[rows])
    kept, rows = features.rows_of(data, data.x, rows, identity)
    return features.data.normalise(kept[rows])


def _of_test_set(
    strategy: Algorithm, data: ClientData, dataset: Dataset
) -> NDArray[Any]:
    """Return what is measured of a whole test set, as clients of a domain have it."""
    rows = test_rows(strategy.settings, dataset.y_test)
    return _inputs(strategy, data, rows, identity_of_test(dataset))


def _whole(dataset: Dataset) -> tuple[NDArray[Any], NDArray[np.int64]]:
    return dataset.x_test, dataset.y_test


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
        """Return the accuracy of the server's predictor, and what it is made of.

        Nothing where the server has none.
        """
        found = self._measure()
        if self._learned is not None:
            self._learned(self._recall)
        return found

    def _measure(self) -> MetricRecord:
        if (model := self._strategy.global_model()) is None:
            return MetricRecord()
        return metrics_of(SERVER, self._count(model, self._x, self._y))

    def _count(self, model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> ClassCounts:
        if self._device.type != "cpu":
            # A strategy of a user's may have returned what it computes with.
            model = deepcopy(model).to(self._device)
        spec = self._strategy.spec
        return count_answers(
            model.eval(),
            x,
            y,
            num_classes=spec.num_classes,
            batch=evaluation_batch(spec),
        )

    @torch.inference_mode()
    def _recall(self) -> Recall | None:
        experts = bare_experts(self._strategy)
        if experts is None:
            return None
        return expert_recall(experts.to(self._device), self._x, self._y)


class DomainEvaluation(ServerEvaluation):
    """Measures where devices differ, on the test set as each domain has it.

    ``server_global`` is the mean over the domains of all clients, a domain with more
    of them counting more; ``class_counts`` are of the same answers, once for every
    client. ``served`` is the mean over clients of the accuracy of what the server would
    hand each of them (``Algorithm.serves``), in its own domain: none of them trains on
    it first. One domain's samples are turned at a time.

    Parameters
    ----------
    dataset : Dataset
    x, y : ndarray
        Its test samples as stored, and their labels.
    clients : callable
        Returns the clients known by now. While there is none, samples are as they are.
    """

    def __init__(
        self,
        strategy: Algorithm,
        dataset: Dataset,
        x: NDArray[Any],
        y: NDArray[np.int64],
        learned: Learned | None,
        clients: Callable[[], Sequence[Client]],
    ) -> None:
        plain = seen_in(PLAIN, dataset, *_whole(dataset))
        found = _of_test_set(strategy, plain, dataset)
        super().__init__(strategy, found, y, learned)
        self._dataset, self._labels = dataset, y
        self._clients = clients

    def _measure(self) -> MetricRecord:
        strategy, settings = self._strategy, self._strategy.settings
        if (model := strategy.global_model()) is None:
            return MetricRecord()
        rows: dict[Domain, list[int]] = {}
        for client in self._clients():
            domain = domain_of(settings, client.profile) or PLAIN
            rows.setdefault(domain, []).append(client.row)
        everybodys, served = [], 0.0
        for domain, members in (rows or {PLAIN: []}).items():
            x, y = self._tensors_in(domain)
            common = self._count(model, x, y)
            everybodys.append(common.times(max(1, len(members))))
            for which, times in Counter(map(strategy.serves, members)).items():
                handed = strategy.served_model(which)
                counts = common
                if handed is not None and not alike(handed, model):
                    counts = self._count(handed, x, y)
                served += times * (counts.accuracy or 0.0)
        total = summed(everybodys)
        assert total is not None
        found = metrics_of(SERVER, total)
        if known := sum(map(len, rows.values())):
            found[SERVED] = served / known
        return found

    def _tensors_in(self, domain: Domain) -> tuple[torch.Tensor, torch.Tensor]:
        data = seen_in(domain, self._dataset, *_whole(self._dataset))
        x = torch.from_numpy(_of_test_set(self._strategy, data, self._dataset))
        y = domain.relabelled(self._labels).copy()
        return x.to(self._device), torch.from_numpy(y).to(self._device)


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
        seen = model.moe.scale * model.seen(inputs)
        for row, expert in zip(right, experts, strict=True):
            hits = labels[expert(seen).argmax(1) == labels]
            row += torch.bincount(hits, minlength=classes)
    # 0 / 0 is NaN: nothing is known about a class that was not tested.
    return (right / torch.bincount(y, minlength=classes)).cpu().numpy()

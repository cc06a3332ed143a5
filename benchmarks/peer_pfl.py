r"""The same clients in pfl-research's simulator, dense FedAvg of the whole mixture.

A second environment keeps its dependencies away from the project's::

    python3.11 -m venv PEER                 # the interpreter that .venv was made with
    PEER/bin/pip install --no-deps pfl multiprocess dill dp-accounting prv-accountant
    PYTHONPATH=.:.venv/lib/python3.11/site-packages \
      PEER/bin/python -m benchmarks.peer_pfl --data-dir DATA

It prints the seconds of a round, the first one left out, and of the bare loop that
trains the same clients (``benchmarks.side_by_side``), measured before and after.
"""

import argparse
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel
from torch import nn
from torch.nn import functional as F

from benchmarks.side_by_side import config_of
from benchmarks.stock_fedavg.stock_fedavg.app import settings_of, tensors_of, train
from common.config import Settings
from common.shape import dataset_of, model_spec


class Mixture(nn.Module):
    """The whole mixture with the loss pfl asks a model for."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        spec = model_spec(settings, dataset_of(settings))
        self.mixture = spec.build(range(spec.num_experts))
        self._balance = settings.model.gate_balance

    def loss(self, x: torch.Tensor, y: torch.Tensor, is_eval: bool = False) -> Any:
        """Return what every contender minimises."""
        self.train(not is_eval)
        routed = self.mixture(x)
        balance: torch.Tensor = self._balance * routed.balance_loss()
        return F.cross_entropy(routed.logits, y) + balance

    def metrics(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
        """Return nothing: no contender evaluates in the rounds that are timed."""
        return {}


class Clock(TrainingProcessCallback):  # type: ignore[misc]
    """Notes when every round ends."""

    def __init__(self) -> None:
        self.ended: list[float] = []

    def after_central_iteration(
        self, aggregate_metrics: Any, model: Any, *, central_iteration: int
    ) -> tuple[bool, Any]:
        """Note the time and go on."""
        self.ended.append(time.perf_counter())
        return False, Metrics()


def peer(settings: Settings, clients: int, rounds: int) -> list[float]:
    """Return the seconds of every round but the first."""
    data = {str(c): tensors_of(settings, c, clients) for c in range(clients)}
    users = FederatedDataset(
        lambda user: Dataset(raw_data=list(data[user]), user_id=user),
        get_user_sampler("minimize_reuse", list(data)),
    )
    rules = settings.training
    module = Mixture(settings)
    model = PyTorchModel(
        module,
        partial(
            torch.optim.SGD, momentum=rules.momentum, weight_decay=rules.weight_decay
        ),
        torch.optim.SGD(module.parameters(), 1.0),
    )
    clock = Clock()
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=rounds + 1,
            evaluation_frequency=10**6,
            train_cohort_size=clients,
            val_cohort_size=None,
        ),
        backend=SimulatedBackend(training_data=users, val_data=None),
        model=model,
        model_train_params=NNTrainHyperParams(
            local_num_epochs=rules.local_epochs,
            local_learning_rate=rules.lr,
            local_batch_size=rules.batch_size,
        ),
        model_eval_params=None,
        callbacks=[clock],
    )
    return [b - a for a, b in zip(clock.ended, clock.ended[1:], strict=False)]


def whole_mixture_floor(settings: Settings, clients: int, rounds: int) -> list[float]:
    """Return the seconds of the bare loop over the same whole mixtures."""
    spec = model_spec(settings, dataset_of(settings))
    data = [tensors_of(settings, number, clients) for number in range(clients)]
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        for x, y in data:
            train(spec.build(range(spec.num_experts)), x, y, settings)
        seconds.append(time.perf_counter() - started)
    return seconds


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--train-samples", type=int, default=6000)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--backbone", default="cnn")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--expert-hidden", type=int, default=512)
    parser.add_argument("--local-epochs", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings = settings_of(config_of(args))
    floor = whole_mixture_floor(settings, args.clients, args.rounds)
    theirs = peer(settings, args.clients, args.rounds)
    floor += whole_mixture_floor(settings, args.clients, args.rounds)
    base = median(floor)
    for name, seconds in (("bare loop, whole mixture", floor), ("pfl", theirs)):
        spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
        over = f"{100 * (median(seconds) / base - 1):+.0f} % over the bare loop"
        print(f"{name}: {median(seconds):.2f} s a round ({spread}), {over}")


if __name__ == "__main__":
    main()

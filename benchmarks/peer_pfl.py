r"""The same clients in pfl-research's simulator, dense FedAvg of the whole mixture.

A second environment keeps its dependencies away from the project's::

    python3.11 -m venv PEER                 # the interpreter that .venv was made with
    PEER/bin/pip install --no-deps pfl multiprocess dill dp-accounting prv-accountant
    PYTHONPATH=.:.venv/lib/python3.11/site-packages \
      PEER/bin/python -m benchmarks.peer_pfl --data-dir DATA

It prints the seconds of a round, the first one left out, and of the bare loop that
trains the same clients with the whole mixture, one round of it after each of pfl.
"""

import argparse
import time
from collections.abc import Callable
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
from client_app.device.allocator import keep_freed_memory
from common.settings import Settings
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


class Turns(TrainingProcessCallback):  # type: ignore[misc]
    """After each round of pfl, one of the bare loop; the seconds of both."""

    def __init__(self, loop: Callable[[], None]) -> None:
        self.rounds: list[float] = []
        self.loops: list[float] = []
        self._loop = loop
        self._started = time.perf_counter()

    def after_central_iteration(
        self, aggregate_metrics: Any, model: Any, *, central_iteration: int
    ) -> tuple[bool, Any]:
        """Note what the round took, time the loop and go on."""
        ended = time.perf_counter()
        self.rounds.append(ended - self._started)
        self._loop()
        self._started = time.perf_counter()
        self.loops.append(self._started - ended)
        return False, Metrics()


def in_turns(settings: Settings, clients: int, rounds: int) -> Turns:
    """Train the clients in pfl and, round by round, in a bare loop."""
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
    spec = model_spec(settings, dataset_of(settings))

    def loop() -> None:
        for x, y in data.values():
            train(spec.build(range(spec.num_experts)), x, y, settings)

    turns = Turns(loop)
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
        callbacks=[turns],
    )
    return turns


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
    keep_freed_memory()
    turns = in_turns(settings_of(config_of(args)), args.clients, args.rounds)
    floor, theirs = turns.loops[1:], turns.rounds[1:]
    base = median(floor)
    for name, seconds in (("bare loop, whole mixture", floor), ("pfl", theirs)):
        spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
        over = f"{100 * (median(seconds) / base - 1):+.0f} % over the bare loop"
        print(f"{name}: {median(seconds):.2f} s a round ({spread}), {over}")


if __name__ == "__main__":
    main()

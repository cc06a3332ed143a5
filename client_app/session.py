"""One client's view of a run: its name, its settings and its own data.

Built afresh for every message from the message's ``Context``, so that virtual clients
sharing a worker process share nothing but the read-only data set underneath.
"""

from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from flwr.app import Context
from numpy.typing import NDArray

from common.config import Settings
from common.data import (
    ClientData,
    Dataset,
    client_partition,
    load_client_data,
    parse_partition,
    partition_hash,
    share_moved,
)
from common.moe import ModelSpec
from common.seeding import stream
from common.shape import dataset_of, device_of, model_spec, test_samples
from common.wire import TrainOrder

Tensors = tuple[torch.Tensor, torch.Tensor]


class Session:
    """What one message handler needs to know about the client it acts for.

    Parameters
    ----------
    context : Context
        ``node_config`` holds ``partition-id`` and ``num-partitions``, and may hold
        ``name``, ``expert-cap``, ``memory-bytes``, ``flops-per-second``,
        ``uplink-bytes-per-second``, ``data-dir``, ``state-dir`` and ``pretrained`` of
        this device, which win over the run's settings and over what is measured.

    Attributes
    ----------
    server_round : int
        Of the message being handled, set as soon as it is known: drifting data depend
        on it. 0 outside a round.
    """

    def __init__(self, context: Context) -> None:
        self.server_round = 0
        node = context.node_config
        self.settings = Settings.from_run_config(context.run_config)
        if "data-dir" in node:
            data = self.settings.data.model_copy(
                update={"data_dir": str(node["data-dir"])}
            )
            self.settings = self.settings.model_copy(update={"data": data})
        if "pretrained" in node and self.settings.model.pretrained:
            model = self.settings.model.model_copy(
                update={"pretrained": str(node["pretrained"])}
            )
            self.settings = self.settings.model_copy(update={"model": model})
        self.partition_id = int(node["partition-id"])
        self.num_partitions = int(node["num-partitions"])
        self.client = str(node.get("name", f"client-{self.partition_id}"))
        self.node = dict(node)
        self.state_dir = str(node.get("state-dir", self.settings.run.state_dir))
        self.memory_cap = int(node.get("memory-bytes", 0))
        self.device = device_of(self.settings)

    @property
    def owns_machine(self) -> bool:
        """Whether what is measured here is this client's own to use.

        A simulation gives its virtual clients a share of the data and nothing else:
        they have one machine among them. A device at least has a name or a place of
        its own.
        """
        return not self.node.keys() <= {"partition-id", "num-partitions"}

    @property
    def true_capacity(self) -> int:
        """Experts of each layer it can hold: what its owner declared, else its tier."""
        if "expert-cap" in self.node:
            return int(self.node["expert-cap"])
        rng = stream(self.settings.run.seed, "capacity")
        tiers = self.settings.rounds.expert_capacity
        return int(tiers.budgets(self.num_partitions, rng)[self.partition_id])

    @property
    def reported_capacity(self) -> int:
        """What this device declares; wrong on purpose under ``capacity-error``.

        0 means not declared: the server goes by the tier it knows.
        """
        error = self.settings.stress.capacity_error
        if not error:
            return int(self.node.get("expert-cap", 0))
        rng = stream(self.settings.run.seed, "capacity-error", self.client)
        return max(1, round(self.true_capacity * (1 + rng.uniform(-error, error))))

    def suffer(self, order: TrainOrder) -> None:
        """Fail as the stress settings say; seeded, so that a run can be repeated.

        Raises
        ------
        ConnectionError
            This client drops out of this round.
        MemoryError
            It was sent more experts than it can hold, because it reported too much.
        """
        stress, seed = self.settings.stress, self.settings.run.seed
        path = ("drop-out", order.server_round, order.attempt, self.client)
        if stream(seed, *path).random() < stress.drop_out:
            raise ConnectionError(f"simulated drop-out of {self.client}")
        ordered = len(order.experts)
        can_hold = self.true_capacity * self.settings.model.num_layers
        if stress.capacity_error and ordered > can_hold:
            raise MemoryError(
                f"simulated: {self.client} can hold {can_hold} experts, not {ordered}"
            )

    @cached_property
    def dataset(self) -> Dataset:
        """The data set, shared and read-only."""
        return dataset_of(self.settings)

    @cached_property
    def spec(self) -> ModelSpec:
        """Shape of the full mixture."""
        return model_spec(self.settings, self.dataset)

    @cached_property
    def data(self) -> ClientData:
        """The client's own samples."""
        data = self.settings.data
        return load_client_data(
            self.dataset,
            parse_partition(data.partition),
            self.partition_id,
            self.num_partitions,
            self.settings.run.seed,
            held_out=data.held_out,
            reserved=data.reserved_samples,
            train_samples=data.train_samples,
            moved=share_moved(self.settings.stress.drift, self.server_round),
        )

    @property
    def num_examples(self) -> int:
        """Local training samples n_c."""
        return len(self.data.y_train)

    @property
    def partition_hash(self) -> str:
        """Hash of the partition this client's share was cut from."""
        data = self.settings.data
        return partition_hash(
            client_partition(
                self.dataset,
                parse_partition(data.partition),
                self.num_partitions,
                self.settings.run.seed,
                reserved=data.reserved_samples,
                train_samples=data.train_samples,
            )
        )

    def log_label_frequencies(self) -> torch.Tensor:
        """Return the log of the local training labels' frequencies, shape (C,).

        Half a sample is added to every class (Krichevsky and Trofimov, 1981): one that
        is not here is unlikely, not impossible.
        """
        counts = np.bincount(self.data.y_train, minlength=self.data.num_classes) + 0.5
        frequencies = np.log(counts / counts.sum()).astype(np.float32)
        return torch.from_numpy(frequencies).to(self.device)

    def train_tensors(self) -> Tensors:
        """Return local training inputs (n, *input_shape) and labels (n,)."""
        return self._tensors(self.data.x_train, self.data.y_train)

    def held_out_tensors(self) -> Tensors:
        """Return the client's own held-out inputs and labels."""
        return self._tensors(self.data.x_held_out, self.data.y_held_out)

    def test_tensors(self) -> Tensors:
        """Return the global test inputs and labels."""
        return _test_tensors(self.settings, self.dataset, self.device)

    def _tensors(self, x: NDArray[Any], y: NDArray[np.int64]) -> Tensors:
        return _as_tensors(self.dataset, x, y, self.device)


# Public, so all virtual clients of a process may share it; nothing private is kept.
@lru_cache(maxsize=1)
def _test_tensors(
    settings: Settings, dataset: Dataset, device: torch.device
) -> Tensors:
    return _as_tensors(dataset, *test_samples(settings, dataset), device)


def _as_tensors(
    dataset: Dataset, x: NDArray[Any], y: NDArray[np.int64], device: torch.device
) -> Tensors:
    images = torch.from_numpy(dataset.normalise(x)).to(device)
    return images, torch.from_numpy(y.copy()).to(device)

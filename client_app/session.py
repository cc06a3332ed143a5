"""One client's view of a run: its name, its settings and its own data.

Built afresh for every message from the message's ``Context``, so that virtual clients
sharing a worker process share nothing but the read-only data set underneath.
"""

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from flwr.app import Context
from numpy.typing import NDArray

from client_app.device.node import NodeConfig
from client_app.sample_tensors import Tensors, shared_test_tensors, tensors_of
from common.data import (
    ClientData,
    Dataset,
    Tokeniser,
    client_partition,
    fingerprint,
    load_client_data,
    parse_partition,
    partition_hash,
    share_moved,
)
from common.errors import DataError
from common.feature_table import cache_folder, not_kept
from common.features import Features, identity_of_train
from common.moe import ModelSpec
from common.own.own_data import OwnData, open_own_data
from common.seeding import stream
from common.settings import Settings
from common.settings.sizes import parse_bytes
from common.settings.training_settings import TrainingSettings
from common.shape import (
    dataset_of,
    device_of,
    model_spec,
    task_of_set,
    test_rows,
    tokeniser_for,
)
from common.task import Task
from common.wire import TrainOrder


class Session:
    """What one message handler needs to know about the client it acts for.

    Parameters
    ----------
    context : Context
        Its ``node_config`` is what ``client_app.device.node`` describes.
    task : Task, optional
        What the message says the samples are; None leaves it to the data set, which
        server and client have.
    server_data : str
        Hash of the data set of the server, where the message says it: then a device
        with a share of it finds out whether it has that very set.

    Raises
    ------
    SettingsError
        If the run's or the device's own configuration cannot be used.

    Attributes
    ----------
    node : NodeConfig
    server_data : str
        As given.
    features : Features or None
        Of the model that is ordered, where they are computed once: set when its base is
        in this process. Then inputs are features.
    server_round : int
        Of the message being handled, set as soon as it is known: drifting data depend
        on it. 0 outside a round.
    """

    def __init__(
        self, context: Context, task: Task | None = None, server_data: str = ""
    ) -> None:
        self.server_round = 0
        self.features: Features | None = None
        self._told = task
        self.server_data = server_data
        node = NodeConfig.of(context.node_config)
        self._says = {*context.node_config}
        self.settings = Settings.from_run_config(context.run_config)
        if node.data_dir is not None:
            data = self.settings.data.model_copy(update={"data_dir": node.data_dir})
            self.settings = self.settings.model_copy(update={"data": data})
        self.node = node = node.in_folder(self.settings.data)
        if node.pretrained is not None and self.settings.model.pretrained:
            model = self.settings.model.model_copy(
                update={"pretrained": node.pretrained}
            )
            self.settings = self.settings.model_copy(update={"model": model})
        self.partition_id = node.partition_id
        self.num_partitions = node.num_partitions
        self.client = node.client(context.node_id)
        state_dir = self.settings.run.state_dir
        self.state_dir = state_dir if node.state_dir is None else node.state_dir
        self.memory_cap = node.memory_bytes
        self.device = device_of(self.settings)

    @property
    def training(self) -> TrainingSettings:
        """How it trains in the round being handled: with the rate of that round."""
        return self.settings.training_in(self.server_round)

    @property
    def owns_machine(self) -> bool:
        """Whether what is measured here is this client's own to use.

        A simulation gives its virtual clients a share of the data and nothing else:
        they have one machine among them. A device at least has a name or a place of
        its own.
        """
        return self._says != {"partition-id", "num-partitions"}

    @property
    def true_capacity(self) -> int:
        """Experts of each layer it can hold: what its owner declared, else its tier."""
        if self.node.expert_cap is not None:
            return self.node.expert_cap
        tiers = self.settings.rounds.expert_capacity
        if not self.num_partitions:
            return tiers.largest
        rng = stream(self.settings.run.seed, "capacity")
        return int(tiers.budgets(self.num_partitions, rng)[self.partition_id])

    @property
    def reported_capacity(self) -> int:
        """What this device declares; wrong on purpose under ``capacity-error``.

        0 means not declared: the server goes by the tier it knows.
        """
        error = self.settings.stress.capacity_error
        if not error:
            return self.node.expert_cap or 0
        rng = stream(self.settings.run.seed, "capacity-error", self.client)
        return max(1, round(self.true_capacity * (1 + rng.uniform(-error, error))))

    def apply_stress(self, order: TrainOrder) -> None:
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
        can_hold = self.true_capacity * self.spec.num_layers
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
        return model_spec(self.settings, self.task)

    @cached_property
    def task(self) -> Task:
        """The agreement on classes, shape and scale."""
        if self._told is not None:
            return self._told
        return task_of_set(self.settings, self.dataset)

    @cached_property
    def own_path(self) -> Path | None:
        """Where data of its own lie, which nobody cuts; None for a shared data set.

        A device with a share of a user's own set, and another file than the server's,
        has data of its own.
        """
        by_task = self._told is not None and not self.server_data
        path = self.node.own_data(self.settings.data, by_task=by_task)
        if path is None or by_task or self.num_partitions <= 1:
            return path
        return path if self._told is not None and self._has_another_set() else None

    def _has_another_set(self) -> bool:
        try:
            return fingerprint(self.dataset).train != self.server_data
        except DataError:  # no set at all by itself: a class is missing
            return True

    @cached_property
    def own(self) -> OwnData | None:
        """The data of its own, if it has such."""
        if (path := self.own_path) is None:
            return None
        cache = Path(self.state_dir) / "data" if self.state_dir else None
        return open_own_data(path, self.task, self.tokeniser, cache)

    @property
    def tokeniser(self) -> Tokeniser:
        """What makes token ids of texts."""
        return tokeniser_for(self.settings)

    @cached_property
    def data(self) -> ClientData:
        """The client's own samples."""
        if self.own is not None:
            return self.own
        data = self.settings.data
        alone = not self.num_partitions  # with all of a set that ships with the app
        return load_client_data(
            self.dataset,
            parse_partition("iid" if alone else data.partition),
            0 if alone else self.partition_id,
            1 if alone else self.num_partitions,
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
        """Hash of the partition this client's share was cut from; "" for none."""
        if self.own is not None or not self.num_partitions:
            return ""
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

    def classes_present(self) -> torch.Tensor:
        """Return 1 for each class with a local training sample, else 0, shape (C,)."""
        counts = np.bincount(self.data.y_train, minlength=self.data.num_classes)
        return torch.from_numpy((counts > 0).astype(np.float32)).to(self.device)

    def keep_features(self, spec: ModelSpec) -> None:
        """From now on, compute what frozen layers of a model give only once.

        What is public is kept for all clients of the machine, what is a device's own in
        its state directory; without one, as long as the message is handled.
        """
        folder = cache_folder() if self.own is None else None
        if self.state_dir:
            folder = Path(self.state_dir) / "features"
        limit = parse_bytes(self.settings.run.feature_cache)
        self.features = Features.of(spec, folder, limit)

    def train_tensors(self) -> Tensors:
        """Return local training inputs, as :func:`tensors_of` does, and labels."""
        if (augment := self.settings.training.augment) and self.features is not None:
            not_kept(f"augment = {augment!r} makes other samples in every epoch")
            return tensors_of(self.data, self.data.train, self.device, None, "")
        return self._tensors(self.data.train)

    def held_out_tensors(self) -> Tensors:
        """Return the client's own held-out inputs and labels."""
        return self._tensors(self.data.held_out)

    def test_tensors(self) -> Tensors | None:
        """Return the global test inputs and labels, in the client's own domain.

        Of a device with data of its own, what may be the server's test set beside them:
        the server knows by its hash. None where there is none.
        """
        if self.own is None:
            domain = self.data.domain
            return shared_test_tensors(
                self.settings, self.dataset, domain, self.device, self.features
            )
        if self.own.own_test is None or self.settings.data.task:
            return None
        rows = test_rows(self.settings, self.own.y[self.own.own_test])
        return self._tensors(self.own.own_test[rows])

    def _tensors(self, rows: NDArray[np.int64]) -> Tensors:
        identity = ""
        if self.features is not None:
            own = self.own
            identity = own.rows_digest if own else identity_of_train(self.dataset)
        return tensors_of(self.data, rows, self.device, self.features, identity)

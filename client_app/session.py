"""One client's view of a run: its name, its settings and its own data.

Not here: what stays with it between messages (``client_app.kept``), and how it fails on
purpose (``client_app.stress``).

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
from client_app.kept.home import Home
from client_app.kept.spent import Spent
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
from common.errors import DataError, SettingsError
from common.feature_table import cache_folder, not_kept
from common.features import Features, identity_of_train
from common.moe import ModelSpec
from common.own.own_data import OwnData, open_own_data
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
    told : Task or None
        What the message says the samples are.
    features : Features or None
        Of the model that is ordered, where they are computed once: set when its base is
        in this process. Then inputs are features.
    privacy : PrivacySettings
        Of the run, with no more epsilon than the owner allows.
    home : Home
        Where what stays with this client is kept.
    server_round : int
        Of the message being handled, set as soon as it is known: drifting data depend
        on it. 0 outside a round.
    """

    def __init__(
        self, context: Context, task: Task | None = None, server_data: str = ""
    ) -> None:
        self.server_round = 0
        self.features: Features | None = None
        self.told = task
        self.server_data = server_data
        node = NodeConfig.of(context.node_config)
        self._says = {*context.node_config}
        self.settings = Settings.from_run_config(context.run_config)
        if node.data_dir is not None:
            data = self.settings.data.model_copy(update={"data_dir": node.data_dir})
            self.settings = self.settings.model_copy(update={"data": data})
        self.node = node = node.in_folder(self.settings.data)
        self.privacy = node.allowed(self.settings.privacy)
        if node.pretrained is not None and self.settings.model.pretrained:
            model = self.settings.model.model_copy(
                update={"pretrained": node.pretrained}
            )
            self.settings = self.settings.model_copy(update={"model": model})
        self.partition_id = node.partition_id
        self.num_partitions = node.num_partitions
        self.client = node.client(context.node_id)
        run = self.settings.run
        folder = run.state_dir if node.state_dir is None else node.state_dir
        self.home = Home(
            context=context,
            client=self.client,
            folder=folder,
            in_run=folder == run.state_of_run,
        )
        self.memory_cap = node.memory_bytes

    @cached_property
    def device(self) -> torch.device:
        """Where it computes. Asking for a GPU bars it from processes forked later."""
        return device_of(self.settings)

    @property
    def training(self) -> TrainingSettings:
        """How it trains in the round being handled: with the rate of that round."""
        return self.settings.training_in(self.server_round)

    def spent(self) -> Spent:
        """Return the record of what was spent of this client's privacy.

        Raises
        ------
        SettingsError
            If it cannot be read, or would not outlive a restart of this device.
        """
        if self.owns_machine and not self.home.folder:
            raise SettingsError(
                'state-dir is missing: with privacy = "device", what is spent must '
                "outlive a restart"
            )
        return Spent(self.home.privacy(), self.privacy)

    @property
    def owns_machine(self) -> bool:
        """Whether what is measured here is this client's own to use.

        A simulation gives its virtual clients a share of the data and nothing else:
        they have one machine among them. A device at least has a name or a place of
        its own.
        """
        return self._says != {"partition-id", "num-partitions"}

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
        if self.told is not None:
            return self.told
        return task_of_set(self.settings, self.dataset)

    @cached_property
    def own_path(self) -> Path | None:
        """Where data of its own lie, which nobody cuts; None for a shared data set.

        A device with a share of a user's own set, and another file than the server's,
        has data of its own.
        """
        by_task = self.told is not None and not self.server_data
        path = self.node.own_data(self.settings.data, by_task=by_task)
        if path is None or by_task or self.num_partitions <= 1:
            return path
        return path if self.told is not None and self._has_another_set() else None

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
        return open_own_data(path, self.task, self.tokeniser, self.home.cache("data"))

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

    def keep_features(self, spec: ModelSpec) -> None:
        """From now on, compute what frozen layers of a model give only once.

        What is public is kept for all clients of the machine, what is a device's own in
        its state directory; without one, as long as the message is handled.
        """
        public = cache_folder() if self.own is None else None
        folder = self.home.cache("features") or public
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

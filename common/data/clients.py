"""What one client trains on and what it keeps for its own test.

The order is: the server's reserved samples are cut off first, uniformly (Fed-MoE's
D^r, METHODS 3); of the rest ``train_samples`` are kept, by class; these are partitioned
among the clients; each client holds out a part of its own. So a client's data never
overlaps another's or the server's, whatever else is set.

Groups of near-copies (``Dataset.group_train``) stay whole in every cut but the second:
a model must not be tested on another frame of what it was trained on, on whichever
device that was.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.data.dataset import (
    Dataset,
    Kind,
    Labels,
    Normaliser,
    Samples,
    model_input,
)
from common.data.drift import handed_on, neighbour_before
from common.data.partition import PartitionSpec, partition
from common.data.splits import (
    Indices,
    held_out_split,
    stratified_subset,
    unit_rows,
)
from common.seeding import stream


@dataclass(frozen=True, kw_only=True, eq=False)
class ClientData:
    """One client's own samples, as stored; copies, so the data set may be dropped.

    Attributes
    ----------
    x_train, x_held_out : ndarray, shape (n, *stored)
        Samples; see :meth:`normalise`.
    y_train, y_held_out : ndarray of int64, shape (n,)
        Labels in ``[0, num_classes)``.
    num_classes : int
        Classes of the whole data set.
    input_shape : tuple of int
        Shape of one sample after :meth:`normalise`.
    normaliser : Normaliser
        The constants of :meth:`normalise`.
    kind : {"float32", "int64"}
        Numbers to be normalised, or tokens.
    """

    x_train: Samples
    y_train: Labels
    x_held_out: Samples
    y_held_out: Labels
    num_classes: int
    input_shape: tuple[int, ...]
    normaliser: Normaliser
    kind: Kind = "float32"

    def normalise(self, x: Samples) -> NDArray[Any]:
        """Turn stored samples (B, *stored) into model input (B, *input_shape)."""
        return model_input(x, self.input_shape, self.normaliser, self.kind)


def load_client_data(
    dataset: Dataset,
    spec: PartitionSpec,
    partition_id: int,
    num_partitions: int,
    seed: int,
    *,
    held_out: float = 0.2,
    reserved: int = 0,
    train_samples: int = 0,
    moved: float = 0.0,
) -> ClientData:
    """Return the training and held-out samples of one client.

    Parameters
    ----------
    dataset : Dataset
        The whole data set.
    spec : PartitionSpec
        How it is partitioned.
    partition_id, num_partitions : int
        Which client of how many, from 0.
    seed : int
        Seed of the run.
    held_out : float
        Share of the client's samples it does not train on, above 0 and below 1.
    reserved : int
        Samples the server keeps; see :func:`reserved_split`.
    train_samples : int
        Training samples shared by all clients; 0 means all there are.
    moved : float
        Share of its samples every client has handed on by now; see ``drift``.

    Raises
    ------
    ValueError
        If the client does not exist or there are too few samples.
    """
    if not 0 <= partition_id < num_partitions:
        raise ValueError(
            f"partition-id {partition_id}: expected 0 to {num_partitions - 1}"
        )
    parts = client_partition(
        dataset,
        spec,
        num_partitions,
        seed,
        reserved=reserved,
        train_samples=train_samples,
    )

    def cut(client: int) -> tuple[Indices, Indices]:
        rows = parts[client]
        groups = None if dataset.group_train is None else dataset.group_train[rows]
        rng = stream(seed, "data", "held-out", client)
        train, held = held_out_split(dataset.y_train[rows], held_out, rng, groups)
        return rows[train], rows[held]

    train, held = cut(partition_id)
    if moved:
        giver = neighbour_before(partition_id, num_partitions, seed)
        ends = (moved, seed, partition_id, giver)
        train, held = (
            handed_on(own, neighbours, *ends)
            for own, neighbours in zip((train, held), cut(giver), strict=True)
        )
    return ClientData(
        x_train=dataset.x_train[train],
        y_train=dataset.y_train[train],
        x_held_out=dataset.x_train[held],
        y_held_out=dataset.y_train[held],
        num_classes=dataset.num_classes,
        input_shape=dataset.input_shape,
        normaliser=dataset.normaliser,
        kind=dataset.kind,
    )


# Cached: twenty virtual clients of one worker ask for the same partition.
@lru_cache(maxsize=8)
def client_partition(
    dataset: Dataset,
    spec: PartitionSpec,
    num_partitions: int,
    seed: int,
    *,
    reserved: int = 0,
    train_samples: int = 0,
) -> tuple[Indices, ...]:
    """Return the rows of ``x_train`` of every client: what ``partition_hash`` hashes.

    Parameters are those of :func:`load_client_data`. With groups, the groups are what
    is partitioned, and each client has at least two of them.

    Returns
    -------
    tuple of ndarray of int64
        Ascending, pairwise disjoint, read-only.
    """
    _, pool = reserved_split(dataset, reserved, seed)
    if train_samples:
        rng = stream(seed, "data", "train-samples")
        pool = pool[stratified_subset(dataset.y_train[pool], train_samples, rng)]
    labels = dataset.y_train[pool]
    owners = None if dataset.owner_train is None else dataset.owner_train[pool]
    if dataset.group_train is None:
        parts = partition(labels, spec, num_partitions, seed, owners=owners)
    else:
        units = unit_rows(dataset.group_train[pool], len(pool))
        first = [rows[0] for rows in units]
        owners = None if owners is None else owners[first]
        try:
            # At least two groups each: one to train on, one to hold out.
            by_unit = partition(
                labels[first], spec, num_partitions, seed, owners=owners
            )
        except ValueError as error:
            raise ValueError(
                f"{error} (rows of one group stay together and count as one sample)"
            ) from None
        parts = tuple(np.sort(np.concatenate([units[u] for u in p])) for p in by_unit)
    owned = tuple(pool[part] for part in parts)
    for rows in owned:
        rows.flags.writeable = False
    return owned


def reserved_split(
    dataset: Dataset, reserved: int, seed: int
) -> tuple[Indices, Indices]:
    """Cut off the server's own samples D^r, before there are clients.

    Parameters
    ----------
    dataset : Dataset
        The whole data set.
    reserved : int
        Samples for the server, drawn uniformly.
    seed : int
        Seed of the run.

    Returns
    -------
    reserved_indices, remaining_indices : ndarray of int64
        Ascending rows of ``x_train``. Disjoint; with groups, what is left of the group
        that the cut goes through is in neither.

    Raises
    ------
    ValueError
        If not a single sample would remain.
    """
    rows = len(dataset.y_train)
    if not 0 <= reserved < rows:
        raise ValueError(
            f"reserved-samples {reserved}: expected 0 to {rows - 1} of {rows} samples"
        )
    units = unit_rows(dataset.group_train, rows)
    order = stream(seed, "data", "reserved").permutation(len(units))
    shuffled = [units[unit] for unit in order]
    ends = np.cumsum([len(unit) for unit in shuffled])
    cut = int(np.searchsorted(ends, reserved)) + 1 if reserved else 0
    empty = [np.empty(0, dtype=np.int64)]
    mine = np.concatenate(empty + shuffled[:cut])[:reserved]
    rest = np.concatenate(empty + shuffled[cut:])
    return np.sort(mine), np.sort(rest)

"""What one client trains on and what it keeps for its own test.

The order is: the server's reserved samples are cut off first, uniformly (Fed-MoE's
D^r, docs/methods.md, 3); of the rest ``train_samples`` are kept, by class; these are
partitioned among the clients; each client holds out a part of its own. So a client's
data never overlaps another's or the server's, whatever else is set.

Groups of near-copies (``Dataset.group_train``) stay whole in every cut but the second:
a model must not be tested on another frame of what it was trained on, on whichever
device that was. Where nothing is known of groups, exact copies of a sample are on one
side of the held-out cuts of all clients.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.data.copies import copies_in
from common.data.dataset import Dataset, Kind, Labels, Normaliser, Samples
from common.data.domains import PLAIN, Domain, check_factors, client_domains
from common.data.drift import handed_on, neighbour_before
from common.data.partition import PartitionSpec, partition
from common.data.splits import Indices, held_out_split, stratified_subset, unit_rows
from common.seeding import stream


@dataclass(frozen=True, kw_only=True, eq=False)
class ClientData:
    """One client's own samples, as stored: rows of what may be larger, and not copied.

    Attributes
    ----------
    x : ndarray, shape (N, *stored)
    y : ndarray of int64, shape (N,)
    train, held_out : ndarray of int64
        Rows of ``x`` and ``y`` that are this client's; disjoint.
    num_classes, input_shape, normaliser, kind
        Of the whole data set.
    domain : Domain
        What :meth:`normalise` does beside; ``y`` is already as the client calls it.
    units : ndarray of int, shape (n,), or None
        Which training samples are near-copies, by equal numbers: a group of the data
        set's, or exact copies. None where nothing is known of any.
    """

    x: Samples
    y: Labels
    train: Indices
    held_out: Indices
    num_classes: int
    input_shape: tuple[int, ...]
    normaliser: Normaliser
    kind: Kind = "float32"
    domain: Domain = PLAIN
    units: Indices | None = None

    @property
    def x_train(self) -> Samples:
        """A copy of the training samples, shape (n, *stored)."""
        return self.x[self.train]

    @property
    def y_train(self) -> Labels:
        """Their labels, shape (n,)."""
        return self.y[self.train]

    @property
    def x_held_out(self) -> Samples:
        """A copy of the held-out samples, shape (n, *stored)."""
        return self.x[self.held_out]

    @property
    def y_held_out(self) -> Labels:
        """Their labels, shape (n,)."""
        return self.y[self.held_out]

    def normalise(self, x: Samples) -> NDArray[Any]:
        """Turn stored samples (B, *stored) into model input (B, *input_shape)."""
        shape, normaliser = self.input_shape, self.normaliser
        return self.domain.model_input(x, shape, normaliser, self.kind)


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
    partition_id, num_partitions : int
        Which client of how many, from 0.
    seed : int
        Of the run.
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
    cuts = {"reserved": reserved, "train_samples": train_samples}
    parts = client_partition(dataset, spec, num_partitions, seed, **cuts)

    def cut(client: int) -> tuple[Indices, Indices]:
        rows = parts[client]
        groups = None if dataset.group_train is None else dataset.group_train[rows]
        rng = stream(seed, "data", "held-out", client)
        labels = dataset.y_train[rows]
        if groups is None and (units := copies_in(dataset)) is not None:
            sides = stream(seed, "data", "copies").random(len(units)) < held_out
            train, held = _beside_copies(labels, held_out, rng, units[rows], sides)
        else:
            train, held = held_out_split(labels, held_out, rng, groups)
        return rows[train], rows[held]

    train, held = cut(partition_id)
    if moved:
        giver = neighbour_before(partition_id, num_partitions, seed)
        sides = zip((train, held), cut(giver), strict=True)
        train, held = (
            handed_on(own, received, moved, seed, partition_id, giver)
            for own, received in sides
        )
    domain = domains_of(dataset, spec, num_partitions, seed)[partition_id]
    units = dataset.group_train
    if units is None and (found := copies_in(dataset)) is not None:
        # A sample without a copy is alone: by a number that nobody else has.
        units = np.where(found < 0, ~np.arange(len(found)), found)
    return replace(
        _in_domain(dataset, domain, dataset.x_train, dataset.y_train, train, held),
        units=None if units is None else units[train],
    )


def domains_of(
    dataset: Dataset, spec: PartitionSpec, num_partitions: int, seed: int
) -> tuple[Domain, ...]:
    """Return the domain of every client of a partition; see ``domains``.

    Raises
    ------
    ValueError
        If the samples cannot differ in this way, or there are too few clients.
    """
    if not spec.factors:
        return (PLAIN,) * num_partitions
    check_factors(dataset, spec.factors)
    return client_domains(spec.factors, dataset.num_classes, num_partitions, seed)


def seen_in(domain: Domain, dataset: Dataset, x: Samples, y: Labels) -> ClientData:
    """Return samples of the global test set as the clients of a domain have them.

    All of them are held out.
    """
    every = np.arange(len(y))
    return _in_domain(dataset, domain, x, y, every[:0], every)


def _in_domain(
    dataset: Dataset,
    domain: Domain,
    x: Samples,
    y: Labels,
    train: Indices,
    held_out: Indices,
) -> ClientData:
    return ClientData(
        x=x,
        y=domain.relabelled(y),
        train=train,
        held_out=held_out,
        num_classes=dataset.num_classes,
        input_shape=dataset.input_shape,
        normaliser=dataset.normaliser,
        kind=dataset.kind,
        domain=domain,
    )


def _beside_copies(
    labels: Labels,
    share: float,
    rng: np.random.Generator,
    units: Indices,
    sides: NDArray[np.bool_],
) -> tuple[Indices, Indices]:
    """Cut a client's rows, of which some have copies, here or with other clients.

    Parameters
    ----------
    labels, share, rng
        As of :func:`held_out_split`.
    units : ndarray of int64, shape (n,)
        See :func:`common.data.copies.copies`.
    sides : ndarray of bool
        For every unit, whether it is held out: the same with every client.
    """
    copied = units >= 0
    lone = np.flatnonzero(~copied)
    held = copied & sides[units]
    if len(lone) > 1:
        held[lone[held_out_split(labels[lone], share, rng)[1]]] = True
    if held.any() and not held.all():
        return np.flatnonzero(~held), np.flatnonzero(held)
    # All fell on one side. Lone rows are units of their own.
    own = np.where(copied, units, len(sides) + np.arange(len(units)))
    return held_out_split(labels, share, rng, own)


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
        labels = labels[first]
        try:
            # At least two groups each: one to train on, one to hold out.
            by_unit = partition(labels, spec, num_partitions, seed, owners=owners)
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
    reserved : int
        Samples for the server, drawn uniformly.
    seed : int
        Of the run.

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

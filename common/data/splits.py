"""Cutting rows in two: stratified, and without tearing groups apart.

A *unit* is what a split moves as a whole: a single row, or all rows of one group
(frames of one recording, which are near-copies). Which rows belong to which client is
``partition``; these functions cut what one owner has.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.data.dataset import Labels

Indices = NDArray[np.int64]


def largest_remainder(shares: NDArray[np.floating[Any]], total: int) -> Indices:
    """Round non-negative ``shares`` of ``total`` to integers with that very sum.

    Parameters
    ----------
    shares : ndarray of float, shape (K,)
        Exact shares, summing to ``total``.
    """
    counts = np.floor(shares).astype(np.int64)
    order = np.argsort(-(shares - counts), kind="stable")
    counts[order[: total - int(counts.sum())]] += 1
    return counts


def stratified_subset(labels: Labels, size: int, rng: np.random.Generator) -> Indices:
    """Draw rows so that every class keeps its share.

    Parameters
    ----------
    labels : ndarray of int, shape (N,)
    size : int
        Rows wanted; N or more means all of them.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of int64, shape (min(size, N),)
        Ascending row numbers.

    Raises
    ------
    ValueError
        If ``size`` is negative.
    """
    if size < 0:
        raise ValueError(f"a subset of {size} rows: expected 0 or more")
    if size >= len(labels):
        return np.arange(len(labels), dtype=np.int64)
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    quotas = largest_remainder(counts * (size / len(labels)), size)
    rows = [
        rng.permutation(np.flatnonzero(inverse == k))[:quota]
        for k, quota in enumerate(quotas)
    ]
    return np.sort(np.concatenate(rows))


def unit_rows(groups: Labels | None, num_rows: int) -> list[Indices]:
    """Return the rows of every unit, in order of the group's number."""
    if groups is None:
        return list(np.arange(num_rows, dtype=np.int64).reshape(-1, 1))
    order = np.argsort(groups, kind="stable")
    _, starts = np.unique(groups[order], return_index=True)
    return np.split(order, starts[1:])


def held_out_split(
    labels: Labels,
    share: float,
    rng: np.random.Generator,
    groups: Labels | None = None,
) -> tuple[Indices, Indices]:
    """Cut one client's rows into a training and a held-out part.

    Classes keep their share on both sides where there is enough of them, and training
    keeps at least one unit of every class. Whole groups move; a client whose rows are
    all of one group is cut by rows, because both sides must have something.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
    share : float
        Held-out share, above 0 and below 1.
    rng : numpy.random.Generator
    groups : ndarray of int, shape (n,), optional
        Rows with equal numbers stay together.

    Returns
    -------
    train, held_out : ndarray of int64
        Ascending positions in ``labels``; disjoint, together all, none empty.

    Raises
    ------
    ValueError
        If ``share`` is out of range or there are fewer than two rows.
    """
    if not 0 < share < 1:
        raise ValueError(f"held-out share {share}: expected above 0 and below 1")
    if len(labels) < 2:
        raise ValueError(
            f"{len(labels)} row(s) cannot be cut into training and held-out: expected "
            "at least 2"
        )
    units = unit_rows(groups, len(labels))
    if len(units) == 1:
        units = unit_rows(None, len(labels))
    unit_labels = labels[[rows[0] for rows in units]]
    sizes = np.array([len(rows) for rows in units])
    classes = np.unique(unit_labels)
    weights = np.array([sizes[unit_labels == k].sum() for k in classes])
    target = min(max(round(share * len(labels)), 1), len(labels) - 1)
    quotas = largest_remainder(weights * (target / len(labels)), target)

    held: list[int] = []
    for k, quota in zip(classes, quotas, strict=True):
        taken = 0
        for unit in rng.permutation(np.flatnonzero(unit_labels == k))[1:]:
            # Take it when that brings the class nearer to its quota.
            if 2 * taken + sizes[unit] < 2 * quota:
                held.append(int(unit))
                taken += int(sizes[unit])
    if not held:
        order = rng.permutation(len(units))
        held = [int(order[sizes[order].argmin()])]
    held_rows = np.sort(np.concatenate([units[unit] for unit in held]))
    train_rows = np.setdiff1d(np.arange(len(labels), dtype=np.int64), held_rows)
    return train_rows, held_rows

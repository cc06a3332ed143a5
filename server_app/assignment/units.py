"""Experts of several layers: one numbering, budgets, and an expert of every layer.

With L mixture layers of E experts, what is assigned is an expert of one layer, a unit;
all matrices over experts have L * E columns, layer by layer. A client computes nothing
without an expert of every layer, so whoever holds any holds one of each. The solver is
told so as a constraint (``groups`` of the problem); every policy that needs no solver
is repaired by :func:`covering`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Units", "covering", "layer_shares"]

Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Units:
    """What there is to hold.

    Attributes
    ----------
    layers : ndarray of int, shape (U,)
        Layer of each unit, from 0, ascending, equally many units in each.
    sizes : ndarray of int, shape (U,)
        What each takes of a budget; the same for all units of a layer. Ones make a
        budget a number of units, anything else one of bytes.
    """

    layers: NDArray[np.int64]
    sizes: NDArray[np.int64]

    @classmethod
    def of(cls, num_experts: int, layer_sizes: ArrayLike = (1,)) -> Units:
        """Return the units of layers of E experts each.

        Parameters
        ----------
        num_experts : int
            E.
        layer_sizes : array_like of int, shape (L,)
            Bytes of an expert of each layer; layers of equal size make budgets counts.
        """
        sizes = np.asarray(layer_sizes, dtype=np.int64)
        if (sizes == sizes[0]).all():
            sizes = np.ones_like(sizes)
        return cls(
            layers=np.repeat(np.arange(sizes.size), num_experts),
            sizes=np.repeat(sizes, num_experts),
        )

    @property
    def num_layers(self) -> int:
        """Layers L."""
        return int(self.layers[-1]) + 1

    @property
    def num_experts(self) -> int:
        """Experts E of each layer."""
        return self.layers.size // self.num_layers

    @property
    def counted(self) -> bool:
        """Whether a budget is a number of units."""
        return bool((self.sizes == 1).all())

    @property
    def set_size(self) -> int:
        """What one expert of every layer takes of a budget."""
        return int(self.sizes[:: self.num_experts].sum())

    def sets(self, budgets: ArrayLike) -> NDArray[np.int64]:
        """Return how many experts of every layer fit into each budget."""
        return np.asarray(budgets, dtype=np.int64) // self.set_size

    def missing(self, held: Mask) -> Mask:
        """Return of which layers a client holds nothing though it holds something.

        Parameters
        ----------
        held : ndarray of bool, shape (C, U)

        Returns
        -------
        ndarray of bool, shape (C, L)
        """
        by_layer = held.reshape(len(held), self.num_layers, self.num_experts)
        holds = np.asarray(held.any(axis=1))
        lacking: Mask = ~by_layer.any(axis=2) & holds[:, None]
        return lacking


def covering(held: Mask, scores: ArrayLike, budgets: ArrayLike, units: Units) -> Mask:
    """Give every client that holds anything an expert of every layer, within budget.

    A layer a client lacks is served by its best expert there; beyond the budget, the
    worst goes of what is not the last of its layer.

    Parameters
    ----------
    held : ndarray of bool, shape (C, U)
        An assignment within the budgets, or beyond them.
    scores : array_like, shape (C, U)
        What is best.
    budgets : array_like of int, shape (C,)
    units : Units

    Returns
    -------
    ndarray of bool, shape (C, U)

    Raises
    ------
    ValueError
        If a client that holds something has not the budget for one of each layer.
    """
    if units.num_layers == 1:
        return held
    held, values = held.copy(), np.asarray(scores, dtype=np.float64)
    rooms = np.asarray(budgets, dtype=np.int64)
    beyond = held @ units.sizes > rooms
    for client in np.flatnonzero(units.missing(held).any(axis=1) | beyond).tolist():
        room = int(rooms[client])
        if room < units.set_size:
            raise ValueError(
                f"client {client} has a budget of {room}, too little for one expert of "
                f"each of the {units.num_layers} layers, which takes {units.set_size}"
            )
        row = held[client]
        for layer in np.flatnonzero(units.missing(held[[client]])[0]).tolist():
            inside = np.flatnonzero(units.layers == layer)
            row[inside[np.argmax(values[client, inside])]] = True
        # Worst first; of equals the one with the higher number, as a top-k would.
        order = np.lexsort((-np.arange(row.size), values[client]))
        count = np.bincount(units.layers[row], minlength=units.num_layers)
        for unit in order[row[order]].tolist():
            if units.sizes[row].sum() <= room:
                break
            if count[units.layers[unit]] > 1:
                row[unit] = False
                count[units.layers[unit]] -= 1
    return held


def layer_shares(
    samples: NDArray[np.int64], layers: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return each unit's share of what was routed in its layer, 0 where nothing was.

    Parameters
    ----------
    samples, layers : ndarray of int, shape (k,)
        Of some units.
    """
    totals = np.bincount(layers, weights=samples)
    return samples / np.maximum(1, totals)[layers]

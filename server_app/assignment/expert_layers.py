"""Experts of several layers: one numbering, and an expert of every layer.

With L mixture layers of E experts all matrices over experts have L * E columns, layer
by layer. A client computes nothing without an expert of every layer, so whoever holds
any holds one of each. The solver is told so as a constraint (``groups`` of the
problem); every policy that needs no solver is repaired by :func:`covering`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from server_app.assignment.validation import ProblemError

__all__ = ["ExpertLayers", "covering"]

Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class ExpertLayers:
    """How many experts there are to hold.

    Attributes
    ----------
    num_experts : int
        Experts E of each layer.
    num_layers : int
        Layers L.
    """

    num_experts: int
    num_layers: int = 1

    @property
    def of_experts(self) -> NDArray[np.int64]:
        """Layer of each expert, from 0, shape (L * E,)."""
        return np.repeat(np.arange(self.num_layers), self.num_experts)

    def missing(self, held: Mask) -> Mask:
        """Return of which layers a client holds nothing though it holds something.

        Parameters
        ----------
        held : ndarray of bool, shape (C, L * E)

        Returns
        -------
        ndarray of bool, shape (C, L)
        """
        by_layer = held.reshape(len(held), self.num_layers, self.num_experts)
        return np.asarray(~by_layer.any(axis=2) & held.any(axis=1, keepdims=True))


def covering(
    held: Mask, scores: ArrayLike, budgets: ArrayLike, layers: ExpertLayers
) -> Mask:
    """Give every client that holds anything an expert of every layer, within budget.

    A layer a client has none of is served by its best expert there; beyond the budget,
    the worst goes of what is not the last of its layer.

    Parameters
    ----------
    held : ndarray of bool, shape (C, L * E)
        An assignment within the budgets, or beyond them.
    scores : array_like, shape (C, L * E)
        What is best.
    budgets : array_like of int, shape (C,)
        Experts of all layers together.
    layers : ExpertLayers

    Returns
    -------
    ndarray of bool, shape (C, L * E)

    Raises
    ------
    ValueError
        If a client that holds something has not the budget for one of each layer.
    """
    if layers.num_layers == 1:
        return held
    held, values = held.copy(), np.asarray(scores, dtype=np.float64)
    rooms, of_experts = np.asarray(budgets, dtype=np.int64), layers.of_experts
    beyond = held.sum(axis=1) > rooms
    for client in np.flatnonzero(layers.missing(held).any(axis=1) | beyond).tolist():
        room = int(rooms[client])
        if room < layers.num_layers:
            raise ProblemError(
                f"client {client} has a budget of {room}, too little for one expert of "
                f"each of the {layers.num_layers} layers"
            )
        row = held[client]
        for layer in np.flatnonzero(layers.missing(held[[client]])[0]).tolist():
            inside = np.flatnonzero(of_experts == layer)
            row[inside[np.argmax(values[client, inside])]] = True
        # Worst first; of equals the one with the higher number, as a top-k would.
        order = np.lexsort((-np.arange(row.size), values[client]))
        count = np.bincount(of_experts[row], minlength=layers.num_layers)
        for expert in order[row[order]].tolist():
            if count.sum() <= room:
                break
            if count[of_experts[expert]] > 1:
                row[expert] = False
                count[of_experts[expert]] -= 1
    return held

"""A greedy assignment that respects every bound it can: fallback and yardstick.

Fast and solver-free, not optimal. It is what the exact solvers must never be worse
than, the hint they start from, and what is returned if they find nothing in time.
(The load-blind baseline of the papers is `policies.greedy_top_k`.)
"""

from __future__ import annotations

import numpy as np

from server_app.assignment.instance import Instance, Ints, Mask

__all__ = ["solve_greedy"]


def solve_greedy(instance: Instance) -> Mask:
    """Place the fittest pairs first: what is owed, then what pays.

    Parameters
    ----------
    instance : Instance
        The integer problem.

    Returns
    -------
    ndarray of bool, shape (C, E)
        Valid free pairs: budgets, bans, exclusions and upper bounds hold; lower bounds,
        floors and groups are served first but may be missed.
    """
    clients, experts = np.nonzero(instance.free)
    order = np.argsort(-instance.gain[clients, experts], kind="stable")
    pairs = list(zip(clients[order].tolist(), experts[order].tolist(), strict=True))
    state = _State(instance)
    for client, expert in pairs:
        group = instance.groups[expert]
        if group >= 0 and instance.needs[client, group]:
            state.place(client, expert, group=int(group))
    for client, expert in pairs:
        if state.owed_to_expert(expert):
            state.place(client, expert)
    for client, expert in pairs:
        if state.count[client] < instance.floor[client]:
            state.place(client, expert)
    for client, expert in pairs:
        if instance.gain[client, expert] > state.price(client, expert):
            state.place(client, expert)
    return state.matrix


class _State:
    """A matrix under construction and what is left of every bound."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.matrix: Mask = np.zeros_like(instance.free)
        self.room: list[int] = instance.room.tolist()
        self.load: list[int] = [0] * len(instance.sizes)
        self.holders: list[int] = [0] * len(instance.sizes)
        self.count: Ints = np.zeros(len(instance.room), dtype=np.int64)
        self.served: set[tuple[int, int]] = set()
        self.sizes: list[int] = instance.sizes.tolist()
        self.weights: list[int] = instance.weights.tolist()
        self.upper: list[int] = instance.upper.tolist()
        self.lower: list[int] = instance.lower.tolist()
        self.owed: list[int] = instance.holders.tolist()

    def owed_to_expert(self, expert: int) -> bool:
        """Whether the expert is short of load or of holders."""
        short = self.load[expert] < self.lower[expert]
        return short or self.holders[expert] < self.owed[expert]

    def price(self, client: int, expert: int) -> int:
        """Penalty of adding this client's load to the expert."""
        instance = self.instance
        if not instance.penalty:
            return 0
        before = self.load[expert] + int(instance.fixed_load[expert])
        after = before + self.weights[client]
        return instance.penalty.of(expert, after) - instance.penalty.of(expert, before)

    def place(self, client: int, expert: int, group: int | None = None) -> None:
        """Place a pair unless something forbids it, or its group is served."""
        if group is not None and (client, group) in self.served:
            return
        load = self.load[expert] + self.weights[client]
        full = self.sizes[expert] > self.room[client] or load > self.upper[expert]
        if full or self.matrix[client, expert]:
            return
        for members in self.instance.exclusive:
            if expert in members and self.matrix[client, members].any():
                return
        self.matrix[client, expert] = True
        self.room[client] -= self.sizes[expert]
        self.load[expert] = load
        self.holders[expert] += 1
        self.count[client] += 1
        if group is not None:
            self.served.add((client, group))

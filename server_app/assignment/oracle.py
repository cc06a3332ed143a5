"""What one client would hold if experts had prices: the pricing step of `columns`.

A client on its own is a small knapsack, solved exactly by branch and bound. Exclusive
sets are exact too (branch on the member that stays), and so are floors and groups of
count budgets. With byte budgets floors and groups are repaired greedily: the column
found may then not be the client's best, but the bound returned is never below the best,
so what is built from it stays valid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ortools.algorithms.python import knapsack_solver

from server_app.assignment.instance import Instance, Ints

__all__ = ["Choice", "Oracle"]

_Type = knapsack_solver.SolverType
#: Items the fast exact solver takes.
_SMALL = 64
#: Seconds for one knapsack: pathological ones only, typical are microseconds.
_KNAPSACK_GUARD = 0.5
#: Subproblems of one client's exclusive sets before the incumbent has to do.
_BRANCHES = 200

Column = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One client's answer.

    Parameters
    ----------
    column : tuple of int
        Experts held, ascending.
    bound : int
        No column is worth more, less what it misses of floor and groups.
    """

    column: Column
    bound: int


class Oracle:
    """Best columns of every client of an instance, at any prices."""

    def __init__(self, instance: Instance, violation_price: int) -> None:
        self._instance = instance
        self._violation_price = violation_price
        self._unit = bool((instance.sizes == 1).all())
        self._sizes: list[int] = instance.sizes.tolist()
        self._room: list[int] = instance.room.tolist()
        self._small = knapsack_solver.KnapsackSolver(
            _Type.KNAPSACK_64ITEMS_SOLVER, "client"
        )
        self._large = knapsack_solver.KnapsackSolver(
            _Type.KNAPSACK_MULTIDIMENSION_BRANCH_AND_BOUND_SOLVER, "client"
        )
        self._large.set_time_limit(_KNAPSACK_GUARD)

    def choose(self, client: int, worth: Ints) -> Choice:
        """Return a client's best column.

        Parameters
        ----------
        client : int
            The client.
        worth : ndarray of int, shape (E,)
            Gain minus price of each expert for it.

        Returns
        -------
        Choice
            The column, and an upper bound on the summed worth of any column.
        """
        instance = self._instance
        owes = instance.floor[client] > 0 or instance.needs[client].any()
        if owes and self._unit and not instance.exclusive:
            return self._serve(client, worth)
        free = instance.free[client]
        candidates = np.flatnonzero(free & (worth > 0)).tolist()
        column, bound = self._pack(client, candidates, worth)
        if instance.exclusive:
            column, bound = self._separate(client, column, bound, candidates, worth)
        needs = np.flatnonzero(instance.needs[client]).tolist()
        if needs or instance.floor[client] > len(column):
            column = self._repair(client, column, needs, worth)
        return Choice(column=column, bound=bound)

    def _serve(self, client: int, worth: Ints) -> Choice:
        """Solve a count budget with groups and a floor: take the best, by bonus.

        Of each group only the best expert can be worth taking first, so the group's
        bonus goes to that one, and the floor's to the first places, whoever takes them.
        """
        instance, bonus = self._instance, self._violation_price
        floor = int(instance.floor[client])
        value = worth.copy()
        free = instance.free[client]
        for group in np.flatnonzero(instance.needs[client]).tolist():
            inside = np.flatnonzero(free & (instance.groups == group))
            if inside.size:
                value[inside[np.argmax(worth[inside])]] += bonus
        candidates = np.flatnonzero(free)
        order = candidates[np.argsort(-value[candidates], kind="stable")]
        order = order[: self._room[client]]
        urge = bonus * (np.arange(len(order)) < floor)
        keep = value[order] + urge > 0
        # Sorted by value, urge first: what is kept is a prefix.
        bound = int((value[order] + urge)[keep].sum())
        bound -= bonus * (floor + int(instance.needs[client].sum()))
        return Choice(column=tuple(sorted(order[keep].tolist())), bound=bound)

    def _pack(
        self, client: int, candidates: list[int], worth: Ints
    ) -> tuple[Column, int]:
        """Solve the knapsack over ``candidates``, all of positive worth."""
        room = self._room[client]
        if sum(self._sizes[e] for e in candidates) <= room:
            return tuple(candidates), int(worth[candidates].sum())
        if self._unit:
            order = np.argsort(-worth[candidates], kind="stable")[:room]
            column = tuple(sorted(candidates[i] for i in order.tolist()))
            return column, int(worth[list(column)].sum())
        solver = self._small if len(candidates) <= _SMALL else self._large
        sizes = [self._sizes[e] for e in candidates]
        solver.init(worth[candidates].tolist(), [sizes], [room])
        value = int(solver.solve())
        column = tuple(
            e for i, e in enumerate(candidates) if solver.best_solution_contains(i)
        )
        if not solver.is_solution_optimal():
            value = self._fractional(candidates, worth, room)
        return column, value

    def _fractional(self, candidates: list[int], worth: Ints, room: int) -> int:
        """Return the bound of the knapsack that may cut the last item."""
        bound = 0.0
        for e in sorted(candidates, key=lambda e: -worth[e] / self._sizes[e]):
            taken = min(self._sizes[e], room)
            bound += float(worth[e]) * taken / self._sizes[e]
            room -= taken
        return int(np.ceil(bound))

    def _separate(
        self,
        client: int,
        column: Column,
        bound: int,
        candidates: list[int],
        worth: Ints,
    ) -> tuple[Column, int]:
        """Branch until no two members of an exclusive set are held."""
        best: tuple[Column, int] = ((), 0)
        open_nodes = [(bound, column, candidates)]
        for _ in range(_BRANCHES):
            if not open_nodes:
                break
            open_nodes.sort(key=lambda node: node[0])
            bound, column, candidates = open_nodes.pop()
            if bound <= best[1]:
                open_nodes.clear()
                break
            rivals = self._rivals(column)
            if rivals is None:
                best = (column, bound)
                continue
            for kept in [e for e in rivals if e in candidates]:
                rest = [e for e in candidates if e == kept or e not in rivals]
                child, value = self._pack(client, rest, worth)
                open_nodes.append((value, child, rest))
        highest = max([best[1], *(node[0] for node in open_nodes)])
        return best[0], highest

    def _rivals(self, column: Column) -> Column | None:
        """Return an exclusive set of which ``column`` holds two members."""
        for members in self._instance.exclusive:
            if sum(e in members for e in column) > 1:
                return members
        return None

    def _repair(
        self, client: int, column: Column, needs: list[int], worth: Ints
    ) -> Column:
        """Serve groups and floor first, then fill up with what is worth it."""
        groups, sizes = self._instance.groups, self._sizes
        free = np.flatnonzero(self._instance.free[client]).tolist()
        taken: list[int] = []
        room = self._room[client]

        def fits(expert: int) -> bool:
            if expert in taken or sizes[expert] > room:
                return False
            return self._rivals((*taken, expert)) is None

        by_worth = sorted(free, key=lambda e: (e not in column, -int(worth[e])))
        for group in needs:
            for expert in by_worth:
                if groups[expert] == group and fits(expert):
                    taken.append(expert)
                    room -= sizes[expert]
                    break
        floor = int(self._instance.floor[client])
        # Smallest first is what reaches a floor at all; ties by worth.
        for expert in sorted(free, key=lambda e: (sizes[e], -int(worth[e]))):
            if len(taken) < floor and fits(expert):
                taken.append(expert)
                room -= sizes[expert]
        for expert in by_worth:
            if worth[expert] > 0 and fits(expert):
                taken.append(expert)
                room -= sizes[expert]
        return tuple(sorted(taken))

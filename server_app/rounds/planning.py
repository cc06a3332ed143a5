"""From the participants of a round to the strategy's plan for it, checked."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.seeding import stream
from common.settings.sections import MergeSettings
from server_app.assignment import ExpertLayers, ProblemError
from server_app.contract import Algorithm, Plan, View
from server_app.fleet.client import Client
from server_app.fleet.fleet import Fleet
from server_app.merging.robust import withstands
from server_app.run_error import RunError


class Planner:
    """Asks one strategy for its plans.

    Parameters
    ----------
    strategy : Algorithm
    fleet : Fleet

    Attributes
    ----------
    held : dict of int to list of int
        Experts each client, by row, was last assigned.
    """

    def __init__(self, strategy: Algorithm, fleet: Fleet) -> None:
        self.held: dict[int, list[int]] = {}
        self._strategy = strategy
        self._fleet = fleet

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: (row, expert) of all that is held."""
        pairs = [(row, expert) for row, its in self.held.items() for expert in its]
        return {"pairs": np.array(pairs, dtype=np.int64).reshape(-1, 2)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        self.held = {}
        for row, expert in state["pairs"].tolist():
            self.held.setdefault(row, []).append(expert)

    def plan(
        self,
        server_round: int,
        clients: list[Client],
        at_work: Sequence[Sequence[int]] = (),
    ) -> tuple[View, Plan]:
        """Return what the strategy saw of the participants, and its plan.

        Parameters
        ----------
        server_round : int
        clients : list of Client
        at_work : sequence of sequence of int
            Experts of each client that has not answered an order of before yet.

        Raises
        ------
        RunError
            If there is no plan, or it cannot be carried out.
        """
        view = self._view(server_round, clients, at_work)
        if not clients:  # all are at work
            return view, Plan(assignment=view.previous)
        try:
            plan = self._strategy.plan(view)
            self._check(view, plan)
        except ProblemError as error:
            raise RunError(
                f"round {server_round}: strategy {self._strategy.name!r}: {error}"
            ) from None
        if (why := self._strategy.no_predictor) and server_round == 1:
            plan = replace(plan, notes=(*plan.notes, why))
        merge, held = self._strategy.settings.merge, plan.assignment.astype(bool)
        if merge.is_robust and held.any():
            plan = replace(plan, notes=(*plan.notes, _withstood(merge, held)))
        for client, row in zip(clients, plan.assignment, strict=True):
            if row.any():
                self.held[client.row] = np.flatnonzero(row).tolist()
        return view, plan

    def _view(
        self,
        server_round: int,
        clients: list[Client],
        at_work: Sequence[Sequence[int]],
    ) -> View:
        spec = self._strategy.spec
        previous = np.zeros((len(clients), spec.num_units), dtype=np.bool_)
        for position, client in enumerate(clients):
            previous[position, self.held.get(client.row, [])] = True
        held = np.zeros((len(at_work), spec.num_units), dtype=np.bool_)
        for position, experts in enumerate(at_work):
            held[position, experts] = True
        budgets = [self._fleet.budget(client) for client in clients]
        seed = self._strategy.settings.run.seed
        return View(
            server_round=server_round,
            clients=np.array([client.row for client in clients], dtype=np.int64),
            num_clients=len(self._fleet),
            budgets=np.array(budgets, dtype=np.int64) * spec.num_layers,
            layers=ExpertLayers(
                num_experts=spec.num_experts, num_layers=spec.num_layers
            ),
            previous=previous,
            at_work=held,
            fleet=tuple(client.profile for client in self._fleet.clients),
            profiles=tuple(self._fleet.profile(client) for client in clients),
            rng=stream(seed, "plan", server_round),
        )

    def _check(self, view: View, plan: Plan) -> None:
        """Raise ProblemError if this is no plan: strategies are others' as well."""
        held: Any = getattr(plan, "assignment", None)
        shape = view.previous.shape
        if not isinstance(held, np.ndarray) or held.shape != shape:
            raise ProblemError(
                f"it plans an assignment of shape {np.shape(held)}: expected an array "
                f"of shape {shape}, one row a participant, one column an expert"
            )
        if held.dtype.kind not in "biu":  # NaN would be held
            raise ProblemError(
                f"it plans an assignment of {held.dtype}: expected an array of bool"
            )
        over = np.flatnonzero((held != 0).sum(axis=1) > view.budgets)
        if len(over):
            client, most = view.clients[over[0]], view.budgets[over[0]]
            raise ProblemError(
                f"it gives client {client} {np.count_nonzero(held[over[0]])} experts, "
                f"its budget is {most}"
            )
        missing = np.argwhere(view.layers.missing(plan.assignment))
        if len(missing):
            position, layer = missing[0].tolist()
            raise ProblemError(
                f"it gives client {view.clients[position]} no expert of layer "
                f"{layer + 1}: repair its plan with server_app.assignment.covering"
            )


def _withstood(merge: MergeSettings, held: NDArray[np.bool_]) -> str:
    """Return how many liars a robust rule withstands, as this plan has it."""
    holders = held.sum(axis=0)
    found: dict[int, int] = {}
    for number in holders[holders > 0].tolist():
        liars = withstands(merge, number) or 0
        found[liars] = found.get(liars, 0) + 1
    everyone = int(held.any(axis=1).sum())
    experts = ", ".join(f"{n} in {found[n]} experts" for n in sorted(found))
    return (
        f"merging = {merge.merging} withstands {withstands(merge, everyone)} bad "
        f"replies of {everyone} in parts that all hold; {experts}"
    )

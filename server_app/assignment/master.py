"""The master problem of column generation: mix columns so that loads keep their bands.

As an LP it yields prices (GLOP, warm-started between calls); as an integer program over
the columns found it yields the answer (HiGHS). Every bound that may be relaxed is soft
here at the dual's violation price.
"""

from __future__ import annotations

import datetime

import numpy as np
from ortools.math_opt.python import mathopt

from server_app.assignment.instance import Instance, Mask
from server_app.assignment.limits import Limits
from server_app.assignment.oracle import Column
from server_app.assignment.prices import Dual, Prices

__all__ = ["Master"]

#: Columns per client that the integer master may choose from.
_KEPT = 12
#: Branch-and-bound nodes of the integer master: work, so that answers repeat.
_NODES = 20
_INTEGER_GAP = 5e-4
#: New columns leave the last basis primal feasible; presolve would discard it.
_WARM = mathopt.SolveParameters(
    lp_algorithm=mathopt.LPAlgorithm.PRIMAL_SIMPLEX, presolve=mathopt.Emphasis.OFF
)


class Master:
    """Columns generated so far, and the LP over them."""

    def __init__(self, instance: Instance, dual: Dual) -> None:
        self._instance = instance
        self._dual = dual
        self._unit = instance.placement_unit
        self._steep = dual.violation_price * self._unit
        self._columns: list[dict[Column, mathopt.Variable]] = [
            {} for _ in instance.room
        ]
        self._lp = mathopt.Model(name="master")
        self._lp.objective.is_maximize = True
        self._rows = _Rows(self._lp, instance, dual)
        self._solver = mathopt.IncrementalSolver(self._lp, mathopt.SolverType.GLOP)
        self._mix: dict[mathopt.Variable, float] = {}

    def add(self, columns: list[Column]) -> int:
        """Add one column per client and return how many were new."""
        new = 0
        for client, column in enumerate(columns):
            if column not in self._columns[client]:
                variable = self._lp.add_variable(lb=0.0)
                self._rows.enter(variable, client, column, self.gain(client, column))
                self._columns[client][column] = variable
                new += 1
        return new

    def gain(self, client: int, column: Column) -> float:
        """Return a column's gain in fitness, less the floor and groups it misses."""
        instance = self._instance
        gain = float(instance.gain[client, list(column)].sum())
        missed = max(int(instance.floor[client]) - len(column), 0)
        served = set(instance.groups[list(column)].tolist())
        needs = np.flatnonzero(instance.needs[client]).tolist()
        missed += sum(group not in served for group in needs)
        return (gain - missed * self._steep) / instance.scale

    def solve(self) -> tuple[float, Prices]:
        """Solve the LP; return its value and its prices, both in integer fitness."""
        result = self._solver.solve(params=_WARM)
        scale = self._instance.scale
        load = np.array(result.dual_values(self._rows.load))
        holder = np.array(result.dual_values(self._rows.holder))
        prices = Prices(load=load * scale / self._unit, holder=-holder * scale)
        fixed = float(self._instance.gain[self._instance.fixed].sum())
        return result.objective_value() * scale + fixed, prices

    def settle(self) -> None:
        """Solve the LP once more and remember how it mixes all columns added."""
        self._mix = self._solver.solve(params=_WARM).variable_values()

    def rounded(self) -> Mask:
        """Return the settled LP's answer, every client at its largest share."""
        matrix = np.zeros_like(self._instance.free)
        for client, columns in enumerate(self._columns):
            shares = self._shares(columns)
            best = max(shares, key=lambda column: shares[column])
            matrix[client, list(best)] = True
        return matrix

    def _shares(self, columns: dict[Column, mathopt.Variable]) -> dict[Column, float]:
        """Return how far the last LP used each of a client's columns."""
        return {column: self._mix.get(v, 0.0) for column, v in columns.items()}

    def integer(self, prices: Prices, limits: Limits) -> list[Mask]:
        """Return the best integer mix of promising columns, if one is found."""
        program = mathopt.Model(name="integer-master")
        program.objective.is_maximize = True
        rows = _Rows(program, self._instance, self._dual)
        chosen: list[tuple[mathopt.Variable, int, Column]] = []
        for client in range(len(self._columns)):
            for column in self._promising(client, prices):
                variable = program.add_binary_variable()
                rows.enter(variable, client, column, self.gain(client, column))
                chosen.append((variable, client, column))
        parameters = mathopt.SolveParameters(
            time_limit=datetime.timedelta(seconds=limits.guard),
            relative_gap_tolerance=_INTEGER_GAP,
            node_limit=_NODES,
            random_seed=limits.seed,
            # Its presolve gains nothing on columns, and prints to stdout.
            presolve=mathopt.Emphasis.OFF,
        )
        result = mathopt.solve(program, mathopt.SolverType.HIGHS, params=parameters)
        if not result.has_primal_feasible_solution():
            return []
        values = result.variable_values()
        matrix = np.zeros_like(self._instance.free)
        for variable, client, column in chosen:
            if values[variable] > 0.5:
                matrix[client, list(column)] = True
        return [matrix]

    def _promising(self, client: int, prices: Prices) -> list[Column]:
        """Return the columns worth most at these prices."""
        weight = float(self._instance.weights[client])
        paid = (prices.load * weight - prices.holder) / self._instance.scale
        shares = self._shares(self._columns[client])

        def worth(column: Column) -> tuple[bool, float]:
            value = self.gain(client, column) - float(paid[list(column)].sum())
            return shares[column] > 1e-9, value

        return sorted(shares, key=worth, reverse=True)[:_KEPT]


class _Rows:
    """Constraints that every form of the master shares."""

    def __init__(self, model: mathopt.Model, instance: Instance, dual: Dual) -> None:
        self._model = model
        self._unit = instance.placement_unit
        self._weights = (instance.weights / self._unit).tolist()
        steep = dual.violation_price * self._unit / instance.scale
        self._one = [model.add_linear_constraint(lb=1.0, ub=1.0) for _ in instance.room]
        self.load = []
        self.holder = []
        for cost, need in zip(dual.costs, instance.holders.tolist(), strict=True):
            row = model.add_linear_constraint(lb=0.0, ub=0.0)
            values = cost.values / instance.scale
            for start in range(len(cost.knots) - 1):
                length = float(cost.knots[start + 1] - cost.knots[start]) / self._unit
                rise = float(values[start + 1] - values[start])
                drained = model.add_variable(lb=0.0, ub=length)
                row.set_coefficient(drained, -1.0)
                model.objective.set_linear_coefficient(drained, -rise / length)
            model.objective.offset -= float(values[0])
            self.load.append(row)
            held = model.add_linear_constraint(lb=float(need))
            missing = model.add_variable(lb=0.0, ub=float(need))
            held.set_coefficient(missing, 1.0)
            model.objective.set_linear_coefficient(missing, -steep)
            self.holder.append(held)

    def enter(
        self, variable: mathopt.Variable, client: int, column: Column, gain: float
    ) -> None:
        """Give a column its coefficients."""
        self._one[client].set_coefficient(variable, 1.0)
        self._model.objective.set_linear_coefficient(variable, gain)
        for expert in column:
            self.load[expert].set_coefficient(variable, self._weights[client])
            self.holder[expert].set_coefficient(variable, 1.0)

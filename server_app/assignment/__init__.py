"""Which client holds which expert: an exact assignment engine, free of Flower.

>>> from server_app.assignment import AssignmentProblem, solve
>>> problem = AssignmentProblem(fitness=[[0.9, 0.1], [0.8, 0.7]], capacity=[1, 1],
...                             lower=1, upper=1)
>>> answer = solve(problem)
>>> answer.matrix.tolist(), answer.status, answer.certified
([[True, False], [False, True]], 'optimal', True)

`problem` states it, `rounding` turns it into the integers of an `instance`, `engine`
chooses a solver: `flow` with `sparsify` and `certificate` for transportation problems,
`columns` (with `oracle`, `prices`, `master`) for byte budgets and weighted loads,
`cp_sat` for whatever is small, `mip` and `greedy` as yardsticks. `relax` explains
bounds that conflict, `fairness` raises floors. `policies` need no solver. `units` are
experts of several layers, and what makes sure of one of each.
"""

from server_app.assignment.engine import explain, solve
from server_app.assignment.problem import AssignmentProblem
from server_app.assignment.solution import Assignment, Infeasibility
from server_app.assignment.units import Units, covering

__all__ = [
    "Assignment",
    "AssignmentProblem",
    "Infeasibility",
    "Units",
    "covering",
    "explain",
    "solve",
]

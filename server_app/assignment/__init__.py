"""Which client holds which expert: an exact assignment engine, free of Flower.

>>> from server_app.assignment import AssignmentProblem, solve
>>> problem = AssignmentProblem(fitness=[[0.9, 0.1], [0.8, 0.7]], capacity=[1, 1],
...                             lower=1, upper=1)
>>> answer = solve(problem)
>>> answer.matrix.tolist(), answer.status, answer.certified
([[True, False], [False, True]], 'optimal', True)

`problem` asks, `rounding` turns that into `integers`, `engine` chooses a solver: `flow`
where sizes and loads are counts, with one layer or several, else `general`. `solution`
is the answer, `relaxed` says which bounds it does not meet. `policies` need no solver.
`expert_layers` numbers the experts of several layers and sees to one of each.
"""

from server_app.assignment.engine import solve
from server_app.assignment.expert_layers import ExpertLayers, covering
from server_app.assignment.problem import AssignmentProblem
from server_app.assignment.solution import Assignment
from server_app.assignment.validation import ProblemError

__all__ = [
    "Assignment",
    "AssignmentProblem",
    "ExpertLayers",
    "ProblemError",
    "covering",
    "solve",
]

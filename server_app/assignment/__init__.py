"""Which client holds which expert: an exact assignment engine, free of Flower.

>>> problem = AssignmentProblem(fitness=[[.9, .1], [.8, .7]], capacity=[1, 1],
...                             lower=[1, 1], upper=[1, 1])
>>> solve(problem).matrix.tolist()
[[True, False], [False, True]]
"""

from server_app.assignment.engine import explain, solve
from server_app.assignment.problem import AssignmentProblem
from server_app.assignment.solution import Assignment, Infeasibility

__all__ = ["Assignment", "AssignmentProblem", "Infeasibility", "explain", "solve"]

"""From a problem in floats to the integers that every solver shares.

Solvers work on int64 and so must agree on the rounding before they can agree on an
optimum. Fitness is rounded here, once, to multiples of ``1 / scale``: a power of two
that leaves about 1e-9 of the largest fitness, less only where the flow's int64 node
prices would overflow. A fitness that is not zero does not become zero. Where so little
is left of typical fitness that the rounding would decide, the problem is refused
(`_refuse_lost`). Data-weighted loads are exact when the weights are whole (samples,
bytes) and at most 2**40, else rounded to 2**-20 of the largest weight.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from server_app.assignment.integers import IntegerProblem, Ints, blocks
from server_app.assignment.problem import AssignmentProblem
from server_app.assignment.validation import ProblemError

__all__ = ["to_integers"]

_COEFFICIENT_BITS = 30
_NODE_PRICE_BITS = 61
_WEIGHT_RESOLUTION = 2**20
#: Whole weights and sizes up to this are taken as they are: sums of them stay far
#: within int64, also when priced.
_MAX_UNITS = 2**40
#: Floats beyond this are no quantities: their squares and sums would overflow.
_MAX_SIZE = 1e100
#: Steps of rounding that a typical gain must keep: fewer would let rounding decide.
_LEAST_STEPS = 512
#: Float noise allowed when a float bound is rounded to a whole load.
_ROUNDING = 1e-9


def to_integers(problem: AssignmentProblem) -> IntegerProblem:
    """Round a problem to integers.

    Parameters
    ----------
    problem : AssignmentProblem
        The problem.

    Returns
    -------
    IntegerProblem
        What every solver works on.

    Raises
    ------
    ValueError
        If numbers are too large, or too far apart to be told apart in int64.
    """
    sizes, capacity = _budget(problem)
    allowed = sizes[None, :] <= capacity[:, None]
    if problem.forbidden is not None:
        allowed = allowed & ~problem.forbidden
    gain = problem.fitness
    if not allowed.all():
        # What cannot be held takes no precision from what can.
        gain = np.where(allowed, gain, 0.0)
    groups = np.full(len(sizes), -1)
    labels = np.zeros(0, dtype=np.int64)
    if problem.groups is not None:
        labels, groups = np.unique(problem.groups, return_inverse=True)
    scale = _scale(gain, len(labels))
    _refuse_lost(gain, scale)
    weights, quantum, lower, upper = _loads(problem)
    return IntegerProblem(
        gain=_whole(gain, scale),
        scale=scale,
        allowed=allowed,
        sizes=sizes,
        capacity=capacity,
        weights=weights,
        quantum=quantum,
        lower=lower,
        upper=upper,
        groups=groups.astype(np.int64),
        labels=labels,
    )


def _whole(gain: NDArray[np.float64], scale: float) -> Ints:
    """Return ``gain * scale`` rounded, block by block: this is the big array."""
    whole = np.empty(gain.shape, dtype=np.int64)
    for rows in blocks(len(gain)):
        some = gain[rows]
        scaled = some * scale
        tiny = (np.abs(scaled) < 1.0) & (some != 0.0)
        np.rint(scaled, out=scaled)
        # A gain that vanished would leave a budget unused.
        scaled[tiny] = np.sign(some[tiny])
        whole[rows] = scaled
    return whole


def _scale(fitness: NDArray[np.float64], groups: int) -> float:
    """Return the power of two at which every int64 sum of every solver is safe."""
    clients, experts = fitness.shape
    largest = max(float(fitness.max()), -float(fitness.min())) or 1.0
    if largest > _MAX_SIZE:
        raise ProblemError(
            f"fitness is up to {largest:g} in size: expected at most {_MAX_SIZE:g}"
        )
    bits = _COEFFICIENT_BITS - float(np.frexp(largest)[1])
    # A bound costs more than any path through all experts can gain, and the flow solver
    # multiplies costs by its number of nodes.
    nodes = clients * (1.0 + groups) + experts + 3.0
    path = (2.0 * experts + 4.0) * nodes
    bits = min(bits, _NODE_PRICE_BITS - np.ceil(np.log2(largest * path)))
    # Beyond this the scale itself would overflow; see `_refuse_lost`.
    return float(2.0 ** min(bits, 900.0))


def _refuse_lost(fitness: NDArray[np.float64], scale: float) -> None:
    """Raise ProblemError if a typical fitness is only a few steps of the rounding.

    One fitness of -1e10 that means "never" would round all others, of about 1, away.
    """
    least = _LEAST_STEPS / scale  # of powers of two: exact
    if 2 * np.count_nonzero(fitness >= least) > np.count_nonzero(fitness > 0.0):
        return  # so is the median, then
    values = fitness[fitness > 0.0]
    if not values.size:
        # Only bounds make anyone hold anything: then the least bad.
        best = np.abs(fitness.max(axis=1))
        values = best[best > 0.0]
    if not values.size or (typical := float(np.median(values))) * scale >= _LEAST_STEPS:
        return
    worst = np.unravel_index(int(np.abs(fitness).argmax()), fitness.shape)
    client, expert = map(int, worst)
    raise ProblemError(
        f"fitness is {fitness[client, expert]:g} for client {client} and expert "
        f"{expert}: beside it solvers would round others, typically {typical:g}, to "
        f"multiples of {1.0 / scale:.2g}; put a pair that must not be held into "
        "forbidden, or bring the numbers closer together"
    )


def _budget(problem: AssignmentProblem) -> tuple[Ints, Ints]:
    """Return sizes and capacities; equal sizes become a count budget."""
    experts = len(problem.lower)
    if problem.sizes is None:
        return np.ones(experts, dtype=np.int64), problem.capacity
    # Only multiples of the common divisor are reachable: smaller numbers, same problem.
    divisor = int(np.gcd.reduce(problem.sizes))
    sizes = problem.sizes // divisor
    largest = int(sizes.argmax())
    if sizes[largest] > _MAX_UNITS:
        raise ProblemError(
            f"sizes of expert {largest} is {problem.sizes[largest]}, "
            f"{sizes[largest]} times their common divisor: expected at most "
            f"{_MAX_UNITS}"
        )
    return sizes, np.minimum(problem.capacity // divisor, sizes.sum())


def _loads(problem: AssignmentProblem) -> tuple[Ints, float, Ints, Ints]:
    """Return client weights, the load of one quantum, and the band in quanta."""
    weights = problem.load_weights
    clients = len(problem.capacity)
    slop = 0.0
    if weights is None or not weights.any():
        whole, quantum = np.ones(clients, dtype=np.int64), 1.0
        if weights is not None:
            whole = np.zeros(clients, dtype=np.int64)
    elif (weights == weights[0]).all():
        whole, quantum = np.ones(clients, dtype=np.int64), float(weights[0])
    elif (weights == np.floor(weights)).all() and weights.max() <= _MAX_UNITS:
        whole = weights.astype(np.int64)
        divisor = int(np.gcd.reduce(whole))
        whole, quantum = whole // divisor, float(divisor)
    else:
        quantum = float(weights.max()) / _WEIGHT_RESOLUTION
        whole = np.rint(weights / quantum).astype(np.int64)
        # Rounded weights may add up to this much beside a bound met exactly.
        slop = clients / 2.0
    ceiling = float(max(whole.sum(), 1)) * 2.0
    low = np.clip(problem.lower / quantum, 0.0, ceiling)
    high = np.clip(problem.upper / quantum, 0.0, ceiling)
    low = low - _ROUNDING * np.maximum(low, 1.0) - slop
    high = high + _ROUNDING * np.maximum(high, 1.0) + slop
    lower = np.ceil(low).astype(np.int64)
    upper = np.floor(high).astype(np.int64)
    return whole, quantum, np.maximum(lower, 0), upper

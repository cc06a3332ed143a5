"""From a problem in floats to the instance in integers that every solver shares.

Solvers work on int64 and so must agree on the rounding before they can agree on an
optimum. Fitness, switching cost and penalty are rounded here, once, to multiples of
``1 / scale``: a power of two that leaves about 1e-9 of the largest coefficient, less
only where a penalty is so steep that the flow's int64 node prices would overflow.
Data-weighted loads are exact when the weights are whole (samples, bytes), else rounded
to 2**-20 of the largest weight.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from server_app.assignment.instance import Instance, Ints, Mask
from server_app.assignment.penalty import LoadPenalty
from server_app.assignment.problem import AssignmentProblem

__all__ = ["compile_instance"]

_COEFFICIENT_BITS = 30
_NODE_PRICE_BITS = 61
_WEIGHT_RESOLUTION = 2**20
#: Float noise allowed when a float bound is rounded to a whole load.
_ROUNDING = 1e-9


def compile_instance(problem: AssignmentProblem) -> Instance:
    """Round a problem to integers and settle its pins.

    Parameters
    ----------
    problem : AssignmentProblem
        The problem. A "max-min" floor is left at zero, for `fairness` to raise.

    Returns
    -------
    Instance
        Integer data shared by every solver.
    """
    clients, experts = problem.fitness.shape
    gain = problem.fitness
    if problem.previous is not None:
        gain = gain - problem.switching_cost * ~problem.previous
    scale = _scale(problem, gain)

    sizes, capacity = _budget(problem)
    allowed = sizes[None, :] <= capacity[:, None]
    if problem.forbidden is not None:
        allowed = allowed & ~problem.forbidden
    fixed, notes = _settle_pins(problem, gain, allowed, sizes, capacity)

    weights, quantum, lower, upper = _loads(problem)
    fixed_count = fixed.sum(axis=0, dtype=np.int64)
    holders = np.zeros(experts, dtype=np.int64)
    if problem.min_holders is not None:
        holders = problem.min_holders - fixed_count
    step = None
    if problem.load_weights is not None and problem.load_penalty:
        step = max(1, round(float(weights.mean())))
    elif (weights == 1).all():
        lower = np.maximum(lower, holders + fixed_count)
        holders = np.zeros_like(holders)
    pinned = np.flatnonzero(fixed.any(axis=1))
    fixed_load = weights[pinned] @ fixed[pinned]

    room = capacity.copy()
    room[pinned] -= fixed[pinned] @ sizes
    free = allowed & ~fixed & (sizes[None, :] <= room[:, None])
    exclusive = tuple(members for members in problem.exclusive if len(members) > 1)
    for members in exclusive:
        taken = fixed[:, members].any(axis=1)
        free[np.ix_(taken, np.asarray(members))] = False

    wanted = np.zeros(clients, dtype=np.int64)
    if isinstance(problem.floor, np.ndarray):
        wanted = problem.floor
    groups, labels, needs = _groups(problem, fixed)
    return Instance(
        gain=_whole(gain, scale),
        scale=scale,
        free=free,
        fixed=fixed,
        sizes=sizes,
        room=room,
        weights=weights,
        quantum=quantum,
        lower=np.maximum(lower - fixed_load, 0),
        upper=upper - fixed_load,
        holders=np.maximum(holders, 0),
        floor=np.maximum(wanted - fixed.sum(axis=1), 0),
        exclusive=exclusive,
        groups=groups,
        labels=labels,
        needs=needs,
        penalty=LoadPenalty(
            weight=problem.load_penalty * scale,
            target=problem.target / quantum,
            step=step,
        ),
        fixed_load=fixed_load,
        notes=notes,
    )


def _whole(gain: NDArray[np.float64], scale: float) -> Ints:
    """Return ``gain * scale`` rounded, with one temporary: this is the big array."""
    scaled = gain * scale
    np.rint(scaled, out=scaled)
    return scaled.astype(np.int64)


def _scale(problem: AssignmentProblem, gain: NDArray[np.float64]) -> float:
    """Return the power of two at which every int64 sum of every solver is safe."""
    clients, experts = gain.shape
    largest = max(float(gain.max()), -float(gain.min())) or 1.0
    bits = _COEFFICIENT_BITS - float(np.frexp(largest)[1])
    # A soft bound costs more than any path through all experts can gain, and the flow
    # solver multiplies costs by its number of nodes.
    reach = 1.0 + max(float(clients), float(np.abs(problem.target).max()))
    steepest = largest + problem.load_penalty * 2.0 * reach
    path = (2.0 * experts + 4.0) * (clients + experts + 3.0)
    bits = min(bits, _NODE_PRICE_BITS - np.ceil(np.log2(steepest * path)))
    squared = problem.load_penalty * reach**2 * experts
    if squared > 0.0:
        bits = min(bits, _NODE_PRICE_BITS - np.ceil(np.log2(squared)))
    # Beyond this the scale itself would overflow: such fitness is zero to everyone.
    return float(2.0 ** min(bits, 900.0))


def _budget(problem: AssignmentProblem) -> tuple[Ints, Ints]:
    """Return sizes and capacities; equal sizes become a count budget."""
    experts = problem.num_experts
    if problem.sizes is None:
        return np.ones(experts, dtype=np.int64), problem.capacity
    # Only multiples of the common divisor are reachable: smaller numbers, same problem.
    divisor = int(np.gcd.reduce(problem.sizes))
    return problem.sizes // divisor, problem.capacity // divisor


def _loads(problem: AssignmentProblem) -> tuple[Ints, float, Ints, Ints]:
    """Return client weights, the load of one quantum, and the band in quanta."""
    weights = problem.load_weights
    clients = problem.num_clients
    slop = 0.0
    if weights is None or not weights.any():
        whole, quantum = np.ones(clients, dtype=np.int64), 1.0
        if weights is not None:
            whole = np.zeros(clients, dtype=np.int64)
    elif (weights == weights[0]).all():
        whole, quantum = np.ones(clients, dtype=np.int64), float(weights[0])
    elif (weights == np.floor(weights)).all():
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


def _settle_pins(
    problem: AssignmentProblem,
    gain: NDArray[np.float64],
    allowed: Mask,
    sizes: Ints,
    capacity: Ints,
) -> tuple[Mask, tuple[str, ...]]:
    """Keep the pins a client can honour, fittest first; say which are dropped."""
    fixed = np.zeros(allowed.shape, dtype=np.bool_)
    notes: list[str] = []
    if problem.pinned is None:
        return fixed, ()
    room = capacity.copy()
    pairs = np.argwhere(problem.pinned)
    order = np.lexsort((pairs[:, 1], -gain[pairs[:, 0], pairs[:, 1]], pairs[:, 0]))
    for client, expert in pairs[order].tolist():
        why = None
        if problem.forbidden is not None and problem.forbidden[client, expert]:
            why = "it is forbidden"
        elif sizes[expert] > room[client]:
            why = "it does not fit beside the other pins"
        else:
            for members in problem.exclusive:
                if expert in members and fixed[client, members].any():
                    why = "an exclusive expert is pinned too"
        if why is None:
            fixed[client, expert] = True
            room[client] -= sizes[expert]
        else:
            notes.append(f"pin of expert {expert} on client {client} dropped: {why}")
    return fixed, tuple(notes)


def _groups(problem: AssignmentProblem, fixed: Mask) -> tuple[Ints, Ints, Mask]:
    """Return dense group numbers, their labels, and which client still needs which."""
    clients, experts = fixed.shape
    if problem.groups is None:
        none = np.full(experts, -1, dtype=np.int64)
        nothing = np.zeros((clients, 0), dtype=np.bool_)
        return none, np.zeros(0, dtype=np.int64), nothing
    labels, dense = np.unique(problem.groups, return_inverse=True)
    needs = np.ones((clients, labels.size), dtype=np.bool_)
    for group in range(labels.size):
        needs[:, group] = ~fixed[:, dense == group].any(axis=1)
    return dense.astype(np.int64), labels, needs

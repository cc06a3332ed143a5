"""Brute force over every matrix, in floats, written apart from the engine.

It shares no code with `server_app.assignment`: it reads the same keyword arguments and
applies the definitions in `AssignmentProblem`'s docstring.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st


class Best(NamedTuple):
    violation: float
    objective: float


def brute_force(arguments: dict[str, Any]) -> Best:
    """Least violation, then highest objective, over all 2 ** (C * E) matrices."""
    fitness = np.asarray(arguments["fitness"], dtype=float)
    clients, experts = fitness.shape
    cells = clients * experts
    codes = np.arange(2**cells)
    x = ((codes[:, None] >> np.arange(cells)) & 1).reshape(-1, clients, experts)
    x = x[_possible(x, arguments)]
    violation = _violation(x, arguments)
    objective = _objective(x, arguments)
    least = violation.min()
    return Best(least, objective[violation <= least + 1e-9].max())


def measure(matrix: np.ndarray, arguments: dict[str, Any]) -> Best:
    """Violation and objective of one matrix; fails if it breaks a hard constraint."""
    x = np.asarray(matrix, dtype=int)[None]
    assert _possible(x, arguments).all(), "a hard constraint is broken"
    return Best(_violation(x, arguments)[0], _objective(x, arguments)[0])


def _possible(x: np.ndarray, arguments: dict[str, Any]) -> np.ndarray:
    experts = x.shape[2]
    sizes = np.asarray(arguments.get("sizes", np.ones(experts)))
    ok = ((x * sizes).sum(axis=2) <= np.asarray(arguments["capacity"])).all(axis=1)
    for client, expert in arguments.get("forbidden", ()):
        ok &= x[:, client, expert] == 0
    for client, expert in arguments.get("pinned", ()):
        ok &= x[:, client, expert] == 1
    for members in arguments.get("exclusive", ()):
        ok &= (x[:, :, list(members)].sum(axis=2) <= 1).all(axis=1)
    return ok


def _load(x: np.ndarray, arguments: dict[str, Any]) -> np.ndarray:
    weights = arguments.get("load_weights", np.ones(x.shape[1]))
    return (x * np.asarray(weights)[:, None]).sum(axis=1)


def _violation(x: np.ndarray, arguments: dict[str, Any]) -> np.ndarray:
    clients, experts = x.shape[1:]
    load, holders, held = _load(x, arguments), x.sum(axis=1), x.sum(axis=2)
    lower = np.asarray(arguments["lower"], dtype=float)
    upper = np.asarray(arguments["upper"], dtype=float)
    need = np.asarray(arguments.get("min_holders", np.zeros(experts)))
    weights = np.asarray(arguments.get("load_weights", np.ones(clients, dtype=int)))
    divisor = np.gcd.reduce(weights) or 1
    # What one missing placement counts: the mean client weight.
    unit = max(1, round(weights.mean() / divisor)) * divisor
    # Loads are multiples of the divisor; so are bounds, rounded inwards.
    lower, upper = (
        np.ceil(lower / divisor) * divisor,
        np.floor(upper / divisor) * divisor,
    )
    stepped = "load_weights" in arguments and arguments.get("load_penalty")
    if (weights == weights[0]).all() and weights[0] and not stepped:
        # Counted loads: holders are loads.
        lower, need = np.maximum(lower, need * unit), np.zeros(experts)
    missed = np.maximum(lower - load, 0) + np.maximum(load - upper, 0)
    total = missed.sum(axis=1)
    floor = np.broadcast_to(arguments.get("floor", 0), (clients,))
    total = total + unit * np.maximum(floor - held, 0).sum(axis=1)
    total = total + unit * np.maximum(need - holders, 0).sum(axis=1)
    if "groups" in arguments:
        groups = np.asarray(arguments["groups"])
        for label in np.unique(groups):
            empty = x[:, :, groups == label].sum(axis=2) == 0
            total = total + unit * empty.sum(axis=1)
    return total


def _objective(x: np.ndarray, arguments: dict[str, Any]) -> np.ndarray:
    fitness = np.asarray(arguments["fitness"], dtype=float)
    gain = fitness.copy()
    if "previous" in arguments:
        shipped = 1 - np.asarray(arguments["previous"], dtype=int)
        gain = gain - np.asarray(arguments.get("switching_cost", 0.0)) * shipped
    total = (x * gain).sum(axis=(1, 2))
    penalty = arguments.get("load_penalty", 0.0)
    if penalty:
        middle = (np.asarray(arguments["lower"]) + np.asarray(arguments["upper"])) / 2
        distance = _load(x, arguments) - arguments.get("target", middle)
        if "load_weights" in arguments:
            weights = np.asarray(arguments["load_weights"])
            divisor = int(np.gcd.reduce(weights)) or 1
            step = max(1, round(weights.mean() / divisor)) * divisor
            distance = np.ceil(np.abs(distance) / step)
        total = total - penalty * (distance**2).sum(axis=1)
    return total


@st.composite
def problems(
    draw: st.DrawFn, *, features: frozenset[str] = frozenset(), cells: int = 9
) -> dict[str, Any]:
    """Small problems; ``features`` switches variants on."""
    experts = draw(st.integers(1, 3))
    clients = draw(st.integers(1, cells // experts))

    def vector(values: st.SearchStrategy[Any], size: int) -> list[Any]:
        return draw(st.lists(values, min_size=size, max_size=size))

    # Few distinct values make ties, negative ones make clients refuse experts.
    level = st.sampled_from([-0.25, 0.0, 0.125, 0.5, 0.51, 0.75, 1.0])
    arguments: dict[str, Any] = {
        "fitness": [vector(level, experts) for _ in range(clients)]
    }
    pair = st.tuples(st.integers(0, clients - 1), st.integers(0, experts - 1))
    pairs = st.lists(pair, max_size=2, unique=True)
    top = clients
    if "weights" in features:
        weights = vector(st.integers(0, 6), clients)
        arguments["load_weights"] = weights
        top = sum(weights)
    lower = vector(st.integers(0, max(1, top // 2 + 1)), experts)
    spread = vector(st.integers(0, top), experts)
    arguments["lower"] = lower
    arguments["upper"] = [a + b for a, b in zip(lower, spread, strict=True)]
    if "sizes" in features:
        arguments["sizes"] = vector(st.integers(1, 5), experts)
        arguments["capacity"] = vector(st.integers(0, 9), clients)
    else:
        arguments["capacity"] = vector(st.integers(0, experts + 1), clients)
    if "switching" in features:
        arguments["previous"] = np.array(
            [vector(st.booleans(), experts) for _ in range(clients)]
        )
        arguments["switching_cost"] = draw(st.sampled_from([0.1, 0.3, 0.6]))
    if "penalty" in features:
        arguments["load_penalty"] = draw(st.sampled_from([0.05, 0.2, 1.0]))
        if draw(st.booleans()):
            arguments["target"] = draw(st.sampled_from([0, 1, 2]))
    if "forbidden" in features:
        arguments["forbidden"] = draw(pairs)
    if "floor" in features:
        arguments["floor"] = vector(st.integers(0, 2), clients)
    if "holders" in features:
        arguments["min_holders"] = vector(st.integers(0, 2), experts)
    if "exclusive" in features and experts > 1:
        arguments["exclusive"] = draw(
            st.sampled_from(
                [[[0, 1]], [list(range(experts))], [[0, 1], [0, experts - 1]]]
            )
        )
        if experts == 2:
            arguments["exclusive"] = [[0, 1]]
    if "groups" in features:
        arguments["groups"] = vector(st.integers(0, 1), experts)
    return arguments

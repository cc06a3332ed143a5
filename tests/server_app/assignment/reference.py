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
    return ok


def _load(x: np.ndarray, arguments: dict[str, Any]) -> np.ndarray:
    weights = arguments.get("load_weights", np.ones(x.shape[1]))
    return (x * np.asarray(weights)[:, None]).sum(axis=1)


def _violation(x: np.ndarray, arguments: dict[str, Any]) -> np.ndarray:
    clients = x.shape[1]
    load = _load(x, arguments)
    lower = np.asarray(arguments["lower"], dtype=float)
    upper = np.asarray(arguments["upper"], dtype=float)
    weights = np.asarray(arguments.get("load_weights", np.ones(clients, dtype=int)))
    divisor = np.gcd.reduce(weights) or 1
    # What one missing placement counts: the mean client weight.
    unit = max(1, round(weights.mean() / divisor)) * divisor
    # Loads are multiples of the divisor; so are bounds, rounded inwards.
    lower, upper = (
        np.ceil(lower / divisor) * divisor,
        np.floor(upper / divisor) * divisor,
    )
    missed = np.maximum(lower - load, 0) + np.maximum(load - upper, 0)
    total = missed.sum(axis=1)
    if "groups" in arguments:
        groups = np.asarray(arguments["groups"])
        for label in np.unique(groups):
            empty = x[:, :, groups == label].sum(axis=2) == 0
            total = total + unit * empty.sum(axis=1)
    return total


def _objective(x: np.ndarray, arguments: dict[str, Any]) -> np.ndarray:
    fitness = np.asarray(arguments["fitness"], dtype=float)
    return (x * fitness).sum(axis=(1, 2))


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
    if "forbidden" in features:
        arguments["forbidden"] = draw(pairs)
    if "groups" in features:
        arguments["groups"] = vector(st.integers(0, 1), experts)
    return arguments

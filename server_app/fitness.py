"""The client-expert fitness matrix Q (FLEX-MoE; METHODS 1).

Pure arrays: rows are clients, columns are experts. What to do with the matrix is the
assignment's business.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.seeding import stream

INITIAL = 0.5
TIE_BREAK = 1e-6


def accuracy_score(accuracy: ArrayLike) -> NDArray[np.float64]:
    """Return s = a, the accuracy-driven score."""
    return np.asarray(accuracy, dtype=np.float64)


def loss_score(loss: ArrayLike, scale: float = 1.0) -> NDArray[np.float64]:
    """Return s = exp(-alpha_L l), the loss-driven score, in (0, 1]."""
    return np.exp(-scale * np.asarray(loss, dtype=np.float64))


def initial_fitness(
    num_clients: int, num_experts: int, seed: int
) -> NDArray[np.float64]:
    """Return Q_0: 0.5 everywhere plus a seeded tie-break of at most 1e-6.

    Each row has a random stream of its own, so a matrix that grows when clients join
    keeps the rows it had.

    Returns
    -------
    ndarray, shape (C, E)
    """
    rows = [stream(seed, "fitness", c).random(num_experts) for c in range(num_clients)]
    noise = np.array(rows).reshape(num_clients, num_experts)
    return INITIAL + TIE_BREAK * noise


def grown(
    fitness: NDArray[np.float64], num_clients: int, seed: int
) -> NDArray[np.float64]:
    """Return the matrix with initial rows added for clients that joined since."""
    known, num_experts = fitness.shape
    if known >= num_clients:
        return fitness
    return np.vstack([fitness, initial_fitness(num_clients, num_experts, seed)[known:]])


def update_fitness(
    fitness: NDArray[np.float64],
    client: int,
    experts: ArrayLike,
    score: ArrayLike,
    rate: float,
) -> None:
    """Move the assigned pairs towards their score, in place (METHODS 1).

    ``Q_t(c,e) = (1 - beta) Q_{t-1}(c,e) + beta s`` for the pairs given; all others
    stay as they are.

    Parameters
    ----------
    fitness : ndarray, shape (C, E)
    client : int
        Row c.
    experts, score : array_like, shape (k,)
        Columns that were assigned and used, and their scores s in [0, 1].
    rate : float
        beta in (0, 1].
    """
    columns = np.asarray(experts, dtype=np.intp)
    fitness[client, columns] += rate * (np.asarray(score) - fitness[client, columns])

"""Fed-MoE's correlation of client models and server experts.

Eq. 4-6 and 11-13 of docs/methods.md, 3. Shapes: n reserved samples, m client models of
the round, K routed experts, P values of one compact model. Pure functions of arrays.
Sums run in a fixed order and through no matrix library, so that a resumed run gives the
same bits with any number of threads.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Vector = NDArray[np.float32]


def correlation(
    gates: Matrix, confidence: Matrix, over: Literal["sum", "mean"] = "sum"
) -> Matrix:
    """Return W = Q P_y^T over the reserved samples (Eq. 4), shape (K, m).

    Parameters
    ----------
    gates : ndarray, shape (n, K)
        Q, the gate's probabilities for every reserved sample (Eq. 3).
    confidence : ndarray, shape (n, m)
        P_y, what every client model gives to the true label.
    over : {"sum", "mean"}
        How the outer products of the samples are put together.
    """
    w = np.einsum("nk,nm->km", gates, confidence)
    return w / len(gates) if over == "mean" else w


def softmax(values: Matrix, axis: int) -> Matrix:
    """Return the softmax along an axis; no overflow, whatever the size of values."""
    powers = np.exp(values - values.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def client_weights(w: Matrix) -> Matrix:
    """Return W^r, the row softmax of W (Eq. 5), shape (K, m): rows sum to one."""
    return softmax(w, axis=1)


def expert_weights(w: Matrix) -> Matrix:
    """Return the softmax of W over the experts, shape (K, m): columns sum to one.

    For a W that is a sum over hundreds of samples: next to it, the 1 - alpha of Eq. 11
    would vanish, and the main expert with it. The authors' published code does the
    same.
    """
    return softmax(w, axis=0)


def server_weights(w: Matrix, alpha: float) -> Matrix:
    """Return W^c, the column softmax of cat(1 - alpha, alpha W) (Eq. 11-12).

    Parameters
    ----------
    w : ndarray, shape (K, m)
        The refreshed correlation, on the scale of probabilities.
    alpha : float
        Weight of the routed experts, in (0, 1]; at 1 there is no main expert.

    Returns
    -------
    ndarray, shape (1 + K, m)
        Columns sum to one; row 0 belongs to the main expert.
    """
    main = np.full((1, w.shape[1]), 1.0 - alpha if alpha < 1 else -np.inf)
    return softmax(np.concatenate([main, alpha * w]), axis=0)


def mixture(weights: Sequence[float] | Matrix, models: Sequence[Vector]) -> Vector:
    """Return sum_j w_j M_j, shape (P,): one row of ``W M``.

    Needs memory for one model, not for a copy of the stack.
    """
    total = np.zeros_like(models[0])
    for weight, model in zip(weights, models, strict=True):
        total += np.float32(weight) * model
    return total


def moved(old: Vector, target: Vector, rate: float) -> Vector:
    """Return (1 - rate) old + rate target, the moving average of Eq. 6 and 13."""
    return np.float32(1 - rate) * old + np.float32(rate) * target

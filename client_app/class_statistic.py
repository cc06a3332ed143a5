"""What a client says of its samples once: class means of a random projection.

Of every sample x, h = relu(W0 x) and z = P h, with W0 and P random, frozen and drawn
from the seed that the server asks with: nothing of them is sent. x is the sample as the
model takes it, flat; of a text, the bag of its tokens. What is said is the mean of z
and the number of samples of every class, and the covariance of z within classes.

Near-copies (frames of one track, exact copies) count as one sample, their mean: as many
samples they would be evidence that nobody has, and clients of one kind fall apart.

Shape suffixes: n samples, D inputs, K classes, q projections.
"""

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray

from client_app.data_description import at_least
from client_app.model_inputs import ModelInputs
from common.data.tokens import PADDING
from common.statistic_noise import noise_covariance
from common.wire import ClassStatistic

Array = NDArray[np.float64]

HIDDEN = 64
"""Random features h of a sample."""

BUCKETS = 4096
"""Token ids are hashed to so many inputs: W0 of a vocabulary would be larger than many
a model."""

_BATCH = 256
_LARGEST = 1e6
"""Where means are cut: inputs are scaled, and what is further out says no more."""


def class_statistic(
    x: torch.Tensor | ModelInputs,
    y: torch.Tensor,
    num_classes: int,
    *,
    seed: int,
    projections: int,
    units: NDArray[np.int64] | None = None,
    noise: float = 0.0,
    private: bool = False,
) -> ClassStatistic:
    """Return what a client says of its training samples.

    Parameters
    ----------
    x : Tensor or ModelInputs, shape (n, *input_shape)
        Token ids where the numbers are whole.
    y : Tensor of int, shape (n,)
    num_classes : int
        K.
    seed, projections : int
        Of the query; q.
    units : ndarray of int, shape (n,), optional
        Which samples are near-copies of each other, by equal numbers.
    noise : float
        Standard deviation of Gaussian noise on the means, in those of a sample within
        its class (``statistic-noise``).
    private : bool
        Whether counts are rounded down to powers of ten, and nothing is said of a class
        of fewer than ten samples (``private-counts``).
    """
    labels = y.cpu().numpy()
    z = np.concatenate(
        [
            _projected(x[start : start + _BATCH], seed, projections)
            for start in range(0, len(labels), _BATCH)
        ]
    )
    z = np.clip(z, -_LARGEST, _LARGEST)
    if units is not None:
        z, labels = _by_unit(z, labels, units)
    counts = np.bincount(labels, minlength=num_classes)
    means: Array = np.zeros((num_classes, projections))
    np.add.at(means, labels, z)
    means /= np.maximum(counts, 1)[:, None]
    within = z - means[labels]
    freedom = len(labels) - int(np.count_nonzero(counts))
    covariance = within.T @ within / max(1, freedom)
    if not freedom:  # one sample a class: its mean would be the sample
        counts = np.zeros_like(counts)
    if private:
        counts = at_least(counts)
    if noise:
        means += noise * _noise(means, covariance, freedom)
    means[counts == 0] = 0
    return ClassStatistic(
        statistic_means=means.ravel().tolist(),
        statistic_counts=counts.tolist(),
        statistic_covariance=covariance[np.triu_indices(projections)].tolist(),
    )


def _by_unit(
    z: Array, labels: NDArray[np.int64], units: NDArray[np.int64]
) -> tuple[Array, NDArray[np.int64]]:
    """Return the mean of every unit, shape (U, q), and its class; of each class one."""
    pairs, unit, sizes = np.unique(
        np.stack([units, labels]), axis=1, return_inverse=True, return_counts=True
    )
    sums: Array = np.zeros((len(sizes), z.shape[1]))
    np.add.at(sums, unit.ravel(), z)
    return sums / sizes[:, None], pairs[1]


def _projected(x: torch.Tensor, seed: int, projections: int) -> Array:
    """Return z of a batch, shape (n, q)."""
    rng = np.random.default_rng(seed)
    inputs = x.cpu().numpy().reshape(len(x), -1)
    if inputs.dtype.kind in "iu":
        inputs = _bags(inputs)
    size = inputs.shape[1]
    first = rng.uniform(-1, 1, (size, HIDDEN)).astype(np.float32) / np.sqrt(size)
    second = rng.standard_normal((HIDDEN, projections)) / np.sqrt(HIDDEN)
    hidden = np.maximum(inputs.astype(np.float32) @ first.astype(np.float32), 0)
    projected: Array = hidden.astype(np.float64) @ second
    return projected


def _bags(tokens: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return how often each bucket occurs, over the root of the tokens there are."""
    bags = np.zeros((len(tokens), BUCKETS), dtype=np.float32)
    # Fibonacci hashing (Knuth, 1973): ids next to each other fall far apart.
    buckets = (tokens.astype(np.uint64) * 2654435769 % 2**32) >> 20
    real = tokens != PADDING
    rows = np.broadcast_to(np.arange(len(tokens))[:, None], tokens.shape)
    np.add.at(bags, (rows[real], buckets[real].astype(np.int64)), 1)
    root = np.sqrt(np.maximum(real.sum(1, keepdims=True), 1))
    # As large as scaled inputs are.
    scaled: NDArray[np.float32] = bags / root.astype(np.float32) * np.sqrt(BUCKETS)
    return scaled.astype(np.float32)


def _noise(means: Array, covariance: Array, freedom: int) -> Array:
    """Return noise of the covariance of a sample within its class, shape (K, q).

    Drawn by a hash of the means themselves, which the server does not know: asked
    again, a device says the same, and answers cannot be averaged.
    """
    digest = hashlib.sha256(means.tobytes() + covariance.tobytes()).digest()
    rng = np.random.default_rng(int.from_bytes(digest, "big"))
    values, vectors = np.linalg.eigh(noise_covariance(covariance, freedom))
    root = vectors * np.sqrt(np.maximum(values, 0))
    drawn: Array = rng.standard_normal(means.shape) @ root.T
    return drawn

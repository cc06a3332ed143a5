"""Random streams that depend on names, not on the order in which they are asked for.

Every random choice of a run draws from ``stream(seed, *path)``: the same path gives
the same numbers in any process, in any order, before and after a resume. No state has
to be kept, and node ids (random per run in Flower) never enter a path.
"""

import hashlib

import numpy as np


def derive(seed: int, *path: str | int) -> int:
    """Return a 63-bit seed for the stream named by ``path``."""
    text = "/".join([str(seed), *(str(item) for item in path)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *path: str | int) -> np.random.Generator:
    """Return the NumPy generator of the stream named by ``path``."""
    return np.random.default_rng(derive(seed, *path))

"""What shape the noise has that ``statistic-noise`` adds to class means.

The client draws noise of it and the server counts with it: one rule for both.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def noise_covariance(covariance: Array, freedom: float) -> Array:
    """Return the covariance of noise of one standard deviation, shape (q, q).

    Parameters
    ----------
    covariance : ndarray, shape (q, q)
        Of a client's samples within their classes.
    freedom : float
        How many samples it was worked out of, less their classes. Under 2 q they are
        too few to know it by direction: then every feature has noise of its own.
    """
    known = freedom >= 2 * len(covariance)
    return covariance if known else np.diag(np.diag(covariance))

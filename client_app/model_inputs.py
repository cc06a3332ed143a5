"""Samples as a model takes them: all at once where they are few, else batch by batch.

A device keeps 150 MB of images in bytes, not the 600 MB they are as float32. The bits
are the same either way: every sample is normalised for itself.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common.cost import AT_ONCE
from common.data import ClientData, Dataset
from common.features import FeatureData
from common.own.mapped import Reading


class ModelInputs:
    """Rows of stored samples; what is asked for of them becomes a tensor.

    Parameters
    ----------
    data : Dataset, ClientData or FeatureData
        Which says how samples are normalised.
    x : ndarray, shape (N, *stored)
        May be mapped from a file.
    rows : ndarray of int64, shape (n,)
        Which of them, in this order.
    device : torch.device
        Where the tensors are.
    """

    def __init__(
        self,
        data: Dataset | ClientData | FeatureData,
        x: NDArray[Any],
        rows: NDArray[np.int64],
        device: torch.device,
    ) -> None:
        self.device = device
        self._data, self._rows = data, rows
        self._stored = Reading(x)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, batch: torch.Tensor | slice) -> torch.Tensor:
        """Return the samples of these positions, shape (B, *input_shape)."""
        if isinstance(batch, torch.Tensor):
            return self._of(self._rows[batch.cpu().numpy()])
        return self._of(self._rows[batch])

    def whole(self) -> torch.Tensor:
        """Return all samples in one tensor, shape (n, *input_shape)."""
        return self._of(self._rows)

    def _of(self, rows: NDArray[np.int64]) -> torch.Tensor:
        stored = self._stored(rows)
        return torch.from_numpy(self._data.normalise(stored)).to(self.device)


def model_inputs(
    data: Dataset | ClientData | FeatureData,
    x: NDArray[Any],
    rows: NDArray[np.int64],
    device: torch.device,
) -> torch.Tensor | ModelInputs:
    """Return samples in one tensor, or as :class:`ModelInputs` where they are many.

    Parameters are those of :class:`ModelInputs`.
    """
    inputs = ModelInputs(data, x, rows, device)
    each = math.prod(data.input_shape) * np.dtype(data.kind).itemsize
    return inputs.whole() if len(rows) * each <= AT_ONCE else inputs

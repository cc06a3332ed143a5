"""What the labels of a client's training samples say to its objective.

In class order, shape (C,). They stay on the client.
"""

import numpy as np
import torch

from common.data import ClientData


def log_frequencies(data: ClientData) -> torch.Tensor:
    """Return the log of the labels' frequencies.

    Half a sample is added to every class (Krichevsky and Trofimov, 1981): one that is
    not here is unlikely, not impossible.
    """
    counts = np.bincount(data.y_train, minlength=data.num_classes) + 0.5
    return torch.from_numpy(np.log(counts / counts.sum()).astype(np.float32))


def classes_present(data: ClientData) -> torch.Tensor:
    """Return 1 for each class with a sample, else 0."""
    counts = np.bincount(data.y_train, minlength=data.num_classes)
    return torch.from_numpy((counts > 0).astype(np.float32))

"""Samples of a client as the tensors that its model takes.

Which samples are a client's own is in ``client_app.session``.
"""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from client_app.model_inputs import ModelInputs, model_inputs
from common.data import ClientData, Dataset, Domain, seen_in
from common.features import Features, identity_of_test
from common.settings import Settings
from common.shape import test_rows

Tensors = tuple[torch.Tensor | ModelInputs, torch.Tensor]
"""Inputs of shape (n, *input_shape), and labels of shape (n,)."""


# Public, so all virtual clients of a process may share it; nothing private is kept.
# Once for each of the usual four domains: clients of different ones take turns.
@lru_cache(maxsize=4)
def shared_test_tensors(
    settings: Settings,
    dataset: Dataset,
    domain: Domain,
    device: torch.device,
    features: Features | None,
) -> Tensors:
    """Return the test set that server and clients share, as a domain sees it."""
    data = seen_in(domain, dataset, dataset.x_test, dataset.y_test)
    identity = "" if features is None else identity_of_test(dataset)
    rows = test_rows(settings, dataset.y_test)
    return tensors_of(data, rows, device, features, identity)


def tensors_of(
    data: ClientData,
    rows: NDArray[np.int64],
    device: torch.device,
    features: Features | None,
    identity: str,
) -> Tensors:
    """Return some samples, by row, as :func:`model_inputs` does, and their labels.

    Parameters
    ----------
    rows : ndarray of int, shape (n,)
    features : Features or None
        What frozen layers give and keep; None leaves the samples as they are.
    identity : str
        What the kept features are named by beside the model; of no use without.
    """
    labels = torch.from_numpy(data.y[rows]).to(device)
    if features is None:
        return model_inputs(data, data.x, rows, device), labels
    kept, chosen = features.rows_of(data, data.x, rows, identity)
    return model_inputs(features.data, kept, chosen, device), labels

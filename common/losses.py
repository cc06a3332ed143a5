"""The cross-entropy that is trained, on devices and on the server."""

import torch
from torch.nn import functional as F


def smoothed_cross_entropy(
    logits: torch.Tensor,
    y: torch.Tensor,
    smoothing: float = 0.0,
    present: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the mean cross-entropy with labels that are smoothed (scalar).

    The share ``smoothing`` of every label goes to all classes alike (Szegedy et al.,
    CVPR 2016), the rest to the class itself.

    Parameters
    ----------
    logits : Tensor, shape (B, C)
    y : Tensor of int, shape (B,)
    smoothing : float
        In [0, 1).
    present : Tensor of float, shape (C,), optional
        1 for the classes that share in it, else 0: what a client has never seen is not
        unlearnt, nor learnt from nothing. At least one.
    """
    if not smoothing or present is None:
        return F.cross_entropy(logits, y, label_smoothing=smoothing)
    alike = (present / present.sum()).expand_as(logits)
    return (1 - smoothing) * F.cross_entropy(logits, y) + smoothing * F.cross_entropy(
        logits, alike
    )

"""What a mixture layer knows of an expert, and the expert that comes with it.

Which expert a model is made of is a setting (:mod:`common.registry`). Who goes to
which one is the layer's business.

Shape suffixes: as in :mod:`common.moe.layer`; N positions of one expert, F hidden
units.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import nn

from common.moe.grouped import run_mlps


class Expert(Protocol):
    """How an expert is made: a class of modules that map features (N, D) to (N, O).

    Its parameters and float buffers are what travels. A forward pass is counted by its
    linear and convolution layers. Two members are optional:

    ``run_together(x_MD, experts, slots_MK)``, a static method, is what
    :func:`run_experts` calls instead of the experts one by one, as fast as they allow.

    ``start_silent()`` lets a new expert add nothing to what goes through it; it is
    called where experts are adapters of a frozen checkpoint.
    """

    def __call__(
        self, in_features: int, hidden: int, out_features: int, scale: float
    ) -> nn.Module:
        """Return a new expert.

        Parameters
        ----------
        in_features, out_features : int
            D and O.
        hidden : int
            Its size, in units of its own.
        scale : float
            Factor of hidden activations; see :class:`common.moe.layer.MoELayer`.
        """


class MLPExpert(nn.Module):
    """Features to class logits, or to features, through one hidden layer."""

    run_together = staticmethod(run_mlps)

    def __init__(
        self, in_features: int, hidden: int, out_features: int, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.scale = scale
        self.hidden = nn.Linear(in_features, hidden)
        self.out = nn.Linear(hidden, out_features)

    def forward(self, x_ND: torch.Tensor) -> torch.Tensor:
        """Map features (N, D) to outputs (N, O)."""
        hidden_NF = torch.relu(self.hidden(x_ND))
        return self.out(hidden_NF if self.scale == 1 else self.scale * hidden_NF)

    def start_silent(self) -> None:
        """Answer 0 until trained."""
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)


def run_experts(
    x_MD: torch.Tensor, experts: Sequence[nn.Module], slots_MK: torch.Tensor
) -> torch.Tensor:
    """Run every expert on the positions that are routed to it.

    Parameters
    ----------
    x_MD : Tensor, shape (M, D)
    experts : sequence of nn.Module
        Of one kind and shape. One without positions takes no part, and its parameters
        get no gradient.
    slots_MK : Tensor of int, shape (M, K)
        Whom each position is routed to: indices of ``experts``, distinct in a row.

    Returns
    -------
    Tensor, shape (M, K, O)
    """
    if torch.compiler.is_exporting():
        # The shapes of a graph do not depend on the data: all run, then some are taken.
        every_MHO = torch.stack([expert(x_MD) for expert in experts], dim=1)
        chosen = slots_MK[:, :, None].expand(-1, -1, every_MHO.shape[2])
        return every_MHO.gather(1, chosen)
    run = getattr(experts[0], "run_together", one_by_one)
    answer: torch.Tensor = run(x_MD, experts, slots_MK)
    return answer


def one_by_one(
    x_MD: torch.Tensor, experts: Sequence[nn.Module], slots_MK: torch.Tensor
) -> torch.Tensor:
    """Do so by one call of each expert that has positions."""
    slots = slots_MK.flatten()
    order_N = slots.argsort(stable=True)
    positions_N = order_N.div(slots_MK.shape[1], rounding_mode="floor")
    counts = torch.bincount(slots, minlength=len(experts)).tolist()
    pairs = zip(experts, x_MD[positions_N].split(counts), strict=True)
    answers = [expert(x_nD) for expert, x_nD in pairs if len(x_nD)]
    if not answers:  # A text of nothing but padding.
        answers = [experts[0](x_MD).detach()]
    out_NO = torch.cat(answers)
    out_NO = torch.empty_like(out_NO).index_copy(0, order_N, out_NO)
    return out_NO.unflatten(0, slots_MK.shape)

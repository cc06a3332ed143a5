"""LoRA as an expert: an update of low rank of a frozen linear layer.

W x becomes W x + sum_e g_e (alpha / r) B_e A_e x, with the gate's weights g_e of the
experts that a token or a text is routed to (Hu et al., ICLR 2022, Sec. 4.1; of one
expert with weight 1, theirs). ``peft`` has layers of this form and they do not fit: its
``lora.Linear`` chooses adapters by name, for whole samples and in inference only, and
its ``XLora`` runs all of them on every token, weighted by a gate for the whole network
that needs a forward pass of its own. Here experts that were not chosen are not run, and
the gate of every layer learns with them.

Where a checkpoint's linear layers are is :mod:`common.linears`.
"""

from collections.abc import Sequence

import torch
from torch import nn

from common.moe.experts import ActsOn, Expert, Updates


class LoRAExpert(nn.Module):
    """A to ``hidden`` features, the rank r, and B back; no bias.

    Parameters
    ----------
    in_features, hidden, out_features : int
        Of the linear layer, with the rank between.
    scale : float
        alpha / r.
    """

    acts_on: ActsOn = "linears"

    def __init__(
        self, in_features: int, hidden: int, out_features: int, scale: float
    ) -> None:
        super().__init__()
        self.scale = scale
        self.a = nn.Linear(in_features, hidden, bias=False)
        self.b = nn.Linear(hidden, out_features, bias=False)

    def forward(self, x_ND: torch.Tensor) -> torch.Tensor:
        """Map what goes into the layer (N, D) to what is added to its answer (N, O)."""
        return self.b(self.scale * self.a(x_ND))

    def start_silent(self) -> None:
        """Add 0 until trained: B starts at zero, A as torch draws it."""
        nn.init.zeros_(self.b.weight)


class PerLinear:
    """A kind of expert that has a module of another kind for every linear layer.

    Parameters
    ----------
    kind : Expert
        Makes the module of one layer.
    sizes : sequence of (int, int)
        Inputs and outputs of the linear layers of a block.
    alpha : float
        Numerator of the scale.
    """

    def __init__(
        self, kind: Expert, sizes: Sequence[tuple[int, int]], alpha: float
    ) -> None:
        self._kind, self._sizes, self._alpha = kind, sizes, alpha

    def __call__(
        self, in_features: int, hidden: int, out_features: int, scale: float
    ) -> Updates:
        """Return one expert; of the sizes only the rank is looked at."""
        del in_features, out_features, scale
        each = self._alpha / hidden
        return Updates(self._kind(i, hidden, o, each) for i, o in self._sizes)

"""What a mixture layer knows of an expert, and the experts of two linear layers.

Which expert a model is made of is a setting (:mod:`common.registry`). Who goes to
which one is the layer's business. A user's own kind is held to what stands here by
:mod:`common.trial`.

Shape suffixes: as in :mod:`common.moe.layer`; N positions of one expert, F hidden
units.
"""

from collections.abc import Sequence
from typing import Any, Literal, Protocol, get_args

import torch
from torch import nn

from common.moe.grouped import run_mlps

ActsOn = Literal["features", "blocks", "linears", "maps"]
"""What experts of a kind take, and what becomes of their answers:

``features``
    (N, D), of samples as a backbone gives them, to class logits; inside an encoder, of
    tokens, to features that are added to them.
``blocks``
    The latter alone, inside a frozen encoder: what a block gives, to what is added.
``linears``
    (N, D), of tokens, as they go into a linear layer of a frozen encoder, to what is
    added to what comes out of it. One expert has one module for each of these layers
    (:class:`Updates`).
``maps``
    (N, D, H, W), of images as a backbone gives them before it averages over places
    (its method ``maps``), to class logits.
"""


class Expert(Protocol):
    """A kind of expert: a class of modules, called with the sizes of one.

    Its parameters and float buffers are what travels, is merged and counts as bytes and
    memory. All other members are optional, on the class:

    ``acts_on``
        An :data:`ActsOn`; without it, ``features``.
    ``flops(x)``
        Floating-point operations of a forward pass of x. Without it they are counted:
        two for each multiply-add of linear and convolution layers.
    ``run_together(x_MD, experts, slots_MK)``
        A static method that answers as :func:`run_experts`, which calls it instead of
        the experts one by one, as fast as they allow.
    ``start_silent()``
        Lets a new expert add nothing to what goes through it; it is called where
        experts are inside a frozen encoder.
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
            Factor of hidden activations; see :class:`common.moe.layer.MoELayer`. Of an
            update of a linear layer, ``lora-alpha`` / ``expert-hidden``.
        """


def acts_on(kind: Any) -> ActsOn:
    """Return what experts of a kind act on.

    Raises
    ------
    ValueError
        If the kind says something else than there is.
    """
    said: ActsOn = getattr(kind, "acts_on", "features")
    if said not in get_args(ActsOn):
        raise ValueError(
            f"acts_on = {said!r} is not allowed: one of {', '.join(get_args(ActsOn))}"
        )
    return said


class Updates(nn.ModuleList):
    """One expert of a block: what it adds to each of the block's linear layers."""


def modules_of(expert: nn.Module) -> list[nn.Module]:
    """Return what an expert consists of: itself, or an update for each linear layer."""
    return list(expert) if isinstance(expert, Updates) else [expert]


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


class AdapterExpert(MLPExpert):
    """The same as a bottleneck adapter (Houlsby et al., ICML 2019)."""

    acts_on: ActsOn = "blocks"


def silence(expert: nn.Module) -> None:
    """Let an expert add nothing, if it knows how."""
    for module in modules_of(expert):
        start = getattr(module, "start_silent", None)
        if start is not None:
            start()


def run_experts(
    x_MD: torch.Tensor, experts: Sequence[nn.Module], slots_MK: torch.Tensor
) -> torch.Tensor:
    """Run every expert on the positions that are routed to it.

    Parameters
    ----------
    x_MD : Tensor, shape (M, D), or of maps, (M, D, H, W)
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

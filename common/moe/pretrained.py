"""An encoder of text around a frozen checkpoint: BERT or GPT-2 with experts inside.

At the chosen depths, the mixture's answer to a block's (normalised) output is added to
it: experts are bottleneck adapters (Houlsby et al., ICML 2019). Or experts act on
linear layers inside the block (:mod:`common.moe.lora`): then the gate sees the
(normalised) input of the block, chooses once, and the answer to what goes into each of
these layers is added to what comes out. New experts add nothing. The frozen base is
none of the model's parts (:mod:`common.moe.bases`).

Shape suffixes: B texts, T tokens, D features, C classes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from common.data import PADDING
from common.hub import SHIFT, blocks_of, with_blocks
from common.moe.bases import installed
from common.moe.encoder import EncoderSpec, Mix, Update, pooled


class PretrainedEncoder(nn.Module):
    """Frozen base, adapters, mean over real tokens, norm and linear head.

    Its own parameters, the part ``extractor``, are norm and head.

    Parameters
    ----------
    spec : EncoderSpec
        ``base`` names the weights; they are looked up when they are needed.
    length : int
        Most tokens of a text.
    num_classes : int
    """

    takes_tokens = True

    def __init__(self, spec: EncoderSpec, length: int, num_classes: int) -> None:
        super().__init__()
        del length  # the base has its positions
        self.spec = spec
        self.out_features = spec.width
        self.norm = nn.LayerNorm(spec.width)
        self.head = nn.Linear(spec.width, num_classes)

    def forward(
        self, tokens_BT: torch.Tensor, mixes: Sequence[Mix | None]
    ) -> torch.Tensor:
        """Map tokens (B, T), or kept features (B, T, D + 1), to logits (B, C)."""
        return self.head(self.norm(self._pooled(tokens_BT, mixes)))

    def features(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        """Return pooled features (B, D) without any adapter."""
        with torch.no_grad():
            return self._pooled(tokens_BT, ())

    def _pooled(
        self, tokens_BT: torch.Tensor, mixes: Sequence[Mix | None]
    ) -> torch.Tensor:
        base = installed(self.spec.base).to(tokens_BT.device)
        done = 0
        if tokens_BT.ndim == 3:  # kept hidden features, and the ids beside them
            hidden_BTD, tokens_BT = tokens_BT[..., :-1], tokens_BT[..., -1].long()
            known = blocks_before_mixtures(self.spec)
            rest = [*blocks_of(base)][known:]
            base, done = with_blocks(base, [_Given(hidden_BTD), *rest]), known - 1
        real_BT = tokens_BT != PADDING
        blocks = blocks_of(base)
        linears = [name for name, _, _ in self.spec.linears]
        hooks: list[RemovableHandle] = []
        for depth, mix in zip(self.spec.moe_layers, mixes, strict=False):
            block = blocks[depth - 1 - done]
            if mix is None:
                continue
            if linears:
                hooks += _updating(block, linears, mix, real_BT)
            else:
                hooks.append(block.register_forward_hook(_adding(mix, real_BT)))
        try:
            out = base(**_asked(tokens_BT))
        finally:
            for hook in hooks:
                hook.remove()
        return pooled(out.last_hidden_state, real_BT)


class _Given(nn.Module):
    """Stands for the first blocks: what they gave is known."""

    def __init__(self, hidden_BTD: torch.Tensor) -> None:
        super().__init__()
        self.hidden_BTD = hidden_BTD

    def forward(self, *_: Any, **__: Any) -> torch.Tensor:
        return self.hidden_BTD


def _asked(tokens_BT: torch.Tensor) -> dict[str, Any]:
    return {
        "input_ids": (tokens_BT - SHIFT).clamp_min(0),
        "attention_mask": (tokens_BT != PADDING).long(),
        "use_cache": False,
    }


def blocks_before_mixtures(spec: EncoderSpec) -> int:
    """Return how many blocks give what no expert has changed.

    An adapter is behind the block of its depth, low-rank updates are inside it.
    """
    return spec.moe_layers[0] - bool(spec.linears)


@torch.no_grad()
def hidden_before_mixtures(spec: EncoderSpec, tokens_BT: torch.Tensor) -> torch.Tensor:
    """Return what the blocks up to the first mixture give, (B, T, D)."""
    base = installed(spec.base)
    blocks = [*blocks_of(base)][: blocks_before_mixtures(spec)]
    found: list[torch.Tensor] = []
    hook = blocks[-1].register_forward_hook(lambda *call: found.append(call[2]))
    try:
        with_blocks(base, blocks)(**_asked(tokens_BT))
    finally:
        hook.remove()
    return found[0]


def _adding(mix: Mix, real_BT: torch.Tensor) -> Callable[..., Any]:
    """Return a hook that adds the mixture's answer to what a block gives."""

    def add(_: nn.Module, __: object, out_BTD: torch.Tensor) -> torch.Tensor:
        # Normalised without parameters: GPT-2's blocks hand on an unnormalised sum.
        seen_BTD = F.layer_norm(out_BTD, out_BTD.shape[-1:])
        return out_BTD + mix(seen_BTD, real_BT)

    return add


def _updating(
    block: nn.Module, linears: Sequence[str], mix: Mix, real_BT: torch.Tensor
) -> list[RemovableHandle]:
    """Let a mixture add its answers to what linear layers of a block give."""
    chosen: list[Update] = []

    def choose(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        x_BTD = args[0] if args else kwargs["hidden_states"]
        seen_BTD = F.layer_norm(x_BTD, x_BTD.shape[-1:])
        chosen[:] = [mix.choose(seen_BTD, real_BT)]

    def adding(number: int) -> Callable[..., Any]:
        def add(_: nn.Module, args: Any, out_BTO: torch.Tensor) -> torch.Tensor:
            [answer] = chosen
            return out_BTO + answer(args[0], number).to(out_BTO.dtype)

        return add

    return [
        block.register_forward_pre_hook(choose, with_kwargs=True),
        *(
            block.get_submodule(name).register_forward_hook(adding(number))
            for number, name in enumerate(linears)
        ),
    ]


def base_flops(encoder: EncoderSpec, tokens: int) -> int:
    """Return the operations of the base's matrices on one text of so many tokens."""
    blocks = blocks_of(installed(encoder.base))
    matrices = (p for p in blocks.parameters() if p.ndim == 2)
    return 2 * tokens * sum(p.numel() for p in matrices)

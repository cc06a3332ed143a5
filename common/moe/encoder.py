"""Encoders of text: mixture layers inside, where a block's feed-forward layer would be.

An encoder maps tokens (B, T) to class logits (B, C) and is handed its mixture layers at
every call: it owns none of them, so that its parameters are the part ``extractor`` and
experts and gates stay parts of their own. What a mixture layer does there (route,
average, leave out) is a function of the tokens' features and of which tokens are real
(:mod:`common.moe.mixing`). Padding is attended to, routed, counted and pooled nowhere.

Shape suffixes: B texts, T tokens, D features, C classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import nn
from torch.nn import functional as F

from common.data.tokens import PADDING
from common.hub import empty_model

INITIAL_STD = 0.02
"""Of embeddings (Devlin et al., NAACL 2019)."""

MASKED = -1e9
"""Added to an attention score of padding: its weight is exactly 0 in float32, and a row
of nothing but padding gives no NaN."""

FEED_FORWARD = 4
"""Hidden units of a block without experts, in units of the encoder's width."""

RoutingLevel = Literal["token", "sequence"]
Update = Callable[[torch.Tensor, int], torch.Tensor]
"""What is added to what comes out of a linear layer, (B, T, O), from what goes into it,
(B, T, D), and its number among those of the block; of experts that are one module, 0.
"""


class Mix(Protocol):
    """What a mixture layer does at its place in an encoder."""

    def choose(self, x_BTD: torch.Tensor, real_BT: torch.Tensor) -> Update:
        """Choose experts by features (B, T, D), of which some are real tokens."""

    def __call__(self, x_BTD: torch.Tensor, real_BT: torch.Tensor) -> torch.Tensor:
        """Choose, and answer the same features: (B, T, D) to (B, T, D)."""


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """Shape of an encoder.

    Attributes
    ----------
    vocabulary : int
        Tokens there are, padding included.
    layers, width, heads : int
        Blocks, features D, attention heads.
    moe_layers : tuple of int
        Depths, from 1, whose feed-forward layer is a mixture; ascending.
    routing : {"token", "sequence"}
        Whether a gate sees each token or the mean of a text's real tokens.
    config, base : str
        Configuration (JSON) and version of a frozen checkpoint inside
        (:mod:`common.moe.pretrained`); empty without one.
    linears : tuple of (str, int, int)
        Name, inputs and outputs of the linear layers of a block that experts act on;
        empty where they act on features.
    alpha : float
        Numerator of the scale of what they add.
    """

    vocabulary: int
    layers: int
    width: int
    heads: int
    moe_layers: tuple[int, ...]
    routing: RoutingLevel = "token"
    config: str = ""
    base: str = ""
    linears: tuple[tuple[str, int, int], ...] = ()
    alpha: float = 1.0

    def empty(self) -> nn.Module:
        """Return a base of this configuration; its weights are anything."""
        with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
            return empty_model(self.config)


class Embedding(nn.Embedding):
    """An embedding that starts small, and for padding at zero."""

    def reset_parameters(self) -> None:
        """Draw from a normal distribution of ``INITIAL_STD``."""
        nn.init.normal_(self.weight, std=INITIAL_STD)
        self._fill_padding_idx_with_zero()


class Attention(nn.Module):
    """Multi-head self-attention that no token pays to padding."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.into = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x_BTD: torch.Tensor, real_BT: torch.Tensor) -> torch.Tensor:
        """Map (B, T, D) to (B, T, D)."""
        query, key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in self.into(x_BTD).chunk(3, dim=2)
        )
        bias = (~real_BT).to(x_BTD.dtype) * MASKED
        mixed = F.scaled_dot_product_attention(
            query, key, value, attn_mask=bias[:, None, None, :]
        )
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm attention and feed-forward layer (Xiong et al., ICML 2020).

    Parameters
    ----------
    mixes : bool
        Whether the feed-forward layer is a mixture, handed in at every call.
    """

    def __init__(self, width: int, heads: int, *, mixes: bool) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm = nn.LayerNorm(width)
        self.mixes = mixes
        self.dense: nn.Module = nn.Identity()
        if not mixes:
            hidden = FEED_FORWARD * width
            self.dense = nn.Sequential(
                nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width)
            )

    def forward(
        self, x_BTD: torch.Tensor, real_BT: torch.Tensor, mix: Mix | None
    ) -> torch.Tensor:
        """Map (B, T, D) to (B, T, D); without ``mix`` a mixture is left out."""
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), real_BT)
        if not self.mixes:
            return x_BTD + self.dense(self.norm(x_BTD))
        return x_BTD if mix is None else x_BTD + mix(self.norm(x_BTD), real_BT)


class TextTransformer(nn.Module):
    """Embedding and position, blocks, mean over real tokens, linear head.

    Parameters
    ----------
    spec : EncoderSpec
    length : int
        Most tokens of a text; shorter batches are fine.
    num_classes : int
    """

    takes_tokens = True

    def __init__(self, spec: EncoderSpec, length: int, num_classes: int) -> None:
        super().__init__()
        self.out_features = spec.width
        self.token = Embedding(spec.vocabulary, spec.width, padding_idx=PADDING)
        self.position = Embedding(length, spec.width)
        self.blocks = nn.ModuleList(
            Block(spec.width, spec.heads, mixes=depth in spec.moe_layers)
            for depth in range(1, spec.layers + 1)
        )
        self.norm = nn.LayerNorm(spec.width)
        self.head = nn.Linear(spec.width, num_classes)
        self._skipped = (None,) * len(spec.moe_layers)

    def forward(
        self, tokens_BT: torch.Tensor, mixes: Sequence[Mix | None]
    ) -> torch.Tensor:
        """Map tokens (B, T) to logits (B, C)."""
        return self.head(self._pooled(tokens_BT, mixes))

    def features(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        """Return pooled features (B, D) of the encoder without its mixtures."""
        return self._pooled(tokens_BT, self._skipped)

    def _pooled(
        self, tokens_BT: torch.Tensor, mixes: Sequence[Mix | None]
    ) -> torch.Tensor:
        real_BT = tokens_BT != PADDING
        x_BTD = self.token(tokens_BT) + self.position.weight[: tokens_BT.shape[1]]
        left = iter(mixes)
        for block in self.blocks:
            x_BTD = block(x_BTD, real_BT, next(left) if block.mixes else None)
        return pooled(self.norm(x_BTD), real_BT)


def pooled(x_BTD: torch.Tensor, real_BT: torch.Tensor) -> torch.Tensor:
    """Return the mean over real tokens, shape (B, D); 0 where there are none."""
    weight_BT1 = real_BT[:, :, None].to(x_BTD.dtype)
    return (x_BTD * weight_BT1).sum(1) / weight_BT1.sum(1).clamp_min(1)

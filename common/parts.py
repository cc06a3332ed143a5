"""The parts of a model by name: what travels, is merged and has a version.

A *part* is ``extractor``, ``expert.<id>``, ``gate`` and, where a strategy feeds the
gate from a frozen network of its own, ``common``; the frozen base inside a pretrained
model, called ``base`` in messages, is none. Where a client is sent several models to
choose from, those parts are of model 0, and ``model<j>.extractor`` and the like are of
model j. Where clients keep them for themselves, the batch norms or the head of an
extractor are parts of their own, ``norm`` and ``head``. A part is one flat float32
vector in a fixed order: the server adds vectors, and one expert is one array on the
wire. Nothing here knows torch; how a module becomes its vector is
:mod:`common.moe.vectors`.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
Layout = tuple[tuple[str, tuple[int, ...]], ...]
"""Name and shape of the tensors in a vector, in order."""

EXTRACTOR, GATE, COMMON, BASE = "extractor", "gate", "common", "base"
NORM, HEAD = "norm", "head"

Mixes = Literal["logits", "probabilities", "sum"]
"""What a gate's weights are applied to; of ``sum``, logits that add up."""


def expert_part(expert: int) -> str:
    """Return the part name of the expert with this global id."""
    return f"expert.{expert}"


def expert_id(part: str) -> int | None:
    """Return the global id a part name carries, None if it is no expert."""
    prefix, _, number = part.partition(".")
    return int(number) if prefix == "expert" and number.isdecimal() else None


def part_of_model(part: str, number: int) -> str:
    """Return the name of a part in one of several models."""
    return f"model{number}.{part}" if number else part


def model_of_part(part: str) -> tuple[int, str]:
    """Return which of several models a part is of, and its name in that one."""
    model, _, name = part.partition(".")
    number = model.removeprefix("model")
    if number != model and number.isdecimal():
        return int(number), name
    return 0, part


def unflatten(vector: Vector, layout: Layout) -> dict[str, Vector]:
    """Cut a part's vector into its named tensors (views, no copy)."""
    sizes = [int(np.prod(shape)) for _, shape in layout]
    pieces = np.split(vector, np.cumsum(sizes)[:-1])
    return {
        name: piece.reshape(shape)
        for (name, shape), piece in zip(layout, pieces, strict=True)
    }

"""How a memory budget is spent: models, waiting requests, the batch being computed.

A device serves beside its training, so what serving may take is fixed when it starts
and kept from then on: a queue that is full refuses, a model that does not fit is
refused. The budget counts what grows with the model and the load; the interpreter and
torch themselves (some hundred MB) are there before it.
"""

import re
from dataclasses import dataclass

import torch
from torch import nn

from common.serving.servable import Servable, SourceError

QUEUE_BYTES = 64 << 20
"""Most that waiting requests may take, however large the budget."""

REQUEST_SAMPLES = 256
"""Most samples in one request, memory permitting."""

COPIES = 4
"""Of a model while a newer one is swapped in: both, and the newer one's file twice,
as mapped and as being copied."""

_OVERHEAD = 4096  # of a message around its samples
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What requests may be.

    Attributes
    ----------
    batch : int
        Samples computed together.
    request_samples : int
        Samples in one request.
    request_bytes : int
        Bytes of one request as a message.
    queue_bytes : int
        Bytes of all requests waiting or being computed, as the model sees them.
    """

    batch: int
    request_samples: int
    request_bytes: int
    queue_bytes: int


def parse_bytes(text: str) -> int:
    """Read ``"800M"``, ``"1.5GB"`` or a plain number of bytes.

    Raises
    ------
    ValueError
        If it is neither.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?)B?", text.strip().upper())
    if match is None:
        raise ValueError(f"{text!r} is no size: expected bytes, or 800M, 1.5G")
    return int(float(match[1]) * _UNITS[match[2]])


def limits_for(servable: Servable, memory: int, batch: int) -> Limits:
    """Divide a budget.

    Parameters
    ----------
    servable : Servable
        Counted :data:`COPIES` times.
    memory : int
        Bytes.
    batch : int
        Samples wanted in a batch; fewer if their activations do not fit.

    Raises
    ------
    SourceError
        If the budget is too small for this model and one sample.
    """
    rest = memory - COPIES * servable.nbytes
    queue = min(QUEUE_BYTES, rest // 2)
    sample = servable.inputs.sample_bytes
    computed = 0
    if queue >= sample:
        computed = (rest - queue) // (activation_bytes(servable) + sample)
    if computed < 1:
        raise SourceError(
            f"the model of {servable.name}, takes {_mb(servable.nbytes)}; {COPIES} "
            "times that (a newer one is loaded beside it) and one sample do not fit "
            f"into a memory budget of {_mb(memory)}"
        )
    samples = min(REQUEST_SAMPLES, queue // sample)
    return Limits(
        batch=min(batch, computed),
        request_samples=samples,
        request_bytes=samples * sample + _OVERHEAD,
        queue_bytes=queue,
    )


@torch.inference_mode()
def activation_bytes(servable: Servable) -> int:
    """Return about what one sample takes while it is computed.

    Four times the input and output of the layer where they are largest: beside them
    there are a shortcut's copy, a convolution's reordered copies of both, and what the
    allocator keeps. (A resnet18 at batch 32 grows by 67 MB; this says 67.)
    """
    largest = 0

    def measure(_: nn.Module, given: tuple[object, ...], result: object) -> None:
        nonlocal largest
        values = [v for v in (*given, result) if isinstance(v, torch.Tensor)]
        largest = max(largest, sum(v.numel() * v.element_size() for v in values))

    leaves = [m for m in servable.predictor.modules() if not [*m.children()]]
    hooks = [module.register_forward_hook(measure) for module in leaves]
    try:
        servable.predictor(zeros(servable, 1))
    finally:
        for hook in hooks:
            hook.remove()
    return 4 * largest


def zeros(servable: Servable, samples: int) -> torch.Tensor:
    """Return prepared samples of nothing, to measure and warm up with."""
    inputs = servable.inputs
    return torch.zeros(samples, *inputs.input_shape, dtype=getattr(torch, inputs.kind))


def _mb(nbytes: int) -> str:
    return f"{nbytes / 1e6:.3g} MB"

"""How a memory budget is spent: models, messages, waiting requests, the batch computed.

A device serves beside its training, so what serving may take is fixed when it starts
and kept from then on: a queue that is full refuses, a model that does not fit is
refused. The budget counts what grows with the model and the load; the interpreter and
torch themselves (some hundred MB) are there before it.
"""

from dataclasses import dataclass

import torch
from torch import nn

from common.errors import SourceError
from common.inputs import sample_bytes
from common.serving.servable import Servable

QUEUE_BYTES = 64 << 20
"""Most that waiting requests may take, however large the budget."""

REQUEST_SAMPLES = 256
"""Most samples in one request, memory permitting."""

COPIES = 4
"""Of a model while a newer one is swapped in: both, and the newer one's file twice,
as mapped and as being copied."""

STREAM_WINDOW = 8
"""Requests of one stream under way; the next is not read before one is answered."""

STANDARD_CALLS = 16
"""The quota of health and reflection: they answer however much the model is asked."""

MESSAGES = 256
"""The largest message is this part of what the first model leaves, or one sample."""

MESSAGE_BYTES = 16 << 20
"""Most of a message that holds more than one sample, however large the budget."""

_OVERHEAD = 4096  # of a message around its samples


@dataclass(frozen=True, kw_only=True)
class ServingLimits:
    """What requests may be.

    Attributes
    ----------
    batch : int
        Samples computed together.
    request_samples, request_bytes : int
        Samples in one request, and its bytes as a message.
    queue_bytes : int
        Bytes of all requests waiting or being computed, as the model sees them.
    calls : int
        Calls at a time, each with the largest message on its way in and the answers of
        a full window on their way out.
    """

    batch: int
    request_samples: int
    request_bytes: int
    queue_bytes: int
    calls: int


def message_bytes(servable: Servable, memory: int) -> int:
    """Return the most bytes of a message: gRPC is told once, when it starts to listen.

    Whatever model comes later, and whichever service is called.
    """
    part = (memory - COPIES * servable.nbytes) // MESSAGES
    return max(min(MESSAGE_BYTES, part), sample_bytes(servable.task) + _OVERHEAD)


def limits_for(
    servable: Servable, memory: int, batch: int, calls: int, message: int
) -> ServingLimits:
    """Divide a budget.

    Parameters
    ----------
    servable : Servable
        Counted :data:`COPIES` times.
    memory : int
        Bytes.
    batch, calls : int
        Samples of a batch and calls at a time, wanted; fewer where they do not fit.
    message : int
        Most bytes that gRPC takes as one message.

    Raises
    ------
    SourceError
        If the budget is too small for this model and one sample, or the sample is
        larger than a message.
    """
    sample = sample_bytes(servable.task)
    if sample + _OVERHEAD > message:
        raise SourceError(
            f"the model of {servable.name}, has samples of {_mb(sample)}, and since "
            f"the start a message may have {_mb(message)}: start again to serve it"
        )
    too_small = SourceError(
        f"the model of {servable.name}, takes {_mb(servable.nbytes)}; {COPIES} "
        "times that (a newer one is loaded beside it) and one sample do not fit "
        f"into a memory budget of {_mb(memory)}"
    )
    rest = memory - COPIES * servable.nbytes
    queue = min(QUEUE_BYTES, rest // 4)
    answer = (STREAM_WINDOW + 1) * answer_bytes(servable)
    samples = min(
        REQUEST_SAMPLES,
        queue // sample,
        (message - _OVERHEAD) // sample,
        max(1, message // answer),
    )
    if samples < 1:
        raise too_small
    each = activation_bytes(servable) + sample
    batch = min(batch, max(1, rest // 4 // each))
    # Compressed and unpacked, by whoever wants it refused; or parsed and prepared.
    place = 2 * message
    left = rest - queue - batch * each - STANDARD_CALLS * place
    calls = min(calls, left // (place + samples * answer))
    if calls < 1:
        raise too_small
    return ServingLimits(
        batch=batch,
        request_samples=samples,
        request_bytes=samples * sample + _OVERHEAD,
        queue_bytes=queue,
        calls=calls,
    )


def answer_bytes(servable: Servable) -> int:
    """Return the most bytes of one sample's answer: probabilities, name of a class."""
    classes = servable.task.classes
    return 4 * len(classes) + max(len(name.encode()) for name in classes)


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
    task = servable.task
    dtype = getattr(torch, task.model_kind)
    return torch.zeros(samples, *task.input_shape, dtype=dtype)


def _mb(nbytes: int) -> str:
    return f"{nbytes / 1e6:.3g} MB"

"""What training some experts takes of a device: memory, operations, bytes to send.

The one home of these formulas: the server turns them into budgets, and
``benchmarks/device_memory.py`` holds them against the measured peak of real processes.
A cost is an array over the number of experts held in each layer: entry ``k - 1`` is for
``k`` of every layer, or as many however they are mixed.

Memory counts what ``client_app.app`` keeps while it answers one order, beyond what its
process had before (interpreter, torch, data set)::

    train(k)  = (COPIES + m + j - 1) P(k) + T + B a_train + X(n, B)
    choose(k) = (2 j + 1) P(k) + V a_eval + X(n, V)             where j > 1
    eval(k)   = (COPIES + j - 2) P(k) + V a_eval + X(v, V)
    memory    = max(train, choose, eval) + RUNTIME + FROZEN_COPIES F

with P(k) = psi + k theta the bytes of the parts held (theta: one expert of every
layer), m the copies that training holds beside (:func:`training_copies`), j the models
received to choose from (all of them in the message, and while they are tried as vectors
too), T the largest single tensor (weight decay makes a temporary of it), a the bytes of
activations a sample needs, B the batch and V the evaluation batch, n and v the samples
trained and evaluated on, X the bytes of their inputs (all of them up to ``AT_ONCE``,
one batch of more), F the bytes of a frozen checkpoint.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from common.local_method import PLAIN, LocalMethod
from common.moe.bases import installed
from common.moe.experts import modules_of, run_experts
from common.moe.routing import Routed
from common.moe.spec import ModelSpec
from common.optimizers import state_copies
from common.parts import EXTRACTOR, GATE, expert_part
from common.settings.training_settings import TrainingSettings
from common.wire.codec import Dtype, encoded_size

COPIES = 4
"""Message, received vectors, weights, gradients."""

HALF = 0.5
"""Of the weights in 16 bits, which mixed precision computes with."""

FROZEN_COPIES = 2
"""Of a frozen base: the module, and the bytes it was made of."""

BACKWARD = 3
"""A training step costs about three forward passes."""

AT_ONCE = 2**25
"""Bytes of inputs that are prepared before they are needed; of more, one batch is."""

EVALUATION_WORK = 2.0**30
"""Operations of a batch that is evaluated: some 30 ms on one core."""

TRANSIENT = 3
"""Largest activations alive at the same time: a layer's input, output and gradient.
Of experts it is one: what they keep, or its gradient."""

RUNTIME = 64 * 2**20
"""What torch, its allocator and Flower take on top: fitted to the measured cases of
``benchmarks/device_memory.py``, up to 87 MiB there, and less where the copies of large
parts are never all alive at the same time."""

FLOAT = 4
Costs = NDArray[np.float64]


def training_memory(
    spec: ModelSpec,
    *,
    batch: int,
    train_samples: int,
    test_samples: int,
    more_copies: float = 0,
    candidates: int = 1,
) -> Costs:
    """Return the bytes that training takes beyond the idle process, shape (E,).

    Parameters
    ----------
    spec : ModelSpec
    batch : int
        Samples in a training batch, B.
    train_samples, test_samples : int
        n and v; 0 test samples where nothing is evaluated.
    more_copies : float
        m.
    candidates : int
        j, at least 1.
    """
    k = np.arange(1, spec.num_experts + 1, dtype=np.float64)
    expert, backbone = _activations(spec)
    others = spec.num_layers - 1
    extractor = sum(spec.nbytes(part) for part in (EXTRACTOR, *spec.apart))
    parts = extractor + k * spec.set_nbytes
    routed = np.minimum(spec.top_k or k, k)
    # A budget that is mixed unevenly leaves one of every layer, and the rest to one.
    fullest = np.minimum(k + others * (k - 1), spec.num_experts)
    widest = np.maximum(
        TRANSIENT * backbone.largest,
        np.minimum(spec.top_k or fullest, fullest) * expert.largest,
    )
    inputs = float(spec.example().nbytes)
    largest = max(
        FLOAT * float(np.prod(shape))
        for part in (EXTRACTOR, *spec.apart, *map(expert_part, spec.one_of_each))
        for _, shape in spec.layout(part)
    )
    saved = backbone.saved + routed * expert.saved
    held = parts + spec.nbytes(GATE)
    train = (
        (COPIES + more_copies + candidates - 1) * held
        + np.maximum(largest, batch * (saved + widest))
        + _prepared(inputs, train_samples, batch)
    )

    def forward(copies: int, samples: int) -> Costs:
        at_once = min(samples, evaluation_batch(spec))
        return copies * held + at_once * widest + _prepared(inputs, samples, at_once)

    most = np.maximum(train, forward(COPIES + candidates - 2, test_samples))
    if candidates > 1:
        most = np.maximum(most, forward(2 * candidates + 1, train_samples))
    return RUNTIME + FROZEN_COPIES * spec.base_nbytes + most


def training_copies(settings: TrainingSettings, method: LocalMethod = PLAIN) -> float:
    """Return m, the copies that optimizer, precision and method hold beside.

    Raises
    ------
    SettingsError
        If the optimizer cannot be used.
    """
    half = 0 if settings.precision == "float32" else HALF
    each = state_copies(settings) + half
    return method.more_copies + each * method.models


def _prepared(sample: float, samples: int, batch: int) -> float:
    every = sample * samples
    return every if every <= AT_ONCE else sample * batch


def evaluation_batch(spec: ModelSpec) -> int:
    """Return how many samples to evaluate at once, 32 to 512, EVALUATION_WORK in all.

    That is with as many experts as ever see a sample: of soft routing, all. Enough that
    the calls do not count, and no more: activations of tens of megabytes leave the
    caches, and the allocator asks the system for each of them anew, beside what
    training has freed. That is half of the time of 512 images in a convolution, and
    would be the peak of a device.
    """
    return int(np.clip(EVALUATION_WORK / (training_work(spec)[-1] / BACKWARD), 32, 512))


def training_work(spec: ModelSpec) -> Costs:
    """Return the operations that training one sample once takes, shape (E,)."""
    k = np.arange(1, spec.num_experts + 1, dtype=np.float64)
    routed = np.minimum(spec.top_k or k, k)
    always = spec.flops(EXTRACTOR) + spec.flops(GATE)
    return BACKWARD * (always + routed * spec.set_flops)


def upload(
    spec: ModelSpec, dtype: Dtype = "float32", private: Iterable[str] = ()
) -> Costs:
    """Return the bytes that a reply with deltas so encoded carries, shape (E,).

    Without the parts that stay with the client.
    """
    k, kept = np.arange(1, spec.num_experts + 1, dtype=np.float64), {*private}
    extractor, *experts = (
        0 if part in kept else encoded_size(spec.layout(part), dtype)
        for part in (EXTRACTOR, *map(expert_part, spec.one_of_each))
    )
    return extractor + k * sum(experts)


class _Activations:
    """Bytes that what is called needs for one sample.

    Attributes
    ----------
    saved : float
        Kept from the forward to the backward pass.
    largest : float
        Of the largest single activation.

    Parameters
    ----------
    weights : iterable of Parameter
        What the call computes with: no activations.
    """

    def __init__(
        self,
        call: Callable[[torch.Tensor], torch.Tensor | Routed],
        x: torch.Tensor,
        weights: Iterable[nn.Parameter],
    ) -> None:
        kept: dict[int, int] = {}
        sizes = [x.numel()]
        given = {p.data_ptr() for p in weights}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.data_ptr() not in given:
                kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
                if tensor.is_floating_point():
                    sizes.append(tensor.numel())
            return tensor

        def unpack(tensor: torch.Tensor) -> torch.Tensor:
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, unpack):
            out = call(x)
        sizes.append((out.logits if isinstance(out, Routed) else out).numel())
        self.saved = float(sum(kept.values()))
        self.largest = float(FLOAT * max(sizes))


@lru_cache(maxsize=64)
def _activations(spec: ModelSpec) -> tuple[_Activations, _Activations]:
    """Return what a routed sample needs in one expert of each layer, and elsewhere."""
    model = spec.build(spec.one_of_each).train()
    first = next(iter(model.layers[0].experts.values()))
    routed = torch.zeros(spec.positions, 1, dtype=torch.long)
    expert, *others = (
        _Activations(
            lambda x, module=module: run_experts(x, [module], routed),  # type: ignore[misc]
            x,
            module.parameters(),
        )
        for module, x in zip(modules_of(first), model.expert_examples(), strict=True)
    )
    for other in others:
        expert.saved += other.saved
        expert.largest = max(expert.largest, other.largest)
    if spec.encoder is None:
        extractor = model.extractor
        return expert, _Activations(extractor, spec.example(), extractor.parameters())
    expert.saved *= spec.num_layers
    # Layers inside an encoder keep copies of their own; experts are counted apart.
    # The difference of two samples and one leaves out what does not depend on samples.
    base = installed(spec.base).parameters() if spec.built_around else []
    weights = [*model.parameters(), *base]
    whole, two = (_Activations(model, spec.example(n), weights) for n in (1, 2))
    whole.saved = two.saved - whole.saved - expert.saved
    return expert, whole

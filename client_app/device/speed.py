"""How fast this device trains one expert: a short benchmark, measured once.

Kept in the device's state directory, so that only its first run pays for it. Only a
device of its own is measured; a virtual client shares its machine with all others.
"""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from math import inf
from pathlib import Path

import torch
from torch.nn import functional as F

from common.cost import BACKWARD
from common.files import atomic_write
from common.moe import ModelSpec
from common.moe.experts import modules_of
from common.optimizers import SGD

SECONDS = 0.2
FILE = "speed.json"


def training_speed(spec: ModelSpec, batch: int, state_dir: str = "") -> float:
    """Return floating-point operations per second in training one expert.

    Parameters
    ----------
    spec : ModelSpec
        Whose experts are trained.
    batch : int
        Samples in a batch.
    state_dir : str
        Where the result is kept; "" measures every time.
    """
    threads = torch.get_num_threads()
    expert = f"{spec.expert} {spec.layout('expert.0')}"
    shape = f"{expert} x{batch} on {threads} ({torch.__version__})"
    path = Path(state_dir) / FILE
    known = _known(path) if state_dir else {}
    if (speed := known.get(shape)) is None:
        speed = known[shape] = measure(spec, batch)
        if state_dir:
            with suppress(OSError), atomic_write(path) as file:
                file.write(json.dumps(known).encode())
    return speed


def _known(path: Path) -> dict[str, float]:
    """Return what was measured before, as far as the file can be trusted."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")).items()
        return {str(shape): float(speed) for shape, speed in found if 0 < speed < inf}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def step_seconds(
    spec: ModelSpec, experts: int, batch: int, seconds: float = SECONDS
) -> float:
    """Train a whole model on nothing for a while; return the seconds of one step.

    Parameters
    ----------
    spec : ModelSpec
    experts : int
        Held of each layer.
    batch : int
        Samples in a batch.
    seconds : float
        How long, at least one step.
    """
    held = [first + each for first in spec.one_of_each for each in range(experts)]
    model = spec.build(held).train()
    x, y = spec.example(batch), torch.arange(batch) % spec.num_classes
    parameters = [each for each in model.parameters() if each.requires_grad]
    optimizer = SGD(parameters, lr=1e-3, momentum=0.9, weight_decay=0)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x).logits, y).backward()
        optimizer.step()

    return _each(step, seconds)


def measure(spec: ModelSpec, batch: int, seconds: float = SECONDS) -> float:
    """Train one expert on noise for a while; return operations per second."""
    model = spec.build(spec.one_of_each)
    expert = next(iter(model.layers[0].experts.values()))
    generator = torch.Generator().manual_seed(0)
    inputs = [x.normal_(generator=generator) for x in model.expert_examples(batch)]
    pairs = list(zip(modules_of(expert), inputs, strict=True))
    optimizer = SGD(expert.parameters(), lr=1e-3, momentum=0.9, weight_decay=0)

    def step() -> None:
        optimizer.zero_grad()
        loss = torch.stack([module(x).square().mean() for module, x in pairs]).sum()
        loss.backward()
        optimizer.step()

    return BACKWARD * spec.flops("expert.0") * batch / _each(step, seconds)


def _each(step: Callable[[], None], seconds: float) -> float:
    """Repeat a step for a while; return what one of them takes."""
    step()  # the first one allocates
    steps, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds or not steps:
        step()
        steps += 1
    return elapsed / steps

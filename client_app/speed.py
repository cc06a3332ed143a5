"""How fast this device trains one expert: a short benchmark, measured once.

Kept in the device's state directory, so that only its first run pays for it. Only a
device of its own is measured; a virtual client shares its machine with all others.
"""

import json
import time
from contextlib import suppress
from pathlib import Path

import torch
from torch.nn import functional as F

from client_app.sgd import SGD
from common.files import atomic_write
from common.moe import ModelSpec
from common.moe.cost import BACKWARD
from common.moe.layer import Expert

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
    shape = f"{spec.layout('expert.0')} x{batch} on {threads} ({torch.__version__})"
    path = Path(state_dir) / FILE
    known: dict[str, float] = {}
    if state_dir:
        with suppress(OSError, ValueError):
            known = dict(json.loads(path.read_text()))
    if (speed := known.get(shape)) is None:
        speed = known[shape] = measure(spec, batch)
        if state_dir:
            with suppress(OSError), atomic_write(path) as file:
                file.write(json.dumps(known).encode())
    return float(speed)


def measure(spec: ModelSpec, batch: int, seconds: float = SECONDS) -> float:
    """Train one expert on noise for a while; return operations per second."""
    (_, (hidden, features)), _, (_, (outputs, _)), _ = spec.layout("expert.0")
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        expert = Expert(features, hidden, outputs)
    rows = batch * spec.positions
    x = torch.randn(rows, features, generator=generator)
    y = torch.randint(outputs, (rows,), generator=generator)
    optimizer = SGD(expert.parameters(), lr=1e-3, momentum=0.9, weight_decay=0)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(expert(x), y).backward()
        optimizer.step()

    step()  # the first one allocates
    steps, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        step()
        steps += 1
    return BACKWARD * spec.flops("expert.0") * batch * max(steps, 1) / elapsed

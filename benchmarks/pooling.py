"""The convolutional backbone with its own max-pooling and with torch's, in turns.

``python -m benchmarks.pooling`` times a training step and an evaluation of the same
model on one thread and prints medians of the CPU time and of the ratios.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import nn

from benchmarks.colour_images import spec_of, training_step
from client_app.device.allocator import keep_freed_memory
from common.cost import evaluation_batch
from common.moe.pooling import MaxPool2x2

SPEC = spec_of("cnn")
REPEATED = 4


def steps(batch: int, pool: Callable[[], nn.Module]) -> list[Callable[[], object]]:
    """Return what trains one batch, and what evaluates one."""
    model = SPEC.build((0, 1)).train()
    stages = model.extractor.get_submodule("stages")
    for name, stage in stages.named_children():
        if isinstance(stage, MaxPool2x2):
            setattr(stages, name, pool())
    unseen = torch.randn(evaluation_batch(SPEC), *SPEC.input_shape)

    @torch.inference_mode()
    def evaluate() -> None:
        model(unseen)

    return [training_step(model, batch), evaluate]


def milliseconds(step: Callable[[], object]) -> float:
    """Return the CPU time of one step."""
    started = time.process_time()
    for _ in range(REPEATED):
        step()
    return 1e3 * (time.process_time() - started) / REPEATED


def main() -> None:
    """Print one line per batch size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=11)
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    print("batch            torch ms  own ms  ratio")
    for batch in (16, 32, 64):
        both = zip(
            ("train", "evaluate"),
            steps(batch, lambda: nn.MaxPool2d(2)),
            steps(batch, MaxPool2x2),
            strict=True,
        )
        for name, torchs, own in both:
            torchs(), own()  # the first ones allocate
            taken = [
                (milliseconds(torchs), milliseconds(own)) for _ in range(args.repeats)
            ]
            first, second = (median(each) for each in zip(*taken, strict=True))
            ratio = median(b / a for a, b in taken)
            print(f"{batch:5d} {name:9s} {first:9.2f} {second:7.2f} {ratio:6.2f}")


if __name__ == "__main__":
    main()

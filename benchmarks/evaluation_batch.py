"""How long an image takes to evaluate, by how many are evaluated at once.

``python -m benchmarks.evaluation_batch`` runs the model forward, as evaluation does, on
one thread, in the batch that ``common.cost`` chooses and in others, in turns; it
prints medians of the CPU time of an image, and how much of that the system took.
"""

import argparse
import resource
from statistics import median

import torch

from benchmarks.colour_images import spec_of
from common.cost import evaluation_batch
from common.moe.model import MoEModel

BATCHES = (16, 32, 64, 128, 256, 512)


@torch.inference_mode()
def taken(model: MoEModel, x: torch.Tensor, batch: int) -> tuple[float, float]:
    """Return the CPU seconds of one pass over the samples, and the system's share."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    for part in x.split(batch):
        model(part)
    after = resource.getrusage(resource.RUSAGE_SELF)
    system = after.ru_stime - before.ru_stime
    whole = after.ru_utime - before.ru_utime + system
    return whole, system / whole


def main() -> None:
    """Print one line per backbone and batch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbones", default="mlp,cnn,resnet8")
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("backbone  batch   us an image   system")
    for backbone in args.backbones.split(","):
        spec = spec_of(backbone)
        model, x = spec.build((0, 1)).eval(), torch.randn(args.images, 3, 32, 32)
        chosen = evaluation_batch(spec)
        sizes = sorted({*BATCHES, chosen})
        rounds = [
            [taken(model, x, size) for size in sizes] for _ in range(args.repeats)
        ]
        for size, measured in zip(sizes, zip(*rounds, strict=True), strict=True):
            seconds, system = (median(each) for each in zip(*measured, strict=True))
            mark = "  <- chosen" if size == chosen else ""
            microseconds = 1e6 * seconds / args.images
            print(f"{backbone:9s} {size:5d} {microseconds:13.1f} {system:7.0%}{mark}")


if __name__ == "__main__":
    main()

"""What a training step takes when freed memory stays in the process, and when not.

``python -m benchmarks.freed_memory`` trains models on one thread in processes that call
``client_app.device.allocator.keep_freed_memory`` and in ones that leave the C library
as it is, in turns. It prints medians of the CPU time of a step, their ratio, the
system's share and the peak of a process's memory.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from statistics import median

import torch

from benchmarks.colour_images import spec_of, training_step
from client_app.device.allocator import keep_freed_memory

CASES = [(b, n) for b in ("mlp", "cnn", "resnet8") for n in (16, 32, 64)]
SECONDS = 1.0

Measured = tuple[float, float, float]


def train(backbone: str, batch: int) -> Measured:
    """Return milliseconds of a step, the system's share, and the peak in MiB so far."""
    step = training_step(spec_of(backbone).build((0, 1)).train(), batch)
    for _ in range(5):
        step()
    steps, before = 0, resource.getrusage(resource.RUSAGE_SELF)
    started = time.process_time()
    while time.process_time() - started < SECONDS:
        step()
        steps += 1
    after = resource.getrusage(resource.RUSAGE_SELF)
    system = after.ru_stime - before.ru_stime
    whole = after.ru_utime - before.ru_utime + system
    return 1e3 * whole / steps, system / whole, after.ru_maxrss / 1024


def child(*, kept: bool) -> None:
    """Train every case in this process and print what it took, as JSON."""
    torch.set_num_threads(1)
    if kept and not keep_freed_memory():
        raise RuntimeError("this C library's allocator cannot be told")
    print(json.dumps([train(*case) for case in CASES]))


def measure(mode: str) -> list[Measured]:
    """Train every case in a new process."""
    command = [sys.executable, "-m", "benchmarks.freed_memory", "--child", mode]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return [tuple(case) for case in json.loads(done.stdout)]


def main() -> None:
    """Print one line per backbone and batch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--child", choices=["kept", "default"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(kept=args.child == "kept")
    runs = [(measure("default"), measure("kept")) for _ in range(args.repeats)]
    print("                default                    kept")
    print("backbone batch  ms a step  system  MiB    ms a step  system  MiB    ratio")
    for i, (backbone, batch) in enumerate(CASES):
        default, kept = (
            [median(run[mode][i][value] for run in runs) for value in range(3)]
            for mode in range(2)
        )
        ratios = sorted(run[1][i][0] / run[0][i][0] for run in runs)
        print(
            f"{backbone:8s} {batch:5d}"
            + "".join(f"  {m:9.2f} {s:7.0%} {p:5.0f}  " for m, s, p in (default, kept))
            + f"  {median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )
    return None


if __name__ == "__main__":
    main()

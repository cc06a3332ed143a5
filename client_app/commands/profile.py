"""``python -m client_app profile``: what the server would be told of this device."""

import argparse
import json
from dataclasses import asdict

import torch

from client_app.device.allocator import keep_freed_memory
from client_app.device.profiler import profile
from client_app.device.speed import measure
from common.moe import ModelSpec
from common.settings.training_settings import TrainingSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m client_app profile``."""
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument(
        "--state-dir", default="state", metavar="DIR", help="whose disk to look at"
    )


def main(args: argparse.Namespace) -> int:
    """Print the profile."""
    # As a run trains unless it says otherwise.
    torch.set_num_threads(TrainingSettings().threads)
    keep_freed_memory()
    found = profile(args.state_dir)
    spec = ModelSpec(
        backbone="mlp",
        input_shape=(1, 8, 8),
        num_classes=10,
        num_experts=1,
        expert_hidden=512,
        top_k=1,
    )
    speed = measure(spec, TrainingSettings().batch_size)
    if args.json:
        print(json.dumps({**asdict(found), "flops_per_second": speed}, indent=2))
        return 0
    print("\n".join(found.lines()))
    print(f"{'training speed':<17} {speed / 1e9:.3g} GFLOP/s, one expert, one batch")
    return 0

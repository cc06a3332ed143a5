"""``expertfleet device profile``: what the server would be told of this device."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from client_app.device.allocator import keep_freed_memory
from client_app.device.profiler import profile
from common.settings.training_settings import TrainingSettings


def command(
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
    state_dir: Annotated[
        str, typer.Option(metavar="DIR", help="whose disk to look at")
    ] = "state",
) -> int:
    """Print the profile."""
    # Late: help and completion are to be there at once.
    import torch

    from client_app.device.speed import measure
    from common.moe import ModelSpec

    # As a run trains unless it says otherwise.
    torch.set_num_threads(TrainingSettings().threads)
    keep_freed_memory()
    found = profile(state_dir)
    spec = ModelSpec(
        backbone="mlp",
        input_shape=(1, 8, 8),
        num_classes=10,
        num_experts=1,
        expert_hidden=512,
        top_k=1,
    )
    speed = measure(spec, TrainingSettings().batch_size)
    if as_json:
        print(json.dumps({**asdict(found), "flops_per_second": speed}, indent=2))
        return 0
    print("\n".join(found.lines()))
    print(f"{'training speed':<17} {speed / 1e9:.3g} GFLOP/s, one expert, one batch")
    return 0

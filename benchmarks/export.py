"""Exported files beside torch: bytes and milliseconds of one sample on one thread.

``python -m benchmarks.export`` exports a digits mixture after ``--rounds`` rounds, with
its accuracy on the global test set, and a device's model (2 of 8 experts, made-up
weights) of every backbone. ExecuTorch has a column of numbers where it is installed.
Latencies are medians over the repetitions, round robin.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common.data import Normaliser, load_dataset
from common.moe import ModelSpec
from common.moe.ensemble import GatedMixture
from common.serving import export
from common.serving.graph_input import samples_for, stored
from common.serving.onnx_file import onnx_runner
from common.serving.servable import Servable
from common.task.known import task_of_shape
from server_app.commands.simulate import simulate
from server_app.run_source import RunSource

Call = Callable[[NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]


def device_model(backbone: str) -> Servable:
    """Return what a device holds after training, but for the values."""
    shape = (1, 8, 8) if backbone == "mlp" else (3, 32, 32)
    spec = ModelSpec(
        backbone=backbone,
        input_shape=shape,
        num_classes=10,
        num_experts=8,
        expert_hidden=32,
        top_k=1,
    )
    return Servable(
        predictor=GatedMixture(spec.build([0, 1])),
        task=task_of_shape(shape, 10, Normaliser(scale=255.0), 0),
        run=f"device, {backbone}",
        server_round=0,
        experts=(0, 1),
    )


def by_torch(servable: Servable) -> Call:
    """Return the model itself, called as the files are."""
    module = export.Exportable(servable.predictor, servable.task).eval()

    @torch.inference_mode()
    def run(x: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        probabilities, experts = module(torch.from_numpy(x))
        return probabilities.numpy(), experts.numpy()

    return run


def exported(
    servable: Servable, folder: Path, calibration: NDArray[Any]
) -> dict[str, tuple[int, float, Call]]:
    """Write every format; give bytes, difference from torch and a way to call it."""
    found = {"torch": (servable.nbytes, 0.0, by_torch(servable))}
    for name, samples in (("onnx", None), ("onnx int8", calibration)):
        written = export.export_onnx(servable, folder / f"{name}.onnx", samples)
        call = onnx_runner(written.path)
        found[name] = (written.nbytes, written.difference, call)
    try:
        written = export.export_executorch(servable, folder / "model.pte")
    except export.ExportError as error:
        print(f"(no ExecuTorch: {error})")
    else:
        call = export.executorch_runner(written.path)
        found["executorch"] = (written.nbytes, written.difference, call)
    return found


def latencies(
    calls: dict[str, Call], x: NDArray[Any], repeats: int
) -> dict[str, float]:
    """Return the median milliseconds of one sample."""
    seen: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats + 3):
        for name, call in calls.items():
            begun = time.perf_counter()
            call(x)
            if repeat >= 3:
                seen[name].append(1000 * (time.perf_counter() - begun))
    return {name: statistics.median(values) for name, values in seen.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=200)
    args = parser.parse_args()
    torch.set_num_threads(1)
    digits = load_dataset("digits", ".")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        simulate({"num-rounds": args.rounds, "output-dir": f"{name}/results"}, 20)
        [run] = (folder / "results").iterdir()
        models = {"server, digits": (RunSource(run).load(), digits.x_train[:200])}
        for backbone in ("mlp", "cnn", "resnet8", "resnet18"):
            servable = device_model(backbone)
            models[servable.run] = (servable, samples_for(servable.task, 64))
        head = (
            f"{'':18} {'format':11}  {'bytes':>9}  {'ms':>7}  {'differs':>8}  accuracy"
        )
        print(head)
        for title, (servable, calibration) in models.items():
            rows = exported(servable, folder, calibration)
            x = samples_for(servable.task, 1)
            slow = servable.nbytes > 10**7
            calls = {kind: call for kind, (_, _, call) in rows.items()}
            times = latencies(calls, x, args.repeats // (10 if slow else 1))
            for kind, (nbytes, difference, call) in rows.items():
                right = ""
                if title == "server, digits":
                    test = stored(servable.task, digits.x_test)
                    classes = call(test)[0].argmax(1)
                    right = f"{np.mean(classes == digits.y_test):8.4f}"
                print(
                    f"{title:18} {kind:11}  {nbytes:9}  {times[kind]:7.3f}  "
                    f"{difference:8.1e}  {right}"
                )


if __name__ == "__main__":
    main()

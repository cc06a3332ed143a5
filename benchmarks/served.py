"""Models to serve, two servers' and two devices', and processes that serve them."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from client_app.kept.snapshot import DeviceSource, save_snapshot
from client_app.kept.store import DirectoryStore
from common.data import Normaliser
from common.moe import ModelSpec
from common.serving.graph_input import samples_for
from common.serving.servable import Servable
from common.task.known import task_of_shape
from server_app.commands.simulate import simulate
from server_app.run_source import RunSource


@dataclass(frozen=True)
class Case:
    """One model and the command that serves it."""

    name: str
    servable: Servable
    command: tuple[str, ...]


def cases(folder: Path) -> list[Case]:
    """Make the models: two servers' mixtures, and two devices'."""
    found = []
    for experts in (8, 32):
        results = folder / f"results-{experts}"
        config = {"num-rounds": 1, "num-experts": experts, "output-dir": str(results)}
        simulate(config, 4)
        [run] = results.iterdir()
        command = ("server_app", "serve", "--run", str(run))
        name = f"server, digits mlp, mean of {experts} experts"
        found.append(Case(name, RunSource(run).load(), command))
    for backbone, shape in (("mlp", (1, 8, 8)), ("resnet8", (3, 32, 32))):
        spec = ModelSpec(
            backbone=backbone,
            input_shape=shape,
            num_classes=10,
            num_experts=8,
            expert_hidden=32,
            top_k=1,
        )
        state = folder / backbone
        save_snapshot(
            DirectoryStore(state, "benchmark", "device"),
            "device",
            run="benchmark",
            server_round=1,
            model=spec.build([0, 1]),
            task=task_of_shape(shape, 10, Normaliser(scale=255.0), 0),
        )
        name = f"device, {backbone} {'x'.join(map(str, shape))}, 1 of 2 experts"
        command = ("client_app", "serve", "--state-dir", str(state))
        found.append(Case(name, DeviceSource(state).load(), command))
    return found


@contextlib.contextmanager
def served(case: Case, batch: int) -> Iterator[tuple[str, psutil.Process]]:
    """Serve in a process of its own; give its address and the process."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", *case.command, "--listen", "127.0.0.1:0"),
            *("--max-batch", str(batch)),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        yield line.rpartition(" on ")[2].split()[0], psutil.Process(process.pid)
    finally:
        process.terminate()
        process.communicate()


def sample(case: Case) -> np.ndarray:
    """Return one sample as a caller would send it."""
    return samples_for(case.servable.task, 1).astype(np.uint8)

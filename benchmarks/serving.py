"""What serving costs beside a bare torch call, and what micro-batching is worth.

``python -m benchmarks.serving`` serves four models, each with and without
micro-batching, in processes of their own over the loopback; asks for one sample per
request at concurrency 1, 8 and 64 from this process; and times the same model's bare
call on one sample here. Every number is the median over the repetitions, which go round
robin. Server and client use one thread of torch and need a core each.
"""

import argparse
import asyncio
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import torch

from client_app.snapshot import DeviceSource, save_snapshot
from client_app.store import DirectoryStore
from common.data import Normaliser
from common.inputs import Inputs
from common.moe import ModelSpec
from common.serving import inference_pb2 as pb
from common.serving.export import samples_for
from common.serving.inference_pb2_grpc import InferenceStub
from common.serving.servable import Servable
from common.serving.tensors import encode
from server_app.simulate import simulate
from server_app.trained import RunSource

CONCURRENCY = (1, 8, 64)
BATCHES = {"unbatched": 1, "batched": 32}


@dataclass(frozen=True)
class Case:
    """One model and the command that serves it."""

    name: str
    servable: Servable
    command: tuple[str, ...]


@dataclass(frozen=True)
class Timing:
    """Requests a second, and seconds of the median and the slowest hundredth."""

    rate: float
    p50: float
    p99: float

    @classmethod
    def of(cls, latencies: list[float], seconds: float) -> "Timing":
        """Summarise the latencies seen in some seconds."""
        p50, p99 = np.percentile(latencies, (50, 99))
        return cls(len(latencies) / seconds, float(p50), float(p99))

    @classmethod
    def median(cls, timings: list["Timing"]) -> "Timing":
        """Return the median of each number."""
        return cls(
            statistics.median(t.rate for t in timings),
            statistics.median(t.p50 for t in timings),
            statistics.median(t.p99 for t in timings),
        )


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
            inputs=Inputs(
                input_shape=shape, num_classes=10, normaliser=Normaliser(scale=255.0)
            ),
        )
        name = f"device, {backbone} {'x'.join(map(str, shape))}, 1 of 2 experts"
        command = ("client_app", "serve", "--state-dir", str(state))
        found.append(Case(name, DeviceSource(state).load(), command))
    return found


@contextlib.contextmanager
def served(case: Case, batch: int) -> Iterator[str]:
    """Serve in a process of its own; give its address."""
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
        yield line.rpartition(" on ")[2].split()[0]
    finally:
        process.terminate()
        process.communicate()


def bare(case: Case, seconds: float) -> Timing:
    """Call the model itself on one sample, again and again."""
    x = torch.from_numpy(case.servable.inputs.prepare(sample(case)))
    predictor = case.servable.predictor
    latencies = []
    with torch.inference_mode():
        end = time.perf_counter() + seconds
        while (begun := time.perf_counter()) < end:
            predictor(x)
            latencies.append(time.perf_counter() - begun)
    return Timing.of(latencies, seconds)


def sample(case: Case) -> np.ndarray:
    """Return one sample as a caller would send it."""
    return samples_for(case.servable.inputs, 1).astype(np.uint8)


async def load(address: str, case: Case, concurrency: int, seconds: float) -> Timing:
    """Keep ``concurrency`` requests under way for some seconds."""
    asked = pb.PredictRequest(x=encode(sample(case)))
    latencies: list[float] = []
    async with grpc.aio.insecure_channel(address) as channel:
        predict = InferenceStub(channel).Predict
        start = time.perf_counter() + 0.3  # what comes before warms up
        end = start + seconds

        async def caller() -> None:
            while (begun := time.perf_counter()) < end:
                await predict(asked)
                if begun >= start:
                    latencies.append(time.perf_counter() - begun)

        await asyncio.gather(*(caller() for _ in range(concurrency)))
    return Timing.of(latencies, seconds)


def measure(case: Case, repeats: int, seconds: float) -> dict[str, Timing]:
    """Return the medians by what was measured."""
    seen: defaultdict[str, list[Timing]] = defaultdict(list)
    with contextlib.ExitStack() as stack:
        addresses = {
            name: stack.enter_context(served(case, batch))
            for name, batch in BATCHES.items()
        }
        for _ in range(repeats):
            seen["bare torch call"].append(bare(case, seconds))
            for concurrency in CONCURRENCY:
                for name, address in addresses.items():
                    timing = asyncio.run(load(address, case, concurrency, seconds))
                    seen[f"{name}, {concurrency:2d}"].append(timing)
    return {name: Timing.median(timings) for name, timings in seen.items()}


def main() -> None:
    """Print a table per model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(Path(folder)):
            timings = measure(case, args.repeats, args.seconds)
            base = timings["bare torch call"]
            print(f"\n{case.name}\n{'':22}  requests/s    p50 ms    p99 ms  of bare")
            for name, t in timings.items():
                print(
                    f"{name:22}  {t.rate:10.0f}  {1000 * t.p50:8.2f}  "
                    f"{1000 * t.p99:8.2f}  {t.rate / base.rate:7.2f}"
                )
            for concurrency in CONCURRENCY[1:]:
                ratio = (
                    timings[f"batched, {concurrency:2d}"].rate
                    / timings[f"unbatched, {concurrency:2d}"].rate
                )
                print(f"batched / unbatched at {concurrency}: {ratio:.2f}")


if __name__ == "__main__":
    main()

"""What serving costs beside a bare torch call, and what micro-batching is worth.

``python -m benchmarks.serving`` serves four models, each with and without
micro-batching, in processes of their own over the loopback; asks for one sample per
request at concurrency 1, 8 and 64 from this process; and times the same model's bare
call on one sample here. Every number is the median over the repetitions, which go round
robin. Server and client use one thread of torch and need a core each; on a machine that
does other things as well, look at the server's CPU time for each request.
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
import psutil
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
    """Requests a second, seconds of the median and the slowest hundredth, and CPU."""

    rate: float
    p50: float
    p99: float
    cpu: float

    @classmethod
    def of(cls, latencies: list[float], seconds: float, cpu: float) -> "Timing":
        """Summarise the latencies seen in some seconds that took ``cpu`` seconds."""
        p50, p99 = np.percentile(latencies, (50, 99))
        count = len(latencies)
        return cls(count / seconds, float(p50), float(p99), cpu / count)

    @classmethod
    def median(cls, timings: list["Timing"]) -> "Timing":
        """Return the median of each number."""
        return cls(
            statistics.median(t.rate for t in timings),
            statistics.median(t.p50 for t in timings),
            statistics.median(t.p99 for t in timings),
            statistics.median(t.cpu for t in timings),
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


def bare(case: Case, seconds: float) -> Timing:
    """Call the model itself on one sample, again and again."""
    x = torch.from_numpy(case.servable.inputs.prepare(sample(case)))
    predictor = case.servable.predictor
    latencies = []
    cpu = time.process_time()
    with torch.inference_mode():
        end = time.perf_counter() + seconds
        while (begun := time.perf_counter()) < end:
            predictor(x)
            latencies.append(time.perf_counter() - begun)
    return Timing.of(latencies, seconds, time.process_time() - cpu)


def sample(case: Case) -> np.ndarray:
    """Return one sample as a caller would send it."""
    return samples_for(case.servable.inputs, 1).astype(np.uint8)


async def load(
    address: str,
    server: psutil.Process,
    case: Case,
    concurrency: int,
    seconds: float,
) -> Timing:
    """Keep ``concurrency`` requests under way for some seconds."""
    asked = pb.PredictRequest(x=encode(sample(case)))
    latencies: list[float] = []
    async with grpc.aio.insecure_channel(address) as channel:
        predict = InferenceStub(channel).Predict

        async def caller(end: float) -> None:
            while (begun := time.perf_counter()) < end:
                await predict(asked)
                latencies.append(time.perf_counter() - begun)

        async def callers(seconds: float) -> float:
            begun = time.perf_counter()
            end = begun + seconds
            await asyncio.gather(*(caller(end) for _ in range(concurrency)))
            return time.perf_counter() - begun

        await callers(0.3)  # to warm up
        latencies.clear()
        before = server.cpu_times()
        spent = await callers(seconds)
        after = server.cpu_times()
    cpu = after.user + after.system - before.user - before.system
    return Timing.of(latencies, spent, cpu)


def measure(case: Case, repeats: int, seconds: float) -> dict[str, Timing]:
    """Return the medians by what was measured."""
    seen: defaultdict[str, list[Timing]] = defaultdict(list)
    with contextlib.ExitStack() as stack:
        servers = {
            name: stack.enter_context(served(case, batch))
            for name, batch in BATCHES.items()
        }
        for _ in range(repeats):
            seen["bare torch call"].append(bare(case, seconds))
            for concurrency in CONCURRENCY:
                for name, (address, server) in servers.items():
                    timing = asyncio.run(
                        load(address, server, case, concurrency, seconds)
                    )
                    seen[f"{name}, {concurrency:2d}"].append(timing)
    return {name: Timing.median(timings) for name, timings in seen.items()}


def main() -> None:
    """Print a table per model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--only", default="", help="models whose name has this")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(Path(folder)):
            if args.only not in case.name:
                continue
            timings = measure(case, args.repeats, args.seconds)
            print(f"\n{case.name}\n{'':22}  requests/s    p50 ms    p99 ms  CPU ms")
            for name, t in timings.items():
                print(
                    f"{name:22}  {t.rate:10.0f}  {1000 * t.p50:8.2f}  "
                    f"{1000 * t.p99:8.2f}  {1000 * t.cpu:6.3f}"
                )
            for concurrency in CONCURRENCY[1:]:
                batched = timings[f"batched, {concurrency:2d}"]
                unbatched = timings[f"unbatched, {concurrency:2d}"]
                print(
                    f"batched / unbatched at {concurrency}: "
                    f"{batched.rate / unbatched.rate:.2f} times the rate, "
                    f"{unbatched.cpu / batched.cpu:.2f} times as many per CPU second"
                )


if __name__ == "__main__":
    main()

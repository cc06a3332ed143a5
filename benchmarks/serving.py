"""What serving costs beside a bare torch call, and what micro-batching is worth.

``python -m benchmarks.serving`` serves four models, each with and without
micro-batching, in processes of their own over the loopback; asks for one sample per
request at concurrency 1, 8 and 64 from this process; and times the same model's bare
call on one sample here. Every number is the median over the repetitions, which go round
robin. Server and client use one thread of torch and need a core each; on a machine that
does other things as well, look at the server's CPU time for each request.

``--attack`` asks beside somebody who holds the server up (``serving_attack``).
"""

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import psutil
import torch

from benchmarks.served import Case, cases, sample, served
from benchmarks.serving_attack import attack
from common.inputs import prepare
from common.serving import inference_pb2 as pb
from common.serving.inference_pb2_grpc import InferenceStub
from common.serving.tensors import encode

CONCURRENCY = (1, 8, 64)
BATCHES = {"unbatched": 1, "batched": 32}


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


def bare(case: Case, seconds: float) -> Timing:
    """Call the model itself on one sample, again and again."""
    x = torch.from_numpy(prepare(case.servable.task, sample(case)))
    predictor = case.servable.predictor
    latencies = []
    cpu = time.process_time()
    with torch.inference_mode():
        end = time.perf_counter() + seconds
        while (begun := time.perf_counter()) < end:
            predictor(x)
            latencies.append(time.perf_counter() - begun)
    return Timing.of(latencies, seconds, time.process_time() - cpu)


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
    parser.add_argument("--attack", action="store_true", help="callers that hold it")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if args.attack:
            first = cases(Path(folder))[0]
            sys.exit(not attack(first, args.repeats, args.seconds))
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

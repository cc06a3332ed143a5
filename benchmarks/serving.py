"""What serving costs beside a bare torch call, and what micro-batching is worth.

``python -m benchmarks.serving`` serves four models, each with and without
micro-batching, in processes of their own over the loopback; asks for one sample per
request at concurrency 1, 8 and 64 from this process; and times the same model's bare
call on one sample here. Every number is the median over the repetitions, which go round
robin. Server and client use one thread of torch and need a core each; on a machine that
does other things as well, look at the server's CPU time for each request.

``--attack`` asks one server for one sample at a time, now and then on a new connection
after a health check; in turns alone and beside somebody who holds 340 idle streams on
one connection, as many connections with a stream each, or 3000 that say nothing. What
is compared is from the same run.
"""

import argparse
import asyncio
import contextlib
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc

from client_app.kept.snapshot import DeviceSource, save_snapshot
from client_app.kept.store import DirectoryStore
from common.data import Normaliser
from common.inputs import prepare
from common.moe import ModelSpec
from common.serving import inference_pb2 as pb
from common.serving.graph_input import samples_for
from common.serving.inference_pb2_grpc import InferenceStub
from common.serving.servable import Servable
from common.serving.tensors import encode
from common.task.known import task_of_shape
from server_app.commands.simulate import simulate
from server_app.run_source import RunSource

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


def sample(case: Case) -> np.ndarray:
    """Return one sample as a caller would send it."""
    return samples_for(case.servable.task, 1).astype(np.uint8)


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


IDLE_STREAMS, SILENT = 340, 3000
TARGET = 2.0
"""Most times the quiet p99 that an attack may make of it."""


@contextlib.contextmanager
def streams(address: str, connections: int) -> Iterator[None]:
    """Hold idle streams."""
    with contextlib.ExitStack() as stack:
        over = threading.Event()

        def never() -> Iterator[pb.PredictRequest]:
            over.wait()
            yield from ()

        calls = []
        for _ in range(connections):
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = stack.enter_context(grpc.insecure_channel(address, options))
            stub = InferenceStub(channel)
            each = IDLE_STREAMS // connections
            calls += [stub.PredictStream(never()) for _ in range(each)]
        try:
            yield
        finally:
            over.set()
            for call in calls:
                call.cancel()


@contextlib.contextmanager
def silence(address: str) -> Iterator[None]:
    """Hold connections that say nothing."""
    host, _, port = address.rpartition(":")
    with contextlib.ExitStack() as stack:
        for _ in range(SILENT):
            one = socket.create_connection((host, int(port)), timeout=5)
            stack.enter_context(one)
        yield


def ask(address: str, case: Case, seconds: float) -> tuple[list[float], float]:
    """Return latencies in seconds, and the share of requests that were answered.

    Every 50th request comes on a connection of its own, and after a health check.
    """
    asked = pb.PredictRequest(x=encode(sample(case)))
    latencies: list[float] = []
    tried = 0
    with grpc.insecure_channel(address) as channel:
        InferenceStub(channel).Predict(asked, timeout=10)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            tried += 1
            try:
                if tried % 50 == 0:
                    options = [("grpc.use_local_subchannel_pool", 1)]
                    with grpc.insecure_channel(address, options) as fresh:
                        check = health_pb2.HealthCheckRequest()
                        health: Any = health_pb2_grpc.HealthStub(fresh)
                        health.Check(check, timeout=5)
                        InferenceStub(fresh).Predict(asked, timeout=5)
                    latencies.append(0.0)  # answered; connecting is not compared
                    continue
                begun = time.perf_counter()
                InferenceStub(channel).Predict(asked, timeout=5)
                latencies.append(time.perf_counter() - begun)
            except grpc.RpcError as error:
                print(f"refused: {error.code().name} {error.details()}")
    answered = len(latencies) / tried
    return [latency for latency in latencies if latency], answered


def attack(case: Case, repeats: int, seconds: float) -> bool:
    """Print p99 beside attacks; return whether the target was met."""
    attacks: dict[str, Callable[[str], AbstractContextManager[None]]] = {
        "quiet": lambda address: contextlib.nullcontext(),
        f"{IDLE_STREAMS} idle streams, 1 connection": lambda a: streams(a, 1),
        f"{IDLE_STREAMS} idle streams, each its own": lambda a: streams(
            a, IDLE_STREAMS
        ),
        f"{SILENT} silent connections": silence,
    }
    latencies: defaultdict[str, list[float]] = defaultdict(list)
    answered: defaultdict[str, list[float]] = defaultdict(list)
    with served(case, 32) as (address, _):
        for _ in range(repeats):
            for name, attacker in attacks.items():
                with attacker(address):
                    time.sleep(1)
                    found, share = ask(address, case, seconds)
                latencies[name] += found
                answered[name].append(share)
                time.sleep(1)
    quiet = float(np.percentile(latencies["quiet"], 99))
    met = True
    print(f"\n{case.name}\n{'':32} answered    p50 ms    p99 ms  times quiet")
    for name, found in latencies.items():
        p50, p99 = np.percentile(found, (50, 99))
        share = min(answered[name])
        met &= p99 <= TARGET * quiet and share == 1
        print(
            f"{name:32} {share:8.2%}  {1000 * p50:8.2f}  {1000 * p99:8.2f}  "
            f"{p99 / quiet:11.2f}"
        )
    print("met" if met else f"missed: all answered, p99 within {TARGET} times quiet")
    return met


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

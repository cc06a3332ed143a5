"""What callers wait while others hold the server up.

One server is asked for one sample at a time, now and then on a new connection after a
health check; in turns alone and beside somebody who holds 340 idle streams on one
connection, as many connections with a stream each, or 3000 that say nothing. What is
compared is from the same run. ``python -m benchmarks.serving --attack`` prints it.
"""

import contextlib
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.served import Case, sample, served
from common.serving import inference_pb2 as pb
from common.serving.inference_pb2_grpc import InferenceStub
from common.serving.tensors import encode

IDLE_STREAMS = 340
SILENT = 3000
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

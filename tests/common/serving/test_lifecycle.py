"""The service over time: its start, newer models under load, its end."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import numpy as np
import pytest
import torch
from torch import nn

from common.data import Normaliser
from common.errors import SourceError
from common.serving import inference_pb2 as pb
from common.serving.servable import Servable
from common.serving.server import Server
from common.serving.tensors import decode
from common.task.known import task_of_shape
from tests.common.serving.support import (
    Held,
    Shelf,
    by_torch,
    calling,
    images,
    make_servable,
    options,
    refused,
    request,
    run,
    serving,
)


def test_newer_models_are_swapped_in_under_load_and_no_request_fails() -> None:
    versions = {n: make_servable(server_round=n) for n in range(1, 8)}
    shelf = Shelf(versions[1])

    async def test() -> None:
        seen: set[int] = set()
        stop = asyncio.Event()

        async def client(seed: int) -> int:
            count = 0
            async with calling(server) as stub:
                while not stop.is_set():
                    x = images(3, seed=seed + count)
                    reply = await stub.Predict(request(x))
                    found = decode(reply.probabilities, "probabilities")
                    model = versions[reply.model.round]
                    np.testing.assert_allclose(found, by_torch(model, x), atol=1e-5)
                    seen.add(reply.model.round)
                    count += 1
            return count

        async with serving(shelf) as server:
            clients = [asyncio.create_task(client(1000 * n)) for n in range(6)]
            for newest in range(2, 8):
                shelf.newest = versions[newest]
                while newest not in seen and not any(c.done() for c in clients):
                    await asyncio.sleep(0.01)
            stop.set()
            counts = await asyncio.gather(*clients)
        assert all(counts)
        assert max(seen) == 7

    run(test())


def test_what_a_request_may_be_follows_the_model() -> None:
    small = make_servable(server_round=1)

    def images_model(server_round: int, pixels: int) -> Servable:
        return Servable(
            predictor=nn.Sequential(
                nn.Flatten(), nn.Linear(3 * pixels**2, 10), nn.Softmax(1)
            ),
            task=task_of_shape((3, pixels, pixels), 10, Normaliser(scale=255.0), 0),
            run="a-run",
            server_round=server_round,
            experts=(),
        )

    shelf = Shelf(small)

    async def test() -> None:
        async with serving(shelf, grace=30) as server, calling(server) as stub:
            idle = stub.PredictStream()
            await idle.write(request(images(1)))
            assert (await idle.read()).model.round == 1
            for newest, pixels in ((2, 32), (3, 128), (4, 8)):
                shelf.newest = images_model(newest, pixels)
                info = await stub.ModelInfo(pb.ModelInfoRequest())
                while info.model.round != newest:
                    await asyncio.sleep(0.01)
                    info = await stub.ModelInfo(pb.ModelInfoRequest())
                full = np.zeros((info.max_samples, pixels, pixels, 3), np.float32)
                reply = await stub.Predict(request(full))
                assert len(reply.classes) == info.max_samples
                error = await refused(
                    stub.Predict(request(np.zeros((400, 99, 99, 3), np.float32)))
                )
                assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            # A stream that is open goes on, by the limits of now.
            await idle.write(request(np.zeros((1, 8, 8, 3), np.float32)))
            assert (await idle.read()).model.round == 4
            await idle.write(request(np.zeros((1, 160, 160, 3), np.float32)))
            assert await idle.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "larger than 200704 bytes" in await idle.details()

    run(test())


def test_a_model_that_answers_nan_is_not_served() -> None:
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.full((len(x), 10), torch.nan)

    with pytest.raises(SourceError, match="the model of a-run, round 1, answers NaN"):
        Server(Shelf(make_servable(predictor=Broken())), options())


class Wide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.big = nn.Linear(4000, 4000)


def test_a_model_that_cannot_be_used_leaves_the_one_at_hand(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shelf = Shelf(make_servable(server_round=1))

    async def test() -> None:
        async with serving(shelf) as server, calling(server) as stub:
            for bad, told in (
                (
                    SourceError("half a file"),
                    "so far: half a file",
                ),
                (make_servable(2, Wide()), "do not fit into a memory budget"),
                (make_servable(3, nn.Linear(7, 7)), "looking for a newer model"),
            ):
                shelf.newest = bad
                while told not in caplog.text:
                    await asyncio.sleep(0.01)
                reply = await stub.Predict(request(images(1)))
                assert reply.model.round == 1
            shelf.newest = make_servable(server_round=4)
            while (await stub.Predict(request(images(1)))).model.round != 4:
                await asyncio.sleep(0.01)

    run(test())


def test_a_model_larger_than_the_budget_is_refused_at_the_start() -> None:
    async def test() -> None:
        with pytest.raises(SourceError, match=r"do not fit into a memory budget"):
            async with serving(Shelf(make_servable()), memory=20_000):
                pass

    run(test())


def test_stopping_answers_what_is_under_way_and_refuses_the_rest() -> None:
    held = Held()

    async def test() -> None:
        async with (
            serving(Shelf(make_servable(predictor=held)), grace=600) as server,
            calling(server) as stub,
            calling(server) as idle,
        ):
            more = asyncio.Event()

            async def trickle() -> AsyncIterator[pb.PredictRequest]:
                yield request(images(1))
                await more.wait()

            stream = idle.PredictStream(trickle())
            assert len((await stream.read()).classes) == 1
            held.hold()
            calls = [stub.Predict(request(images(1))) for _ in range(20)]
            waiting = asyncio.gather(*calls)
            await held.reached()
            while server.batcher._bytes < 20 * 256:
                await asyncio.sleep(0.01)
            stopping = asyncio.create_task(server.stop())
            await asyncio.sleep(0.1)
            error = await refused(stub.Predict(request(images(1)), timeout=60))
            assert error.code() == grpc.StatusCode.UNAVAILABLE
            held.go.set()
            assert len(await waiting) == 20
            # An idle stream does not hold the end up.
            error = await refused(stream.read())
            assert error.code() == grpc.StatusCode.UNAVAILABLE
            await stopping

    run(test())


def test_a_port_in_use_is_an_error_of_one_line() -> None:
    async def test() -> None:
        async with serving(Shelf(make_servable())) as server:
            port = int(server.address.rpartition(":")[2])
            with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
                async with serving(Shelf(make_servable()), port=port):
                    pass

    run(test())

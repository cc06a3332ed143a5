"""Messages that are broken or bloated are refused, and nothing of a fault is told."""

import gc
from typing import Any

import grpc
import pytest
import torch
from torch import nn

from common.serving.inference_pb2_grpc import InferenceStub
from common.serving.service import NAME
from common.task import Task
from tests.common.serving.support import (
    Shelf,
    calling,
    images,
    make_servable,
    refused,
    request,
    run,
    serving,
)

METHOD = f"/{NAME}/"


def test_what_went_wrong_inside_is_not_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(task: Task, x: Any, name: str = "x") -> Any:
        raise ValueError("/secret/path")

    async def test() -> None:
        async with serving(Shelf(make_servable())) as server, calling(server) as stub:
            monkeypatch.setattr("common.serving.service.prepare", broken)
            for call in (
                stub.Predict(request(images(1))),
                stub.PredictStream(iter([request(images(1))])).read(),
            ):
                error = await refused(call)
                assert error.code() == grpc.StatusCode.INTERNAL
                assert error.details() == "the server failed"

    run(test())
    assert "/secret/path" in caplog.text


def test_a_message_that_is_none_is_an_invalid_argument() -> None:
    async def test() -> None:
        async with (
            serving(Shelf(make_servable())) as server,
            grpc.aio.insecure_channel(server.address) as channel,
        ):
            for name in ("Predict", "PredictStream"):
                raw: Any = channel.stream_stream(METHOD + name)
                call = raw(iter([b"\xff" * 100]))
                assert await call.code() == grpc.StatusCode.INVALID_ARGUMENT
                assert await call.details() == "the message cannot be parsed"

    run(test())


def test_an_answer_that_is_no_number_is_the_samples_fault() -> None:
    class Shaky(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.where(x.flatten(1)[:, :10] > 1e30, torch.nan, 0.1)

    huge = images(3).astype("float32")
    huge[1, 0, 0] = 3e38

    async def test() -> None:
        shelf = Shelf(make_servable(predictor=Shaky()))
        async with serving(shelf) as server, calling(server) as stub:
            error = await refused(stub.Predict(request(huge)))
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert "too large for the model in sample 1" in (error.details() or "")

    run(test())


@pytest.mark.parametrize("method", ["Predict", "PredictStream"])
@pytest.mark.parametrize(
    "kind", [grpc.Compression.Gzip, grpc.Compression.Deflate], ids=["gzip", "deflate"]
)
@pytest.mark.parametrize("times", [2, 1000])
def test_a_compressed_message_counts_as_what_it_inflates_to(
    method: str, kind: grpc.Compression, times: int
) -> None:
    async def test() -> None:
        async with (
            serving(Shelf(make_servable())) as server,
            grpc.aio.insecure_channel(server.address, compression=kind) as channel,
        ):
            largest = server.limits.request_bytes
            raw: Any = channel.stream_stream(METHOD + method)
            call = raw(iter([bytes(times * largest)]))
            assert await call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "larger" in (await call.details())
            stub = InferenceStub(channel)
            assert len((await stub.Predict(request(images(5)))).classes) == 5
            assert not len(server._calls)

    run(test())


def test_metadata_beyond_measure_is_refused_and_the_next_is_answered() -> None:
    async def test() -> None:
        async with serving(Shelf(make_servable())) as server, calling(server) as stub:
            for size in (100_000, 10_000_000):
                call = stub.Predict(
                    request(images(1)), metadata=[("x-note", "a" * size)]
                )
                error = await refused(call)
                assert error.code() in (
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    grpc.StatusCode.UNAVAILABLE,
                )
            many = [(f"x-{n}", "a") for n in range(5000)]
            await refused(stub.Predict(request(images(1)), metadata=many))
            await stub.Predict(request(images(1)))

    run(test())


def test_calls_that_are_over_keep_no_message() -> None:
    def contexts() -> int:
        return sum(type(o).__name__ == "_ServicerContext" for o in gc.get_objects())

    async def test() -> None:
        async with serving(Shelf(make_servable())) as server, calling(server) as stub:
            gc.collect()
            gc.disable()  # what refers to itself stays until Python looks for it
            try:
                for _ in range(20):
                    await stub.Predict(request(images(1)))
                assert contexts() < 3
            finally:
                gc.enable()

    run(test())

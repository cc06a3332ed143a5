"""The service as its callers meet it: answers and refusals."""

import asyncio
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from numpy.typing import NDArray

from common.serving import inference_pb2 as pb
from common.serving.service import NAME
from common.serving.tensors import decode
from common.task import task_from_json
from tests.common.serving.support import (
    NAMES,
    Held,
    Shelf,
    by_torch,
    calling,
    images,
    make_servable,
    refused,
    request,
    run,
    serving,
)


@pytest.mark.parametrize("batch", [1, 4, 32])
def test_answers_are_those_of_torch(batch: int) -> None:
    servable = make_servable()
    x = images(50)
    expected = by_torch(servable, x)

    async def test() -> None:
        async with (
            serving(Shelf(servable), batch=batch) as server,
            calling(server) as stub,
        ):
            parts: list[NDArray[Any]]
            parts = [x[:1], x[1:3], x[3:11], x[11:].astype(np.float32)]
            found = await asyncio.gather(*(stub.Predict(request(p)) for p in parts))
            streamed = [r async for r in stub.PredictStream(iter(map(request, parts)))]
        for replies in (found, streamed):
            answers = [decode(r.probabilities, "probabilities") for r in replies]
            np.testing.assert_allclose(np.concatenate(answers), expected, atol=1e-5)
            classes = [c for r in replies for c in r.classes]
            names = [name for r in replies for name in r.class_names]
            assert names == [NAMES[k] for k in classes]
            assert classes == expected.argmax(1).tolist()
            experts = [e for r in replies for e in r.experts]
            assert experts == servable.predict(x).experts.tolist()
            assert set(experts) <= {0, 2, 3}
            assert {(r.model.run, r.model.round) for r in replies} == {("a-run", 1)}

    run(test())


def test_requests_that_wait_together_are_computed_together() -> None:
    held = Held()

    async def test() -> None:
        async with serving(Shelf(make_servable(predictor=held))) as server:
            async with calling(server) as stub:
                held.hold()
                first = asyncio.ensure_future(stub.Predict(request(images(1))))
                await held.reached()
                rest = [stub.Predict(request(images(2, seed=s))) for s in range(9)]
                while len(server.batcher._jobs) < 9:
                    await asyncio.sleep(0.01)
                held.go.set()
                await asyncio.gather(first, *rest)
            assert (server.batcher.batches, server.batcher.samples) == (2, 19)

    run(test())


def test_model_info_health_and_reflection() -> None:
    servable = make_servable(server_round=7)

    async def test() -> None:
        async with serving(Shelf(servable)) as server:
            async with calling(server) as stub:
                info = await stub.ModelInfo(pb.ModelInfoRequest())
            assert (info.model.run, info.model.round) == ("a-run", 7)
            assert list(info.input_shape) == [1, 8, 8]
            assert (info.dtype, info.num_classes) == (pb.FLOAT32, 10)
            assert list(info.experts) == [0, 2, 3]
            assert info.model_bytes == servable.nbytes
            assert (info.max_batch, info.max_samples) == (32, 256)
            assert info.kind == "image"
            assert list(info.class_names) == list(servable.task.classes)
            assert task_from_json(info.task) == servable.task
            async with grpc.aio.insecure_channel(server.address) as channel:
                health: Any = health_pb2_grpc.HealthStub(channel)
                for name in ("", NAME):
                    asked = health_pb2.HealthCheckRequest(service=name)
                    reply = await health.Check(asked)
                    assert reply.status == health_pb2.HealthCheckResponse.SERVING
                stub_type: Any = reflection_pb2_grpc.ServerReflectionStub
                reflect = stub_type(channel)
                message: Any = reflection_pb2.ServerReflectionRequest
                ask = message(list_services="")
                async for answer in reflect.ServerReflectionInfo(iter([ask])):
                    services = {s.name for s in answer.list_services_response.service}
                    assert {NAME, "grpc.health.v1.Health"} <= services

    run(test())


def tensor(**changes: Any) -> pb.PredictRequest:
    good: dict[str, Any] = {"dtype": pb.UINT8, "shape": [1, 8, 8], "data": bytes(64)}
    return pb.PredictRequest(x=pb.Tensor(**{**good, **changes}))


nan = np.zeros((3, 8, 8), np.float32)
nan[1, 2, 3] = np.nan

MALFORMED = {
    "x is missing": pb.PredictRequest(),
    "x.dtype = 0 is not one of UINT8, FLOAT32, INT64": tensor(dtype=0),
    "x.dtype = 77": tensor(dtype=77),
    "x.data has 63 bytes: uint8 of shape (1, 8, 8) takes 64": tensor(data=bytes(63)),
    "x.shape = (-1, -64)": tensor(shape=[-1, -64]),
    "x.shape = (1, 1": tensor(shape=[1] * 100, data=b"\0"),
    "x.data has 64 bytes": tensor(shape=[2**40, 2**40]),
    "x has shape ()": tensor(shape=[], data=b"\0"),
    "x has shape (0, 8, 8)": tensor(shape=[0, 8, 8], data=b""),
    "x: samples of shape (4, 16) do not fit (1, 8, 8)": tensor(shape=[1, 4, 16]),
    "x has values from 0 to 0.9375 (float32), and the model takes images from 0 to 16; "
    "multiply by 16": request((images(3) % 16 / 16).astype(np.float32)),
    "x has values from 0 to 240 (uint8)": request(images(3) * 15),
    "the model takes no texts: its task is image": pb.PredictRequest(texts=["a"]),
    "x and texts are both there": pb.PredictRequest(
        x=request(images(1)).x, texts=["a"]
    ),
    "x has NaN or infinity in sample 1": request(nan),
    "x.shape has 257 samples: at most 256": request(images(257)),
}


def test_malformed_requests_are_told_which_field_is_wrong() -> None:
    async def test() -> None:
        async with serving(Shelf(make_servable())) as server, calling(server) as stub:
            for text, bad in MALFORMED.items():
                error = await refused(stub.Predict(bad))
                assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, text
                assert text in (error.details() or ""), error.details()
                good = request(images(1))
                stream = stub.PredictStream(iter([good, bad, good]))
                assert len((await stream.read()).classes) == 1
                error = await refused(stream.read())
                assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
            await stub.Predict(request(images(256)))
            assert server.batcher._bytes == 0

    run(test())


def test_a_message_above_the_limit_is_refused_unread() -> None:
    async def test() -> None:
        async with serving(Shelf(make_servable())) as server, calling(server) as stub:
            error = await refused(stub.Predict(request(images(5000))))
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "larger" in (error.details() or "")
            await stub.Predict(request(images(1)))

    run(test())


def test_expired_requests_are_dropped_before_they_are_computed() -> None:
    held = Held()

    async def test() -> None:
        async with serving(Shelf(make_servable(predictor=held))) as server:
            async with calling(server) as stub:
                warm = held.samples
                held.hold()
                first = asyncio.ensure_future(stub.Predict(request(images(1))))
                await held.reached()
                late = [
                    stub.Predict(request(images(100)), timeout=0.2) for _ in range(3)
                ]
                for call in late:
                    error = await refused(call)
                    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
                held.go.set()
                await first
                await stub.Predict(request(images(2)))
            assert held.samples == warm + 3
            assert server.batcher._bytes == 0

    run(test())


def test_overload_is_refused_and_what_was_admitted_is_answered() -> None:
    held = Held()

    async def test() -> None:
        async with (
            serving(Shelf(make_servable(predictor=held)), queue=4) as server,
            calling(server) as stub,
        ):
            held.hold()
            first = asyncio.ensure_future(stub.Predict(request(images(1))))
            await held.reached()
            # 68 have a place, the first among them, and 4 wait.
            calls = [stub.Predict(request(images(1))) for _ in range(79)]
            done = asyncio.gather(*calls, return_exceptions=True)
            while sum(call.done() for call in calls) < 8:
                await asyncio.sleep(0.01)
            held.go.set()
            replies = [await first, *await done]
        errors = [r for r in replies if isinstance(r, grpc.aio.AioRpcError)]
        assert len(errors) == 8
        assert {e.code() for e in errors} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert errors[0].details() == (
            "68 calls are under way and 4 wait, the most at a time"
        )
        assert sum(isinstance(r, pb.PredictResponse) for r in replies) == 72

    run(test())


def test_a_stream_longer_than_the_queue_is_answered() -> None:
    held = Held()

    async def test() -> None:
        async with (
            serving(Shelf(make_servable(predictor=held)), queue=2) as server,
            calling(server) as stub,
        ):
            held.go.clear()

            async def answers() -> int:
                requests = iter([request(images(1))] * 20)
                return len([r async for r in stub.PredictStream(requests)])

            stream = asyncio.ensure_future(answers())
            while len(server.batcher._jobs) < 2:
                await asyncio.sleep(0.01)
            held.go.set()
            assert await stream == 20

    run(test())


def test_a_caller_that_hangs_up_leaves_nothing_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    held = Held()

    async def test() -> None:
        async with serving(Shelf(make_servable(predictor=held))) as server:
            async with calling(server) as stub:
                for kind in ("unary", "stream"):
                    warm = held.samples
                    held.hold()
                    first = asyncio.ensure_future(stub.Predict(request(images(1))))
                    await held.reached()
                    if kind == "unary":
                        calls = [stub.Predict(request(images(9))) for _ in range(5)]
                    else:
                        stream = stub.PredictStream(iter([request(images(9))] * 5))
                        reading = asyncio.ensure_future(stream.read())
                        calls = [stream]
                    while len(server.batcher._jobs) < 5:
                        await asyncio.sleep(0.01)
                    for call in calls:
                        call.cancel()
                    await asyncio.sleep(0.1)
                    held.go.set()
                    await first
                    await stub.Predict(request(images(1)))
                    assert held.samples == warm + 2
                with pytest.raises(asyncio.CancelledError):
                    await reading
            assert server.batcher._bytes == 0

    run(test())
    assert not [r for r in caplog.records if r.levelname == "ERROR"]


def test_a_predictor_that_fails_is_an_internal_error_and_the_next_is_answered() -> None:
    class Moody(Held):
        broken = False

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.broken:
                raise RuntimeError("out of luck")
            return super().forward(x)

    moody = Moody()

    async def test() -> None:
        async with serving(Shelf(make_servable(predictor=moody))) as server:
            async with calling(server) as stub:
                moody.broken = True
                error = await refused(stub.Predict(request(images(1))))
                assert error.code() == grpc.StatusCode.INTERNAL
                moody.broken = False
                await stub.Predict(request(images(1)))
            assert server.batcher._bytes == 0

    run(test())

"""Callers that hold calls and connections: the others are answered all the same."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from common.serving import connections
from common.serving import inference_pb2 as pb
from common.serving.inference_pb2_grpc import InferenceStub
from common.serving.memory import STANDARD_CALLS
from common.serving.service import NAME
from tests.common.serving.support import (
    Shelf,
    calling,
    connection,
    images,
    make_servable,
    request,
    run,
    serving,
)

METHOD = f"/{NAME}/"


async def silence() -> AsyncIterator[pb.PredictRequest]:
    await asyncio.Event().wait()
    yield request(images(1))


def half_sent(channel: grpc.aio.Channel) -> Any:
    """Begin a call of a single message, and never send it."""
    method: Any = channel.stream_unary(
        METHOD + "Predict",
        request_serializer=pb.PredictRequest.SerializeToString,
        response_deserializer=pb.PredictResponse.FromString,
    )
    return method(silence())


def stream(channel: grpc.aio.Channel) -> Any:
    return InferenceStub(channel).PredictStream(silence())


async def check_health(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        reply = await health.Check(health_pb2.HealthCheckRequest(service=NAME))
        assert reply.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("begin", [stream, half_sent])
@pytest.mark.parametrize("connections", [1, 40])
def test_calls_that_wait_for_their_caller_make_room(
    begin: Any, connections: int
) -> None:
    async def test() -> None:
        async with (
            serving(Shelf(make_servable()), queue=4) as server,
            AsyncExitStack() as stack,
        ):
            held = []
            for _ in range(connections):
                channel = connection(server)
                await stack.enter_async_context(channel)
                held += [begin(channel) for _ in range(80 // connections)]
            while len(server._calls) < 68:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            await check_health(server.address)
            async with calling(server) as stub:
                for _ in range(5):
                    await stub.Predict(request(images(1)))
            ended = [call for call in held if call.done()]
            assert ended
            for call in ended:
                assert await call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
                text = await call.details()
                assert "others needed the place" in text or "the most at" in text
            for call in held:
                call.cancel()

    run(test())


def test_health_answers_beside_any_number_of_watchers() -> None:
    async def test() -> None:
        async with (
            serving(Shelf(make_servable())) as server,
            AsyncExitStack() as stack,
        ):
            for _ in range(3):
                channel = connection(server)
                await stack.enter_async_context(channel)
                health: Any = health_pb2_grpc.HealthStub(channel)
                asked = health_pb2.HealthCheckRequest()
                watches = [health.Watch(asked) for _ in range(60)]
                assert len(watches) == 60
            while len(server._standard) < STANDARD_CALLS:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            await check_health(server.address)
            async with calling(server) as stub:
                await stub.Predict(request(images(1)))

    run(test())


@pytest.mark.parametrize("begin", [stream, half_sent])
def test_a_caller_that_sends_nothing_is_given_up(begin: Any) -> None:
    async def test() -> None:
        async with (
            serving(Shelf(make_servable()), idle=0.3) as server,
            grpc.aio.insecure_channel(server.address) as channel,
        ):
            call = begin(channel)
            assert await call.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            assert await call.details() == "nothing was sent or taken for 0.3 s"
            assert not len(server._calls)

    run(test())


def test_a_caller_that_takes_no_answers_loses_its_connection() -> None:
    async def test() -> None:
        async with serving(Shelf(make_servable()), idle=0.3) as server:
            # Without it, the caller's gRPC takes megabytes for a caller that waits.
            small = [("grpc.http2.bdp_probe", 0)]
            async with grpc.aio.insecure_channel(server.address, small) as channel:
                requests = iter([request(images(256))] * 200)
                greedy = InferenceStub(channel).PredictStream(requests)
                while not len(server._calls):
                    await asyncio.sleep(0.01)
                while len(server._calls) or server._connections._open():
                    await asyncio.sleep(0.05)
                with pytest.raises(grpc.aio.AioRpcError):
                    async for _ in greedy:
                        pass
            assert server.batcher._bytes == 0
            async with calling(server) as stub:
                await stub.Predict(request(images(1)))

    run(test())


def test_connections_that_say_nothing_make_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "MOST", 24)

    async def test() -> None:
        async with serving(Shelf(make_servable())) as server:
            host, _, port = server.address.rpartition(":")
            async with calling(server) as stub:
                await stub.Predict(request(images(1)))
                silent = [socket.create_connection((host, int(port)))]
                for _ in range(59):
                    silent.append(socket.create_connection((host, int(port))))
                    await asyncio.sleep(0)
                while len(server._connections._open()) > 12:
                    await asyncio.sleep(0.05)
                await check_health(server.address)
                # Whoever had called before was not the one to go.
                await stub.Predict(request(images(1)), wait_for_ready=False)
            for one in silent:
                one.close()

    run(test())


def test_reflection_streams_held_open_keep_nobody_out() -> None:
    async def test() -> None:
        async with (
            serving(Shelf(make_servable())) as server,
            AsyncExitStack() as stack,
        ):
            for _ in range(4):
                channel: Any = connection(server)
                await stack.enter_async_context(channel)
                stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
                held = [stub.ServerReflectionInfo(silence()) for _ in range(60)]
                assert len(held) == 60
            while len(server._standard) < STANDARD_CALLS:
                await asyncio.sleep(0.01)
            await check_health(server.address)
            async with grpc.aio.insecure_channel(server.address) as channel:
                stub = reflection_pb2_grpc.ServerReflectionStub(channel)
                asked = reflection_pb2.ServerReflectionRequest(list_services="")
                [reply] = [r async for r in stub.ServerReflectionInfo(iter([asked]))]
                names = {s.name for s in reply.list_services_response.service}
                assert NAME in names
            async with calling(server) as honest:
                await honest.Predict(request(images(1)))

    run(test())


def test_a_flood_of_small_messages_on_one_connection_keeps_nobody_out() -> None:
    async def test() -> None:
        async with (
            serving(Shelf(make_servable())) as server,
            calling(server) as flooding,
            calling(server) as honest,
        ):
            small = request(images(1))

            async def take() -> int:
                requests = iter([small] * 200)
                return len([r async for r in flooding.PredictStream(requests)])

            floods = [asyncio.ensure_future(take()) for _ in range(5)]
            singles = [flooding.Predict(small) for _ in range(300)]
            await asyncio.sleep(0.05)
            for _ in range(3):
                await honest.Predict(request(images(3)))
                await check_health(server.address)
            # What a stream may have under way bounds what waits.
            assert len(server.batcher._jobs) <= 5 * 8 + 128
            assert await asyncio.gather(*floods) == [200] * 5
            assert len(await asyncio.gather(*singles)) == 300
            assert server.batcher._bytes == 0

    run(test())

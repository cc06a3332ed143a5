"""The line before the places: who waits, for how long, and who is next."""

import asyncio
import dataclasses
import time
from typing import Any

import grpc
import pytest

from common.serving import calls as calls_module
from common.serving import memory
from common.serving import server as server_module
from common.serving.callers import Caller, CallRefused
from common.serving.calls import Calls
from common.serving.inference_pb2_grpc import InferenceStub
from common.serving.memory import ServingLimits
from common.serving.server import Server
from tests.common.serving.support import (
    Held,
    Shelf,
    calling,
    connection,
    images,
    make_servable,
    refused,
    request,
    run,
    serving,
)


@pytest.fixture
def two_places(monkeypatch: pytest.MonkeyPatch) -> None:
    def scarce(*args: Any) -> ServingLimits:
        # 256 samples are 64 KiB, and so is the queue: large requests go one by one.
        found = memory.limits_for(*args)
        return dataclasses.replace(found, calls=2, queue_bytes=65536)

    monkeypatch.setattr(server_module, "limits_for", scarce)


@pytest.mark.usefixtures("two_places")
@pytest.mark.parametrize("connections", [1, 40])
def test_a_burst_of_large_requests_is_answered_in_turn(connections: int) -> None:
    async def test() -> None:
        async with serving(Shelf(make_servable())) as server:
            channels = [connection(server) for _ in range(connections)]
            asked = [
                InferenceStub(channels[n % connections]).Predict(request(images(256)))
                for n in range(80)
            ]
            replies = await asyncio.gather(*asked)
            assert [len(reply.classes) for reply in replies] == [256] * 80
            assert not len(server._calls)
            assert not server._calls._line
            for channel in channels:
                await channel.close()

    run(test())


async def both_placed(server: Server, stub: InferenceStub) -> "list[asyncio.Task[Any]]":
    working = [
        asyncio.ensure_future(stub.Predict(request(images(1)))) for _ in range(2)
    ]
    while len(server._calls) < 2 or server.batcher._bytes < 512:
        await asyncio.sleep(0.01)
    return working


@pytest.mark.usefixtures("two_places")
def test_who_waits_for_a_place_ends_with_its_deadline_or_its_caller() -> None:
    held = Held()

    async def test() -> None:
        async with (
            serving(Shelf(make_servable(predictor=held))) as server,
            calling(server) as stub,
        ):
            held.go.clear()
            working = await both_placed(server, stub)
            late = await refused(stub.Predict(request(images(1)), timeout=0.2))
            assert late.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            gone = stub.Predict(request(images(1)))
            while not server._calls._line:
                await asyncio.sleep(0.01)
            gone.cancel()
            while server._calls._line:
                await asyncio.sleep(0.01)
            held.go.set()
            await asyncio.gather(*working)
            await stub.Predict(request(images(1)))

    run(test())


@pytest.mark.usefixtures("two_places")
def test_nobody_waits_for_a_place_for_ever() -> None:
    held = Held()

    async def test() -> None:
        async with (
            serving(Shelf(make_servable(predictor=held)), idle=0.5) as server,
            calling(server) as stub,
        ):
            held.go.clear()
            working = await both_placed(server, stub)
            long = await refused(stub.Predict(request(images(1))))
            assert long.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert long.details() == "no place for 0.5 s: 2 calls at a time"
            assert not server._calls._line
            held.go.set()
            await asyncio.gather(*working)
            await stub.Predict(request(images(1)))

    run(test())


class Quota:
    """A quota with callers that the test makes come and go."""

    def __init__(self, **options: Any) -> None:
        self.calls = Calls(2, 100, **options)
        self.order: list[str] = []
        self.ends: dict[str, str] = {}

    async def come(self, name: str, label: str) -> "asyncio.Task[None]":
        async def serve() -> None:
            call = self.calls.call(Caller(name=name, connection=f"{name}:1"))
            try:
                await self.calls.enter(call)
                call.message_received()  # from here on the server works on it
                self.order.append(label)
                await asyncio.Event().wait()
            except CallRefused as refusal:
                self.ends[label] = str(refusal)
            finally:
                self.calls.leave(call)
                if call.ending is not None:
                    self.ends[label] = call.ending[1]

        task = asyncio.create_task(serve())
        for _ in range(5):
            await asyncio.sleep(0)
        return task

    async def go(self, task: "asyncio.Task[None]") -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for _ in range(5):
            await asyncio.sleep(0)


def test_a_place_goes_to_whoever_has_fewest_then_to_who_came_first() -> None:
    async def test() -> None:
        quota = Quota(line=9)
        first = await quota.come("greedy", "g1")
        second = await quota.come("greedy", "g2")
        for label in ("g3", "g4"):
            await quota.come("greedy", label)
        await quota.come("honest", "h1")
        await quota.come("other", "o1")
        await quota.go(first)
        assert quota.order == ["g1", "g2", "h1"]
        await quota.go(second)  # now greedy has as few as other, and came first
        assert quota.order == ["g1", "g2", "h1", "g3"]

    asyncio.run(test())


def test_a_full_line_turns_away_the_last_of_whoever_has_most() -> None:
    async def test() -> None:
        quota = Quota(line=2)
        for label in ("g1", "g2", "g3", "g4", "g5"):
            await quota.come("greedy", label)
        assert set(quota.ends) == {"g5"}
        await quota.come("honest", "h1")
        assert set(quota.ends) == {"g4", "g5"}
        await quota.come("honest", "h2")
        assert set(quota.ends) == {"g3", "g4", "g5"}
        await quota.come("honest", "h3")
        assert set(quota.ends) == {"g3", "g4", "g5", "h3"}
        assert quota.ends["h3"] == (
            "2 calls are under way and 2 wait, the most at a time"
        )

    asyncio.run(test())


def test_who_may_no_longer_call_does_not_wait_either() -> None:
    async def test() -> None:
        quota = Quota(line=9)
        for name in ("a", "b", "removed", "c"):
            await quota.come(name, name)
        end = grpc.StatusCode.PERMISSION_DENIED, "not on the list"
        quota.calls.sweep(lambda caller: end if caller.name == "removed" else None)
        await asyncio.sleep(0.01)
        assert quota.ends == {"removed": "not on the list"}
        assert [call.caller.name for call in quota.calls._line] == ["c"]

    asyncio.run(test())


def test_a_large_message_on_its_way_is_not_turned_out_for_a_newcomer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    async def test() -> None:
        nonlocal now
        calls = Calls(2, 100, line=9, idle=60)
        for name in ("a", "b"):
            await calls.enter(call := calls.call(Caller(name=name, connection=name)))
            call.finished()  # this test itself is not to be cancelled
        newcomer = calls.call(Caller(name="c", connection="c"))
        waiting = asyncio.ensure_future(calls.enter(newcomer))
        await asyncio.sleep(0)
        now += calls_module.PATIENCE * 2
        calls._seat()
        assert not newcomer.placed.done()
        now += calls_module.PATIENCE_ALONE
        calls._seat()
        assert newcomer.placed.done()
        await waiting

    asyncio.run(test())

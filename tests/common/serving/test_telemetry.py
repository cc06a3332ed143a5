"""The scrape port of a service, fetched over HTTP while calls are made."""

import asyncio
import socket
import urllib.request

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from common.exposition import MetricsError
from common.serving.server import Server
from tests.common.serving.support import (
    Held,
    Shelf,
    calling,
    images,
    make_servable,
    options,
    refused,
    request,
    run,
    serving,
)

HERE = ("127.0.0.1", 0)


async def fetched(server: Server) -> dict[tuple[str, ...], float]:
    def read() -> str:
        assert server.telemetry is not None
        address = f"http://{server.telemetry.address}/metrics"
        with urllib.request.urlopen(address, timeout=30) as answer:
            text: str = answer.read().decode()
            return text

    return {
        (
            each.name.removeprefix("expertfleet_serving_"),
            *each.labels.values(),
        ): each.value
        for family in text_string_to_metric_families(await asyncio.to_thread(read))
        for each in family.samples
    }


def test_calls_and_what_is_to_be_done() -> None:
    async def test() -> None:
        held = Held()
        servable = make_servable(7, held)
        async with serving(Shelf(servable), metrics=HERE) as server:
            before = await fetched(server)
            assert before["model", "a-run", "7"] == 1
            assert before["calls",] == before["queue_requests",] == 0
            assert before["calls_most",] == server.limits.calls
            async with calling(server) as stub:
                await stub.Predict(request(images(3)))
                wrong = np.zeros((2, 5, 5), dtype=np.uint8)
                error = await refused(stub.Predict(request(wrong)))
                held.hold()
                waiting = asyncio.ensure_future(stub.Predict(request(images(2))))
                await held.reached()
                during = await fetched(server)
                held.go.set()
                await waiting
            assert (during["calls",], during["queue_bytes",]) == (1, 2 * 64 * 4)
            assert during["samples_total",] == before["samples_total",] + 3
            while (after := await fetched(server))["calls",]:
                await asyncio.sleep(0.01)
            # Labels in order of their names: code, le, method.
            assert after["call_seconds_count", "OK", "Predict"] == 2
            assert after["call_seconds_count", error.code().name, "Predict"] == 1
            assert after["call_seconds_bucket", "OK", "+Inf", "Predict"] == 2
            assert after["call_seconds_sum", "OK", "Predict"] > 0

    run(test())


def test_a_port_that_is_taken_is_said_in_one_line() -> None:
    async def test() -> None:
        with socket.create_server(HERE) as taken:
            port = taken.getsockname()[1]
            server = Server(
                Shelf(make_servable()), options(metrics=("127.0.0.1", port))
            )
            with pytest.raises(MetricsError, match=f"--metrics 127.0.0.1:{port}: "):
                await server.start()

    run(test())


def test_without_the_option_nothing_is_counted() -> None:
    async def test() -> None:
        async with serving(Shelf(make_servable())) as server, calling(server) as stub:
            await stub.Predict(request(images(1)))
            assert server.telemetry is None

    run(test())

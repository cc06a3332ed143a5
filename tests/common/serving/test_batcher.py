"""The queue: bounds, order, deadlines, callers that have gone."""

import asyncio
import time
from typing import Any

import numpy as np
import pytest
import torch

from common.serving.batcher import Batcher, Expired
from common.serving.servable import Predictions
from tests.common.serving.support import Held, make_servable, run


def x(count: int, value: float = 0.0) -> torch.Tensor:
    return torch.full((count, 1, 8, 8), value)


SAMPLE = 4 * 64


async def ask(batcher: Batcher, *given: Any) -> Predictions:
    return await (await batcher.submit(*given))


def make(**changes: int) -> Batcher:
    return Batcher(**{"batch": 8, "max_requests": 100, "max_bytes": 10**6, **changes})


def test_batches_hold_whole_requests_of_one_model_in_order_of_arrival() -> None:
    held, other = Held(), Held()
    first, second = (make_servable(predictor=p) for p in (held, other))
    sizes: list[tuple[str, int]] = []
    held.register_forward_pre_hook(lambda _, given: sizes.append(("a", len(given[0]))))
    other.register_forward_pre_hook(lambda _, given: sizes.append(("b", len(given[0]))))

    async def test() -> None:
        batcher = make()
        asked = [(first, 3), (first, 4), (first, 3), (second, 2), (first, 1)]
        jobs = [asyncio.ensure_future(ask(batcher, s, x(n))) for s, n in asked]
        jobs.append(asyncio.ensure_future(ask(batcher, first, x(20))))
        await asyncio.sleep(0)
        work = asyncio.create_task(batcher.run())
        answers = await asyncio.gather(*jobs)
        assert [len(a.classes) for a in answers] == [3, 4, 3, 2, 1, 20]
        work.cancel()
        batcher.close()

    run(test())
    # 20 samples are more than a batch: computed in pieces of 8.
    expected = [("a", 7), ("a", 3), ("b", 2), ("a", 1), ("a", 8), ("a", 8), ("a", 4)]
    assert sizes == expected


def test_each_request_gets_the_answers_to_its_own_samples() -> None:
    servable = make_servable()
    values = np.linspace(-3, 3, 13)

    async def test() -> None:
        batcher = make()
        jobs = [
            asyncio.ensure_future(ask(batcher, servable, x(1, float(v))))
            for v in values
        ]
        await asyncio.sleep(0)
        work = asyncio.create_task(batcher.run())
        answers = await asyncio.gather(*jobs)
        for value, found in zip(values, answers, strict=True):
            alone = servable.answer(x(1, float(value)))
            np.testing.assert_allclose(
                found.probabilities, alone.probabilities, atol=1e-6
            )
            assert found.experts.tolist() == alone.experts.tolist()
        work.cancel()
        batcher.close()

    run(test())


def test_the_queue_is_bounded_in_requests_and_in_bytes() -> None:
    servable = make_servable()

    async def test() -> None:
        batcher = make(max_requests=3, max_bytes=10 * SAMPLE)
        jobs = [asyncio.ensure_future(ask(batcher, servable, x(4)))]
        await asyncio.sleep(0)
        large = asyncio.ensure_future(ask(batcher, servable, x(7)))
        await asyncio.sleep(0)
        assert batcher._bytes == 4 * SAMPLE  # 11 are too many
        jobs += [asyncio.ensure_future(ask(batcher, servable, x(3))) for _ in "ab"]
        fourth = asyncio.ensure_future(ask(batcher, servable, x(0)))
        await asyncio.sleep(0)
        assert (len(batcher._jobs), batcher._bytes) == (3, 10 * SAMPLE)
        work = asyncio.create_task(batcher.run())
        await asyncio.gather(*jobs)
        assert len((await large).classes) == 7
        assert len((await fourth).classes) == 0
        assert batcher._bytes == 0
        work.cancel()
        batcher.close()

    run(test())


def test_the_queue_fills_again_while_a_batch_is_computed() -> None:
    held = Held()
    servable = make_servable(predictor=held)

    async def test() -> None:
        batcher = make(max_requests=2)
        held.hold()
        jobs = [asyncio.ensure_future(ask(batcher, servable, x(1))) for _ in range(5)]
        await asyncio.sleep(0)
        work = asyncio.create_task(batcher.run())
        await held.reached()
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(batcher._jobs) == 2  # beside the two that are being computed
        held.go.set()
        await asyncio.gather(*jobs)
        work.cancel()
        batcher.close()

    run(test())


def test_the_expired_and_the_gone_are_never_computed() -> None:
    held = Held()
    servable = make_servable(predictor=held)

    async def test() -> None:
        batcher = make()
        now = time.monotonic()
        expired = asyncio.ensure_future(ask(batcher, servable, x(5), now - 1))
        gone = asyncio.ensure_future(ask(batcher, servable, x(5)))
        good = asyncio.ensure_future(ask(batcher, servable, x(2), now + 60))
        await asyncio.sleep(0)
        gone.cancel()
        work = asyncio.create_task(batcher.run())
        with pytest.raises(Expired):
            await expired
        await good
        assert held.samples == batcher.samples == 2
        assert batcher._bytes == 0
        work.cancel()
        batcher.close()

    run(test())

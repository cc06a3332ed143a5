"""Dividing a memory budget."""

import pytest
import torch
from torch import nn

from common.data import Normaliser
from common.errors import SourceError
from common.serving.memory import (
    COPIES,
    STANDARD_CALLS,
    ServingLimits,
    activation_bytes,
    limits_for,
    message_bytes,
)
from common.serving.servable import Servable
from common.task.known import task_of_shape
from tests.common.serving.support import make_servable


def linear(inputs: int, outputs: int) -> Servable:
    return Servable(
        predictor=nn.Sequential(nn.Flatten(), nn.Linear(inputs, outputs)),
        task=task_of_shape((inputs,), outputs, Normaliser(), 0),
        run="r",
        server_round=1,
        experts=(),
    )


def test_sizes_by_hand() -> None:
    servable = linear(100, 300)
    assert servable.nbytes == 4 * (100 * 300 + 300)
    assert activation_bytes(servable) == 4 * 4 * (100 + 300)


def divide(servable: Servable, memory: int, batch: int = 32) -> ServingLimits:
    return limits_for(servable, memory, batch, 320, message_bytes(servable, memory))


def test_the_parts_of_a_budget_fit_into_it() -> None:
    servable = linear(100, 300)
    for memory in (10**6, 2 * 10**6, 10**7, 10**8, 10**10):
        limits = divide(servable, memory)
        message = message_bytes(servable, memory)
        # The largest message twice at every place, whatever the model takes.
        spent = (
            COPIES * servable.nbytes
            + limits.queue_bytes
            + STANDARD_CALLS * 2 * message
            + limits.calls * (2 * message + limits.request_samples * 9 * (4 * 300 + 3))
            + limits.batch * (activation_bytes(servable) + 400)
        )
        assert spent <= memory
        assert 1 <= limits.batch <= 32
        assert 1 <= limits.request_samples <= 256
        assert limits.request_samples * 400 <= limits.queue_bytes
        assert limits.request_samples * 400 < limits.request_bytes <= message
        assert 1 <= limits.calls <= 320
    # 484 800 bytes of model leave 9 515 200, a 256th of which is a message of 37 168:
    # 3 samples, with answers of 3 x 10 827 under way. A quarter waits, 32 samples of
    # 6 800 are computed; of 6 918 800 for places of 74 336 each, 16 are for the other
    # services and the rest is enough for 53 with answers.
    found = divide(servable, 10**7)
    assert (found.batch, found.request_samples, found.calls) == (32, 3, 53)


def test_a_large_sample_is_a_message_of_its_own() -> None:
    servable = linear(100_000, 2)
    assert message_bytes(servable, 10**8) == 400_000 + 4096
    assert divide(servable, 10**8).request_samples == 1


def test_a_later_model_with_larger_samples_than_a_message() -> None:
    with pytest.raises(
        SourceError,
        match=r"round 1, has samples of 0\.0004 MB.* 0\.0044 MB: start again",
    ):
        limits_for(linear(100, 2), 10**9, 1, 16, 4400)


def test_too_small_a_budget_says_what_does_not_fit() -> None:
    servable = make_servable()
    for memory in (0, COPIES * servable.nbytes, COPIES * servable.nbytes + 500):
        with pytest.raises(SourceError, match="the model of a-run, round 1, takes"):
            divide(servable, memory, 1)


def test_measuring_leaves_no_hook_behind() -> None:
    servable = linear(4, 2)
    activation_bytes(servable)
    assert not any(m._forward_hooks for m in servable.predictor.modules())
    assert not servable.predictor.training
    assert torch.is_grad_enabled()

"""Dividing a memory budget."""

import pytest
import torch
from torch import nn

from common.inputs import Inputs
from common.serving.budget import COPIES, activation_bytes, limits_for, parse_bytes
from common.serving.servable import Servable, SourceError
from tests.common.serving.support import make_servable


def linear(inputs: int, outputs: int) -> Servable:
    return Servable(
        predictor=nn.Sequential(nn.Flatten(), nn.Linear(inputs, outputs)),
        inputs=Inputs(input_shape=(inputs,), num_classes=outputs),
        run="r",
        server_round=1,
        experts=(),
    )


def test_sizes_by_hand() -> None:
    servable = linear(100, 300)
    assert servable.nbytes == 4 * (100 * 300 + 300)
    assert activation_bytes(servable) == 4 * 4 * (100 + 300)


def test_the_parts_of_a_budget_fit_into_it() -> None:
    servable = linear(100, 300)
    for memory in (500_000, 600_000, 10**6, 10**9):
        limits = limits_for(servable, memory, 32)
        spent = (
            COPIES * servable.nbytes
            + limits.queue_bytes
            + limits.batch * (activation_bytes(servable) + 400)
        )
        assert spent <= memory
        assert 1 <= limits.batch <= 32
        assert 1 <= limits.request_samples <= 256
        assert limits.request_samples * 400 <= limits.queue_bytes
        assert limits.request_bytes > limits.request_samples * 400
    assert limits_for(servable, 10**9, 32).batch == 32
    assert limits_for(servable, 500_000, 32).batch < 32


def test_too_small_a_budget_says_what_does_not_fit() -> None:
    servable = make_servable()
    for memory in (0, COPIES * servable.nbytes, COPIES * servable.nbytes + 500):
        with pytest.raises(SourceError, match="the model of a-run, round 1, takes"):
            limits_for(servable, memory, 1)


def test_measuring_leaves_no_hook_behind() -> None:
    servable = linear(4, 2)
    activation_bytes(servable)
    assert not any(m._forward_hooks for m in servable.predictor.modules())
    assert not servable.predictor.training
    assert torch.is_grad_enabled()


def test_sizes_as_people_write_them() -> None:
    assert parse_bytes("123") == 123
    assert parse_bytes("800M") == 800_000_000
    assert parse_bytes("1.5 gb") == 1_500_000_000
    for wrong in ("", "M", "-1", "1T", "12 apples"):
        with pytest.raises(ValueError, match="is no size"):
            parse_bytes(wrong)

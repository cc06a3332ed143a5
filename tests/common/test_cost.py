"""Costs of training for every kind of model; exact numbers are with the budget's."""

from dataclasses import replace

import numpy as np
import pytest

from common.cost import (
    evaluation_batch,
    training_memory,
    training_work,
    upload,
)
from common.moe import ModelSpec
from tests.common.moe.support import BACKBONE_SHAPES

SPEC = ModelSpec(
    backbone="mlp",
    input_shape=(3, 16, 16),
    num_classes=10,
    num_experts=6,
    expert_hidden=2000,
    top_k=3,
)


@pytest.mark.parametrize("backbone", BACKBONE_SHAPES)
@pytest.mark.parametrize("top_k", [0, 1, 3])
def test_more_experts_never_cost_less(backbone: str, top_k: int) -> None:
    shape = BACKBONE_SHAPES[backbone]
    spec = replace(SPEC, backbone=backbone, input_shape=shape, top_k=top_k)
    memory = training_memory(spec, batch=16, train_samples=50, test_samples=50)
    for costs in (memory, training_work(spec), upload(spec)):
        assert costs.shape == (6,)
        assert (np.diff(costs) >= 0).all() and costs[0] > 0


def test_a_convolution_keeps_its_activations_for_every_sample_of_a_batch() -> None:
    # Wide images and hardly any weights: activations are what there is.
    spec = replace(
        SPEC, backbone="cnn", input_shape=(3, 64, 64), expert_hidden=1, num_experts=1
    )
    one, two = (
        training_memory(spec, batch=batch, train_samples=0, test_samples=0)[0]
        for batch in (100, 200)
    )
    # The first stage alone keeps three and a half maps of 32 x 64 x 64 values: of
    # convolution, norm and activation, and the larger of each pair of the pooling.
    assert two - one > 100 * 3.5 * 32 * 64 * 64 * 4


def test_a_convolution_along_a_series_keeps_its_activations() -> None:
    spec = replace(
        SPEC, backbone="cnn1d", input_shape=(3, 4096), expert_hidden=1, num_experts=1
    )
    one, two = (
        training_memory(spec, batch=batch, train_samples=0, test_samples=0)[0]
        for batch in (100, 200)
    )
    # After the first convolution and its ReLU 32 x 4096, pooled to half with the place
    # of each largest value in 8 bytes; the others have as many values, with a norm.
    first, later = 4096 * 32 * 4, 2048 * 64 * 4
    least = 100 * (first + 3 * later)
    assert least < two - one < 4 * least


def test_evaluation_can_take_more_than_training() -> None:
    spec = replace(SPEC, expert_hidden=20_000, top_k=1)
    train = training_memory(spec, batch=1, train_samples=0, test_samples=0)
    both = training_memory(spec, batch=1, train_samples=0, test_samples=512)
    # Two operations for each weight: extractor, gate and one expert.
    batch = 2**30 // (2 * (768 * 64 + 64 * 6 + 20_000 * (64 + 10)))
    assert evaluation_batch(spec) == batch == 351
    assert both[0] > train[0] and (both >= train).all()
    assert both[0] >= batch * 20_000 * 4


def test_the_more_experts_see_a_sample_the_fewer_are_evaluated_at_once() -> None:
    # Else their activations, as many times larger, would be the peak of a device.
    always = 768 * 64 + 64 * 6
    for top_k, experts in ((3, 3), (0, 6)):
        spec = replace(SPEC, expert_hidden=20_000, top_k=top_k)
        batch = 2**30 // (2 * (always + experts * 20_000 * (64 + 10)))
        assert evaluation_batch(spec) == batch


def test_the_heavier_a_sample_the_fewer_are_evaluated_at_once() -> None:
    sizes = {
        backbone: evaluation_batch(
            replace(SPEC, backbone=backbone, input_shape=(3, 32, 32), expert_hidden=32)
        )
        for backbone in ("mlp", "cnn", "resnet18")
    }
    # Kernels times positions of the three stages, the gate, one expert.
    stages = 9 * (3 * 32 * 32**2 + 32 * 64 * 16**2 + 64 * 128 * 8**2)
    cnn = 2**30 // (2 * (stages + 128 * 6 + 32 * (128 + 10)))
    assert sizes == {"mlp": 512, "cnn": cnn, "resnet18": 32}
    assert cnn == 51

"""What is cut out of an extractor: its tensors, and those of the rest, each once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from common.moe import ModelSpec
from common.moe.apart import cut_out
from tests.common.moe.support import text_spec

CNN = ModelSpec(
    backbone="cnn",
    input_shape=(3, 8, 8),
    num_classes=4,
    num_experts=1,
    expert_hidden=8,
    top_k=1,
    norm="batch",
)
# Scale, shift, running mean and variance of every channel.
NORM_VALUES = 4 * (32 + 64 + 128)


def test_batch_norms_with_their_running_statistics_are_a_part() -> None:
    whole, cut = CNN.build([0], 3), CNN.with_apart("norm").build([0], 3)
    assert cut.spec.part_names() == ["extractor", "norm", "expert.0", "gate"]
    assert cut.spec.size("norm") == NORM_VALUES
    assert cut.spec.size("extractor") == CNN.size("extractor") - NORM_VALUES
    # The same model to the bit, whichever parts it is cut into.
    for a, b in zip(
        whole.extractor.state_dict().values(),
        cut.extractor.state_dict().values(),
        strict=True,
    ):
        assert torch.equal(a, b)
    assert cut.spec.flops("extractor") == CNN.flops("extractor")


def test_a_part_and_the_rest_are_loaded_without_each_other() -> None:
    model = CNN.with_apart("norm").build([0])
    rest = model.vectors(["extractor"])["extractor"]
    model.load({"norm": np.full(NORM_VALUES, 0.5, np.float32)})
    for module in model.extractor.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (
                module.weight,
                module.bias,
                module.running_mean,
                module.running_var,
            ):
                assert tensor is not None and bool((tensor == 0.5).all())
    np.testing.assert_array_equal(model.vectors(["extractor"])["extractor"], rest)
    model.load({"extractor": np.zeros_like(rest)})
    assert (model.vectors(["norm"])["norm"] == 0.5).all()


def test_the_head_of_a_text_encoder_is_a_part() -> None:
    spec = text_spec().dense()
    cut = spec.with_apart("head")
    assert cut.head_part == "head"
    head = spec.encoder.width * spec.num_classes + spec.num_classes  # type: ignore[union-attr]
    assert cut.size("head") == head
    assert cut.size("extractor") == spec.size("extractor") - head


@pytest.mark.parametrize("part", ["norm", "head"])
def test_where_there_is_none_the_part_is_empty(part: str) -> None:
    spec = replace(CNN, norm="group")
    assert list(cut_out(spec.build([0]).extractor, part).parameters()) == []
    assert spec.with_apart(part).size(part) == 0
    assert spec.head_part == "expert.0"

"""Parts, vectors and sizes of the model."""

import numpy as np
import pytest
import torch

from common.moe import ModelSpec, expert_id, pack, unflatten, unpack_into
from common.moe.ensemble import UsageMixture
from tests.common.moe.support import BACKBONE_SHAPES

SHAPES = {"mlp": (1, 8, 8), "cnn1d": (6, 50)}


def spec_of(backbone: str = "mlp", **changes: object) -> ModelSpec:
    fields = {
        "backbone": backbone,
        "input_shape": SHAPES.get(backbone, (3, 32, 32)),
        "num_classes": 10,
        "num_experts": 4,
        "expert_hidden": 32,
        "top_k": 1,
    }
    return ModelSpec(**{**fields, **changes})  # type: ignore[arg-type]


def test_sizes_of_the_digits_model_by_hand() -> None:
    spec = spec_of()
    assert spec.size("extractor") == 64 * 64 + 64
    assert spec.size("expert.2") == 64 * 32 + 32 + 32 * 10 + 10
    assert spec.size("gate") == 64 * 4 + 4
    assert spec.nbytes("gate") == 4 * 260
    assert spec.flops("extractor") == 2 * 64 * 64
    assert spec.flops("expert.1") == 2 * (64 * 32 + 32 * 10)


def test_flops_of_a_convolution_count_every_place() -> None:
    # 3x3 convolutions at 32x32, 16x16 and 8x8.
    expected = 2 * 9 * (3 * 32 * 1024 + 32 * 64 * 256 + 64 * 128 * 64)
    assert spec_of("cnn").flops("extractor") == expected


def test_flops_of_a_convolution_along_a_series_count_every_step() -> None:
    # Seven steps wide, over 50, 25 and 12 steps.
    expected = 2 * 7 * (6 * 32 * 50 + 32 * 64 * 25 + 64 * 128 * 12)
    assert spec_of("cnn1d").flops("extractor") == expected


@pytest.mark.parametrize("norm", ["group", "batch"])
@pytest.mark.parametrize("steps", [2, 3, 5, 9, 128])
@pytest.mark.parametrize("channels", [1, 3, 9])
def test_a_window_of_any_length_and_number_of_channels(
    norm: str, steps: int, channels: int
) -> None:
    model = spec_of("cnn1d", input_shape=(channels, steps), norm=norm).build([0])
    x = torch.randn(4, channels, steps)
    assert model(x).logits.shape == (4, 10)
    model(x).logits.sum().backward()


def test_the_strength_of_a_signal_is_seen() -> None:
    # A norm before anything else would make these equal.
    extractor = spec_of("cnn1d").build([0], seed=1).extractor.eval()
    x = torch.randn(1, 6, 50)
    weak, strong = extractor(0.3 * x), extractor(x)
    assert (weak - strong).norm() > 0.1 * strong.norm()


def test_one_value_of_each_channel_cannot_be_normalised_over_a_batch() -> None:
    model = spec_of("cnn1d", input_shape=(6, 4), norm="batch").build([0]).train()
    with pytest.raises(ValueError, match="on one sample with features of 1: it"):
        model(torch.randn(1, 6, 4))


@pytest.mark.parametrize("backbone", BACKBONE_SHAPES)
@pytest.mark.parametrize("norm", ["group", "batch"])
def test_vectors_round_trip_on_every_backbone(backbone: str, norm: str) -> None:
    spec = spec_of(backbone, norm=norm)
    first, second = spec.build([0, 3], seed=1), spec.build([0, 3], seed=2)
    x = torch.randn(2, *spec.input_shape)
    second.load(first.vectors(["extractor", "expert.0", "expert.3", "gate"]))
    first.eval(), second.eval()
    torch.testing.assert_close(first(x).logits, second(x).logits)
    assert len(first.vectors(["extractor"])["extractor"]) == spec.size("extractor")


@pytest.mark.parametrize("backbone", BACKBONE_SHAPES)
def test_narrow_models_are_built_on_every_backbone(backbone: str) -> None:
    narrow = spec_of(backbone, width=0.5, num_experts=1)
    logits = narrow.build([0])(torch.randn(2, *narrow.input_shape)).logits
    assert logits.shape == (2, 10)
    assert narrow.size("extractor") < spec_of(backbone).size("extractor")


def test_an_expert_starts_equal_whoever_holds_it() -> None:
    spec = spec_of()
    alone = spec.build([2], seed=5).vectors(["expert.2"])["expert.2"]
    among = spec.build([0, 1, 2, 3], seed=5).vectors(["expert.2"])["expert.2"]
    np.testing.assert_array_equal(alone, among)
    other = spec.build([1], seed=5).vectors(["expert.1"])["expert.1"]
    assert not np.array_equal(alone, other)


def test_building_a_model_does_not_disturb_the_global_random_state() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    spec_of().initial(0, ["extractor"])
    spec_of("cnn").layout("extractor")
    assert torch.rand(1) == expected


def test_a_part_that_is_not_held_is_refused() -> None:
    model = spec_of().build([0])
    with pytest.raises(ValueError, match=r"expert\.1"):
        model.load({"expert.1": np.zeros(1, np.float32)})
    with pytest.raises(ValueError, match="shape"):
        model.load({"expert.0": np.zeros(1, np.float32)})


def test_unflatten_names_what_pack_flattened() -> None:
    linear = torch.nn.Linear(2, 3)
    vector = pack(linear)
    named = unflatten(vector, (("weight", (3, 2)), ("bias", (3,))))
    np.testing.assert_array_equal(named["weight"], linear.weight.detach().numpy())
    np.testing.assert_array_equal(named["bias"], linear.bias.detach().numpy())
    unpack_into(linear, np.zeros(9, np.float32))
    assert not linear.weight.any()


def test_expert_ids() -> None:
    assert expert_id("expert.12") == 12
    assert expert_id("extractor") is None
    assert expert_id("expert.x") is None


def test_usage_mixture_weighs_members_by_usage() -> None:
    model = spec_of().build([0, 1, 2, 3], seed=0).eval()
    x = torch.randn(5, 1, 8, 8)
    members = [f(model.extractor(x)).softmax(1) for f in model.moe.experts.values()]
    expected = 0.75 * members[1] + 0.25 * members[3]
    torch.testing.assert_close(UsageMixture(model, [0, 3, 0, 1])(x), expected)
    even = UsageMixture(model, [0, 0, 0, 0])(x)
    torch.testing.assert_close(even, torch.stack(members).mean(0))

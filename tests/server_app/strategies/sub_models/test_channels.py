"""Windows of channels, by hand and on every backbone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.moe import ModelSpec, unflatten
from server_app.strategies.sub_models.channels import window, window_positions


def test_the_window_rolls_by_one_channel_a_round_and_wraps() -> None:
    # Five channels, rate 0.6: ceil(3.0) = 3 of them.
    assert window(5, 3, 0).tolist() == [0, 1, 2]
    assert window(5, 3, 1).tolist() == [1, 2, 3]
    assert window(5, 3, 3).tolist() == [3, 4, 0]
    assert window(5, 3, 5).tolist() == [0, 1, 2]


def test_a_whole_dimension_is_not_rolled() -> None:
    assert window(4, 4, 3).tolist() == [0, 1, 2, 3]


@given(size=st.integers(1, 40), data=st.data())
def test_after_one_turn_every_channel_was_held_equally_often(
    size: int, data: st.DataObject
) -> None:
    kept = data.draw(st.integers(1, size))
    rounds = np.concatenate([window(size, kept, t) for t in range(size)])
    assert np.bincount(rounds, minlength=size).tolist() == [kept] * size


def test_positions_by_hand() -> None:
    # A layer of 3 channels on 2 inputs, and its bias; the sub-model keeps 2 channels.
    full = (("weight", (3, 2)), ("bias", (3,)))
    narrow = (("weight", (2, 2)), ("bias", (2,)))
    # Round 2: channels 2 and 0. Rows 2 and 0 of the weight, then bias 2 and 0.
    assert window_positions(full, narrow, 2).tolist() == [4, 5, 0, 1, 8, 6]


def test_positions_roll_both_sides_of_an_inner_layer() -> None:
    full, narrow = (("w", (3, 4)),), (("w", (2, 2)),)
    # Round 3: rows {0, 1}, columns {3, 0} of a 3 x 4 matrix.
    assert window_positions(full, narrow, 3).tolist() == [3, 0, 7, 4]


def test_another_network_is_refused() -> None:
    with pytest.raises(ValueError, match="no sub-tensor"):
        window_positions((("w", (3, 4)),), (("v", (2, 2)),), 0)


@pytest.mark.parametrize(
    ("backbone", "rate"),
    [
        *((name, rate) for name in ("mlp", "cnn", "resnet8") for rate in (0.3, 0.5, 1)),
        *(("cnn1d", rate) for rate in (0.3, 0.5, 1)),
        ("resnet18", 0.25),
    ],
)
@pytest.mark.parametrize("norm", ["group", "batch"])
def test_every_backbone_runs_the_window_it_was_sent(
    backbone: str, norm: str, rate: float
) -> None:
    shape = (3, 20) if backbone == "cnn1d" else (3, 8, 8)
    spec = ModelSpec(
        backbone=backbone,
        input_shape=shape,
        num_classes=4,
        num_experts=1,
        expert_hidden=6,
        top_k=1,
        norm=norm,
    )
    narrow, server_round = replace(spec, width=rate), 5
    model = narrow.build([0])
    parts = ("extractor", "expert.0")
    sent = {}
    for part, vector in spec.initial(0, parts).items():
        positions = window_positions(
            spec.layout(part), narrow.layout(part), server_round
        )
        assert np.bincount(positions).max() == 1
        assert len(positions) == narrow.size(part)
        sent[part] = vector[positions]
        # Tensor by tensor: the sub-tensor at the rolled channels.
        whole = unflatten(vector, spec.layout(part))
        cut = unflatten(sent[part], narrow.layout(part))
        for name, tensor in cut.items():
            windows = [
                window(f, n, server_round)
                for f, n in zip(whole[name].shape, tensor.shape, strict=True)
            ]
            np.testing.assert_array_equal(tensor, whole[name][np.ix_(*windows)])
    model.load(sent)
    logits = model(torch.randn(2, *shape)).logits
    assert logits.shape == (2, 4)
    assert torch.isfinite(logits).all()

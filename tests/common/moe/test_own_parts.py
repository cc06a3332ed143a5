"""Networks brought as ``module:attr``: built, counted and run like those that come."""

from typing import Any

import pytest
import torch

from common.cost import training_memory
from common.moe import ModelSpec
from common.moe.ensemble import GatedMixture
from common.settings import Settings, SettingsError
from tests.common.moe.own_parts import GatedExpert
from tests.common.moe.support import exported_answer, text_spec, texts

OWN = "tests.common.moe.own_parts"
SPEC = ModelSpec(
    backbone=f"{OWN}:Mean",
    input_shape=(3, 4, 4),
    num_classes=5,
    num_experts=4,
    expert=f"{OWN}:GatedExpert",
    expert_hidden=7,
    top_k=1,
)


def test_it_is_built_counted_and_run() -> None:
    model = SPEC.build((1, 2), seed=3).eval()
    assert all(type(f) is GatedExpert for f in model.moe.experts.values())
    # value and door 3 x 7 and 7 each, out 7 x 5 and 5: 2 * 28 + 40.
    assert SPEC.size("expert.1") == 96
    assert SPEC.flops("expert.1") == 2 * (2 * 3 * 7 + 7 * 5)
    costs = training_memory(SPEC, batch=4, train_samples=0, test_samples=0)
    # One more of top-1: four copies of its values, an optimizer apart, no activations.
    assert (costs[1:] - costs[:-1]).tolist() == [4 * 4 * 96] * 3
    x = torch.randn(6, 3, 4, 4)
    features = x.mean((2, 3))
    weights = model.moe.gate(features)[:, [1, 2]].softmax(1)
    for row, choice in enumerate(weights.argmax(1)):
        expert = model.moe.experts[str(1 + int(choice))]
        expected = weights[row, choice] * expert(features[row])
        torch.testing.assert_close(model(x).logits[row], expected)
    answer = exported_answer(GatedMixture(model), x)
    torch.testing.assert_close(answer.probabilities, model(x).logits.softmax(1))


def test_an_encoder_says_that_it_takes_tokens() -> None:
    settings = Settings.from_run_config({"backbone": f"{OWN}:BagOfWords"})
    assert settings.model.takes_tokens
    assert not Settings.from_run_config({"backbone": SPEC.backbone}).model.takes_tokens
    model = text_spec(backbone=f"{OWN}:BagOfWords").build((0, 4), seed=1)
    assert model(texts()).logits.shape == (6, 3)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"expert": "mpl"}, "expert = 'mpl' is not allowed.*did you mean 'mlp'"),
        ({"backbone": "cmn"}, "backbone = 'cmn' is not allowed.*did you mean 'cnn'"),
    ],
)
def test_a_wrong_name_gets_the_nearest(config: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        Settings.from_run_config(config)

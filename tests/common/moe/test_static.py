"""What a mixture answers, and that an exported graph answers the same."""

import numpy as np
import pytest
import torch
from torch import nn

from common.moe import ModelSpec
from common.moe.ensemble import (
    Answer,
    GatedMixture,
    Unexplained,
    UsageMixture,
    explaining,
)
from tests.common.moe.support import exported_answer

SPEC = {
    "backbone": "mlp",
    "input_shape": (1, 8, 8),
    "num_classes": 10,
    "num_experts": 6,
    "expert_hidden": 16,
}


@pytest.mark.parametrize("mixes", ["logits", "probabilities"])
@pytest.mark.parametrize("common_gate", [False, True])
@pytest.mark.parametrize("width", [1.0, 0.5])
@pytest.mark.parametrize("top_k", [0, 1, 2, 3])
@torch.inference_mode()
def test_exported_and_routed_agree(
    top_k: int, width: float, common_gate: bool, mixes: str
) -> None:
    spec = ModelSpec(
        **SPEC,  # type: ignore[arg-type]
        top_k=top_k,
        width=width,
        common_gate=common_gate,
        mixes=mixes,  # type: ignore[arg-type]
    )
    model = spec.build([0, 2, 5], seed=top_k).eval()
    x = torch.randn(64, 1, 8, 8)
    routed = GatedMixture(model).answer(x)
    probabilities, experts = exported_answer(GatedMixture(model), x)
    torch.testing.assert_close(probabilities, routed.probabilities)
    torch.testing.assert_close(routed.probabilities, model(x).logits.softmax(1))
    assert torch.equal(experts, routed.experts)
    assert set(experts.tolist()) <= {0, 2, 5}


@torch.inference_mode()
def test_the_named_expert_is_the_one_the_gate_sends_to() -> None:
    model = ModelSpec(**SPEC, top_k=1).build([1, 4], seed=0).eval()  # type: ignore[arg-type]
    model.moe.gate.weight.zero_()
    model.moe.gate.bias.copy_(torch.tensor([9.0, 0.0, 9.0, 9.0, 1.0, 9.0]))
    x = torch.randn(3, 1, 8, 8)
    assert GatedMixture(model).answer(x).experts.tolist() == [4, 4, 4]
    model.moe.experts["1"].out.bias += 100  # type: ignore[operator,union-attr]
    assert GatedMixture(model).answer(x).experts.tolist() == [4, 4, 4]


@torch.inference_mode()
def test_without_a_gate_the_named_expert_contributes_most_to_the_answer() -> None:
    model = ModelSpec(**SPEC, top_k=1).build(range(6), seed=3).eval()  # type: ignore[arg-type]
    usage = [0, 4, 4, 0, 4, 4]
    mixture = UsageMixture(model, usage)
    x = torch.randn(40, 1, 8, 8)
    found = mixture.answer(x)
    torch.testing.assert_close(found.probabilities, mixture(x))
    features = model.extractor(x)
    members = np.stack(
        [f(features).softmax(1).numpy() for f in model.moe.experts.values()]
    )
    shares = members * np.array(usage)[:, None, None] / 16
    classes = found.probabilities.argmax(1)
    expected = [int(shares[:, i, c].argmax()) for i, c in enumerate(classes)]
    assert found.experts.tolist() == expected
    assert len(set(expected)) > 1


def test_a_predictor_of_somebody_elses_names_no_expert() -> None:
    class Mine(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ones(len(x), 4) / 4

    found = explaining(Mine())
    assert isinstance(found, Unexplained)
    answer = found.answer(torch.zeros(3, 2))
    assert isinstance(answer, Answer)
    assert answer.experts.tolist() == [-1, -1, -1]
    mixture = GatedMixture(ModelSpec(**SPEC, top_k=1).build([0]))  # type: ignore[arg-type]
    assert explaining(mixture) is mixture

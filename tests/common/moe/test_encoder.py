"""Models with mixture layers inside an encoder of text."""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch

from common.cost import training_memory, training_work, upload
from common.moe import Exploration, ModelSpec
from common.moe.encoder import INITIAL_STD
from common.moe.ensemble import GatedMixture, UsageMixture
from common.moe.model import features_of
from tests.common.moe.support import LENGTH, exported_answer, text_spec, texts

HELD = (0, 2, 3, 5, 7)


def by_hand(model: Any, x: torch.Tensor) -> Any:
    """Route one token at a time, through one expert at a time."""

    def mix_of(layer: Any) -> Callable[..., torch.Tensor]:
        def mix(x_BTD: torch.Tensor, real_BT: torch.Tensor) -> torch.Tensor:
            out = torch.zeros_like(x_BTD)
            for b, t in real_BT.nonzero().tolist():
                seen = x_BTD[b, t]
                if model.spec.encoder.routing == "sequence":
                    seen = x_BTD[b, real_BT[b]].mean(0)
                held = [int(e) for e in layer.experts]
                probs = layer.gate(seen)[held].softmax(0)
                for slot in probs.argsort(descending=True)[: layer.top_k]:
                    expert = layer.experts[str(held[slot])]
                    out[b, t] += probs[slot] * expert(x_BTD[b, t])
            return out

        return mix

    return model.extractor(x, [mix_of(layer) for layer in model.layers])


@pytest.mark.parametrize("routing", ["token", "sequence"])
def test_a_text_that_is_routed_as_one_is_explored_as_one(routing: str) -> None:
    model = text_spec(routing=routing).build(HELD, seed=1)
    generator = torch.Generator().manual_seed(0)
    for layer in model.layers:
        layer.exploration = Exploration(share=1.0, generator=generator)
    together = True
    for routed in model(texts()).layers:
        assert routed.samples is not None
        for text in routed.samples.unique():
            together &= len(routed.slots[routed.samples == text].unique()) == 1
    assert together == (routing == "sequence")


@pytest.mark.parametrize("routing", ["token", "sequence"])
@pytest.mark.parametrize("top_k", [0, 1, 2])
def test_routing_equals_a_loop_over_tokens(routing: str, top_k: int) -> None:
    model: Any = text_spec(routing=routing, top_k=top_k).build(HELD, seed=1).eval()
    x = texts()
    routed = model(x)
    torch.testing.assert_close(routed.logits, by_hand(model, x))
    tokens = int((x != 0).sum())
    for layer, held in zip(routed.layers, (3, 2), strict=True):
        assert layer.gate_logits.shape == (tokens, 4)
        assert layer.held_probs.shape == (tokens, held)
        # Padding is neither routed nor counted.
        assert layer.slots.shape == (tokens, min(top_k, held) or held)
        assert layer.samples is not None
        assert torch.bincount(layer.samples).tolist() == (x != 0).sum(1).tolist()


def test_a_text_is_routed_as_a_whole_if_its_sequence_is() -> None:
    model: Any = text_spec(routing="sequence").build(HELD, seed=1).eval()
    for layer in model(texts(LENGTH)).layers:
        gates = layer.gate_logits
        for text in range(LENGTH):
            mine = gates[layer.samples == text]
            assert (mine == mine[0]).all()
        assert not torch.equal(
            gates[layer.samples == 3][0], gates[layer.samples == 4][0]
        )


@pytest.mark.parametrize("routing", ["token", "sequence"])
@pytest.mark.parametrize("common_gate", [False, True])
def test_the_answer_does_not_depend_on_the_padding(
    routing: str, common_gate: bool
) -> None:
    spec = text_spec(routing=routing, common_gate=common_gate)
    model: Any = spec.build(HELD, seed=1).eval()
    x = texts()
    together = model(x).logits
    for row in range(len(x)):
        alone = model(x[row : row + 1, : row + 1]).logits[0]
        torch.testing.assert_close(together[row], alone)
    # Not even if what stands for padding is something else than zero.
    with torch.no_grad():
        model.extractor.token.weight[0] = 100.0
    torch.testing.assert_close(model(x).logits, together)


@pytest.mark.parametrize("top_k", [0, 1])
def test_nothing_but_padding_has_an_answer(top_k: int) -> None:
    model: Any = text_spec(top_k=top_k).build(HELD, seed=1).eval()
    nothing = torch.zeros(2, LENGTH, dtype=torch.int64)
    answer = GatedMixture(model).answer(nothing)
    assert torch.isfinite(answer.probabilities).all()
    static = exported_answer(GatedMixture(model), nothing)
    torch.testing.assert_close(answer.probabilities, static.probabilities)


def test_padding_gets_no_gradient() -> None:
    model: Any = text_spec(top_k=0).build(range(8), seed=1)
    model(texts()[:1]).logits.sum().backward()
    # One real token: one position and one token learn, of all there are.
    for table in (model.extractor.token, model.extractor.position):
        moved = table.weight.grad.abs().sum(1).nonzero()
        assert len(moved) == 1


def test_experts_of_all_layers_are_numbered_in_a_row() -> None:
    spec = text_spec()
    assert (spec.num_layers, spec.num_units, spec.one_of_each) == (2, 8, (0, 4))
    assert spec.layers.tolist() == [0] * 4 + [1] * 4
    assert spec.part_names() == [
        "extractor",
        *(f"expert.{e}" for e in range(8)),
        "gate",
    ]
    assert spec.dense().num_units == 2
    model: Any = spec.build(HELD)
    assert [list(layer.experts) for layer in model.layers] == [
        ["0", "2", "3"],
        ["1", "3"],
    ]
    assert set(model.parts()) == {"extractor", "gate", *(f"expert.{e}" for e in HELD)}
    whole = spec.build(range(8), seed=4)
    some = spec.build(HELD, seed=4)
    for part, vector in some.vectors(some.parts()).items():
        np.testing.assert_array_equal(whole.vectors([part])[part], vector)
    other = spec.build(HELD, seed=5)
    other.load(some.vectors(some.parts()))
    torch.testing.assert_close(
        other.eval()(texts()).logits, some.eval()(texts()).logits
    )


@pytest.mark.parametrize(
    ("held", "reason"), [((0, 1), "layer 2 has no expert"), ((0, 8), "does not exist")]
)
def test_a_layer_without_an_expert_is_refused(
    held: tuple[int, ...], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        text_spec().build(held)


def test_sizes_by_hand() -> None:
    spec = text_spec()
    expert = 8 * 6 + 6 + 6 * 8 + 8
    assert spec.size("expert.0") == spec.size("expert.7") == expert
    assert spec.size("gate") == 2 * (8 * 4 + 4)
    attention = 8 * 24 + 24 + 8 * 8 + 8
    dense = 8 * 32 + 32 + 32 * 8 + 8
    norms, head = 7 * 16, 8 * 3 + 3
    assert spec.size("extractor") == (
        40 * 8 + LENGTH * 8 + 3 * attention + dense + norms + head
    )
    # Multiply-adds of every token; the head's of the pooled text.
    assert spec.flops("expert.5") == LENGTH * 2 * (8 * 6 + 6 * 8)
    assert spec.flops("gate") == LENGTH * 2 * 2 * 8 * 4
    per_token = 3 * (8 * 24 + 8 * 8) + 8 * 32 + 32 * 8
    assert spec.flops("extractor") == 2 * (LENGTH * per_token + 8 * 3)


def test_embeddings_start_small_the_same_for_a_seed_and_zero_for_padding() -> None:
    spec = text_spec(vocabulary=4000)
    extractors: list[Any] = [spec.build((0, 4), s).extractor for s in (1, 1, 2)]
    first, again, other = extractors
    table = first.token.weight.detach()
    assert not table[0].any()
    assert float(table[1:].std()) == pytest.approx(INITIAL_STD, rel=0.05)
    assert torch.equal(table, again.token.weight)
    assert not torch.equal(table, other.token.weight)


@pytest.mark.parametrize("routing", ["token", "sequence"])
@pytest.mark.parametrize("common_gate", [False, True])
@pytest.mark.parametrize("top_k", [0, 1, 2])
@torch.inference_mode()
def test_exported_and_routed_agree(top_k: int, common_gate: bool, routing: str) -> None:
    spec = text_spec(top_k=top_k, common_gate=common_gate, routing=routing)
    model: Any = spec.build(HELD, seed=top_k).eval()
    x = texts(20)
    answer = GatedMixture(model).answer(x)
    probabilities, experts = exported_answer(GatedMixture(model), x)
    torch.testing.assert_close(probabilities, answer.probabilities)
    assert torch.equal(experts, answer.experts)
    assert set(experts.tolist()) <= {5, 7}  # of the last layer


@torch.inference_mode()
def test_without_gates_every_layer_is_averaged_by_its_own_usage() -> None:
    model: Any = text_spec(top_k=0).build(range(8), seed=2).eval()
    x = texts()
    # Gates that do not look: their softmax is the usage, layer by layer.
    for layer, usage in zip(model.layers, ([1, 2, 1, 0], [3, 0, 0, 1]), strict=True):
        layer.gate.weight.zero_()
        layer.gate.bias.copy_(torch.tensor(usage).log())
    mixture = UsageMixture(model, [1, 2, 1, 0, 30, 0, 0, 10])
    torch.testing.assert_close(mixture(x), model(x).logits.softmax(1))
    assert mixture.answer(x).experts.tolist() == [4] * 6
    even = UsageMixture(model, [0] * 4 + [1, 0, 0, 0])
    model.layers[0].gate.bias.zero_()
    model.layers[1].gate.bias.copy_(torch.tensor([1, 0, 0, 0]).log())
    torch.testing.assert_close(even(x), model(x).logits.softmax(1))


@torch.inference_mode()
def test_features_leave_the_mixtures_out() -> None:
    model: Any = text_spec().build((0, 4), seed=2).eval()
    x = texts()
    expected = features_of(model.extractor, x)
    for layer in model.layers:
        layer.experts["0"].out.weight.zero_()
        layer.experts["0"].out.bias.zero_()
    head = model.extractor.head
    torch.testing.assert_close(model(x).logits, head(expected))


def test_a_spec_survives_json() -> None:
    for spec in (text_spec(routing="sequence"), SPEC_OF_NUMBERS):
        assert ModelSpec.from_facts(json.loads(json.dumps(asdict(spec)))) == spec


SPEC_OF_NUMBERS = ModelSpec(
    backbone="mlp",
    input_shape=(1, 8, 8),
    num_classes=10,
    num_experts=4,
    expert_hidden=8,
    top_k=1,
)


@pytest.mark.parametrize("top_k", [0, 1, 3])
def test_more_experts_never_cost_less(top_k: int) -> None:
    spec = text_spec(top_k=top_k)
    memory = training_memory(spec, batch=16, train_samples=50, test_samples=50)
    for costs in (memory, training_work(spec), upload(spec)):
        assert costs.shape == (4,)
        assert (np.diff(costs) >= 0).all()
        assert costs[0] > 0
    one = 4 * (8 * 6 + 6 + 6 * 8 + 8)
    np.testing.assert_allclose(np.diff(upload(spec)), 2 * one)

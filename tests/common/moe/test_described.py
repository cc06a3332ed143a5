"""Predictors in words and back: the same answers, to the bit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from common.moe import GATE, ModelSpec
from common.moe.described import alike, describe, predictor_of
from common.moe.ensemble import (
    GatedMixture,
    GroupMixture,
    ServerGated,
    Unexplained,
    UsageMixture,
)
from tests.common.moe.support import text_spec, texts

SPEC = ModelSpec(
    backbone="mlp",
    input_shape=(1, 4, 4),
    num_classes=3,
    num_experts=5,
    expert_hidden=4,
    top_k=2,
)


def rebuilt(predictor: nn.Module, spec: ModelSpec, *, gated: bool) -> nn.Module:
    """Carry a predictor over as the wire does: words, and vectors by name."""
    found = describe(predictor)
    assert found is not None
    vectors = found.vectors()
    assert (GATE in vectors) == gated
    model = spec.build(range(spec.num_units), seed=99)
    model.load(vectors)
    return predictor_of(found.kind, model, found.weights, found.server_gate)


@given(st.lists(st.floats(0, 1e6), min_size=5, max_size=5), st.integers(0, 2**32))
@torch.no_grad()
def test_a_predictor_that_is_carried_over_answers_the_same(
    usage: list[float], seed: int
) -> None:
    model = SPEC.build(range(5), seed=1).eval()
    x = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    gated = ServerGated(model, usage)
    nn.init.normal_(gated.gate.weight)
    for predictor in (UsageMixture(model, usage), gated, GatedMixture(model)):
        own = isinstance(predictor, GatedMixture)
        again = rebuilt(predictor, SPEC, gated=own).eval()
        assert type(again) is type(predictor)
        assert torch.equal(again(x), predictor(x))


@torch.no_grad()
def test_layers_inside_an_encoder_and_a_common_gate_are_carried_over() -> None:
    spec = text_spec()
    usage = np.arange(spec.num_units)
    model = spec.build(range(spec.num_units), seed=1).eval()
    again = rebuilt(UsageMixture(model, usage), spec, gated=False).eval()
    assert torch.equal(again(texts()), UsageMixture(model, usage)(texts()))
    common = replace(SPEC, common_gate=True)
    gated = GatedMixture(common.build(range(5), seed=1).eval())
    x = torch.randn(8, 1, 4, 4)
    assert torch.equal(rebuilt(gated, common, gated=True).eval()(x), gated(x))


@torch.no_grad()
def test_groups_answer_with_the_sums_of_their_experts() -> None:
    spec = replace(SPEC, num_experts=6, mixes="sum")
    model = spec.build(range(6), seed=1).eval()
    groups = GroupMixture(model, [1, 0, 3])
    x = torch.randn(8, 1, 4, 4)
    features = model.extractor(x)
    pairs = [(0, 1), (2, 3), (4, 5)]
    answers = [
        sum(model.moe.experts[str(e)](features) for e in pair).softmax(1)
        for pair in pairs
    ]
    torch.testing.assert_close(groups(x), 0.25 * answers[0] + 0.75 * answers[2])
    again = rebuilt(groups, spec, gated=False).eval()
    assert type(again) is GroupMixture
    assert torch.equal(again(x), groups(x))


@torch.no_grad()
def test_inside_an_encoder_a_group_is_its_model_alone() -> None:
    spec = replace(text_spec(), num_experts=4, top_k=2, mixes="sum")
    layers = range(spec.num_layers)
    whole = spec.build(range(spec.num_units), seed=1).eval()
    groups = GroupMixture(whole, [1, 3])
    expected = 0
    for group, share in ((0, 0.25), (1, 0.75)):
        held = [4 * layer + 2 * group + j for layer in layers for j in (0, 1)]
        alone = spec.build(held, seed=1).eval()
        expected = expected + share * alone(texts()).logits.softmax(1)
    torch.testing.assert_close(groups(texts()), expected)
    again = rebuilt(groups, spec, gated=False).eval()
    assert torch.equal(again(texts()), groups(texts()))


class Own(UsageMixture):
    """A user's, which may do anything."""


def test_what_is_of_another_kind_has_no_words() -> None:
    model = SPEC.build(range(5))
    for predictor in (Own(model, np.ones(5)), Unexplained(nn.Identity()), model):
        assert describe(predictor) is None


def test_words_that_do_not_fit_the_model_are_refused() -> None:
    model = SPEC.build(range(5))
    with pytest.raises(ValueError, match="4 weights of 5 experts"):
        predictor_of("usage", model, [0.25] * 4, [])
    for weights in ([], [0.5, 0.5]):
        with pytest.raises(ValueError, match=f"5 experts of {len(weights)} groups"):
            predictor_of("groups", model, weights, [])
    with pytest.raises(ValueError, match="server-gate has shape"):
        predictor_of("server-gate", model, [0.2] * 5, [0.0])


def test_predictors_are_alike_to_the_bit_or_not_at_all() -> None:
    model, twin = (SPEC.build(range(5), seed=1) for _ in range(2))
    usage = [1.0, 2.0, 3.0, 4.0, 5.0]
    first = UsageMixture(model, usage)
    assert alike(first, UsageMixture(twin, usage))
    assert not alike(first, UsageMixture(twin, usage[::-1]))
    assert not alike(first, GatedMixture(twin))
    assert not alike(first, UsageMixture(SPEC.build(range(4), seed=1), usage[:4]))
    wider = replace(SPEC, expert_hidden=5).build(range(5), seed=1)
    assert not alike(first, UsageMixture(wider, usage))
    # Of what cannot be told in words nothing is known.
    unknown = nn.Linear(2, 2)
    assert not alike(unknown, unknown)
    vector = model.vectors(["expert.3"])["expert.3"].copy()
    vector[0] = np.nextafter(vector[0], np.float32(1))
    twin.load({"expert.3": vector})
    assert not alike(first, UsageMixture(twin, usage))

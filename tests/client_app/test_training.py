"""Local training: statistics by an independent count, determinism, FedProx."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from client_app.statistics import LocalResult
from client_app.training import Objective, evaluate, train
from common.moe import ModelSpec, MoEModel
from common.seeding import stream
from common.settings.training_settings import TrainingSettings
from tests.common.moe.support import text_spec, texts

SPEC = ModelSpec(
    backbone="mlp",
    input_shape=(1, 8, 8),
    num_classes=3,
    num_experts=5,
    expert_hidden=8,
    top_k=1,
)
ONE_BATCH = TrainingSettings(local_epochs=1, batch_size=1000, lr=0.1)


def data(n: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(1)
    y = np.arange(n) % 3
    x = rng.normal(size=(n, 1, 8, 8)) + y[:, None, None, None]
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y)


def trained(
    settings: TrainingSettings, objective: Objective, top_k: int = 1
) -> tuple[MoEModel, object]:
    model = replace(SPEC, top_k=top_k).build([1, 3], seed=0)
    x, y = data()
    result = train(
        model, x, y, settings=settings, objective=objective, rng=stream(0, "t")
    )
    return model, result


def test_statistics_equal_an_independent_count() -> None:
    # One batch of all samples: the pass happened with the initial weights.
    model = SPEC.build([1, 3], seed=0)
    x, y = data()
    with torch.no_grad():
        features = model.extractor(x)
        gate = model.moe.gate(features)
        chosen = gate[:, [1, 3]].argmax(1)
        logits = [model.moe.experts[e](features) for e in ("1", "3")]
    result = train(
        model, x, y, settings=ONE_BATCH, objective=Objective(), rng=stream(0, "t")
    )
    for slot in (0, 1):
        mine = chosen == slot
        assert result.samples[slot] == int(mine.sum())
        if mine.any():
            hits = (logits[slot][mine].argmax(1) == y[mine]).double().mean()
            assert result.accuracy[slot] == pytest.approx(float(hits))
            loss = torch.nn.functional.cross_entropy(logits[slot][mine], y[mine])
            assert result.loss[slot] == pytest.approx(float(loss), rel=1e-5)
    np.testing.assert_allclose(result.gate_mass, gate.softmax(1).mean(0), rtol=1e-5)


def test_responsibility_is_the_posterior_of_bayes() -> None:
    model = replace(SPEC, top_k=0).build([1, 3], seed=0)
    x, y = data()
    with torch.no_grad():
        features = model.extractor(x)
        prior = model.moe.gate(features)[:, [1, 3]].softmax(1)
        likelihood = torch.stack(
            [
                model.moe.experts[e](features).softmax(1)[range(len(y)), y]
                for e in ("1", "3")
            ],
            dim=1,
        )
        joint = prior * likelihood
        expected = (joint / joint.sum(1, keepdim=True)).mean(0)
    result = train(
        model, x, y, settings=ONE_BATCH, objective=Objective(), rng=stream(0, "t")
    )
    np.testing.assert_allclose(result.responsibility, expected, rtol=1e-4)


def test_top_k_counts_every_sample_k_times() -> None:
    _, result = trained(TrainingSettings(local_epochs=2), Objective(), top_k=2)
    assert result.samples.tolist() == [60, 60]  # type: ignore[attr-defined]


def test_the_same_stream_gives_the_same_bits() -> None:
    first, _ = trained(TrainingSettings(), Objective(gate_balance=0.01))
    second, _ = trained(TrainingSettings(), Objective(gate_balance=0.01))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("balance", "idle"), [(0.0, True), (0.3, False)])
def test_the_balance_loss_wakes_an_expert_its_gate_forgot(
    balance: float, idle: bool
) -> None:
    model = SPEC.build([1, 3], seed=0)
    with torch.no_grad():
        model.moe.gate.bias[1] += 2.0
    result = train(
        model,
        *data(),
        settings=TrainingSettings(local_epochs=20),
        objective=Objective(gate_balance=balance),
        rng=stream(0, "t"),
    )
    assert (result.samples[1] == 0) == idle


@pytest.mark.parametrize(("share", "idle"), [(0.0, True), (0.2, False)])
def test_exploration_leaves_no_held_expert_without_evidence(
    share: float, idle: bool
) -> None:
    def result_of(seed: int) -> LocalResult:
        model = SPEC.build([1, 3], seed=0)
        with torch.no_grad():
            # This gate would send no sample to expert 3, ever.
            model.moe.gate.bias[1] += 50.0
        explore = Objective(gate_exploration=share)
        rng = stream(seed, "t")
        return train(
            model, *data(), settings=TrainingSettings(), objective=explore, rng=rng
        )

    first, again, other = result_of(0), result_of(0), result_of(1)
    assert (first.samples[1] == 0) == idle
    assert first.samples.sum() == 60
    assert first.samples.tolist() == again.samples.tolist()
    assert first.train_loss == again.train_loss != other.train_loss
    if not idle:
        # 60 samples, a fifth drawn, half of these to expert 3: 6, give or take.
        assert 1 <= first.samples[1] <= 15


def test_the_gate_balance_loss_moves_the_gate_by_its_gradient() -> None:
    # One step of plain SGD on one batch, worked out with autograd from the formula of
    # Switch Transformers: 2 sum_e f_e P_e over the two held experts.
    plain = TrainingSettings(
        local_epochs=1, batch_size=1000, lr=0.1, momentum=0.0, weight_decay=0.0
    )
    without, _ = trained(plain, Objective())
    balanced, _ = trained(plain, Objective(gate_balance=0.5))
    start = SPEC.build([1, 3], seed=0)
    held = start.moe.gate(start.extractor(data()[0]))[:, [1, 3]]
    share = torch.bincount(held.argmax(1), minlength=2) / len(held)
    (2 * (share * held.softmax(1).mean(0)).sum()).backward()
    for new, old, step in zip(
        balanced.moe.gate.parameters(),
        without.moe.gate.parameters(),
        start.moe.gate.parameters(),
        strict=True,
    ):
        assert step.grad is not None and step.grad.abs().max() > 1e-3
        torch.testing.assert_close(new - old, -0.1 * 0.5 * step.grad)


def test_training_learns() -> None:
    model, _ = trained(TrainingSettings(local_epochs=10), Objective())
    learnt = evaluate(model, *data()).accuracy
    assert learnt is not None and learnt > 0.9


def test_proximal_term_pulls_towards_the_weights_received() -> None:
    # One step of plain SGD from w_t: the proximal gradient mu (w - w_t) is zero, so
    # the first step is unchanged; with many steps the distance shrinks.
    plain = TrainingSettings(local_epochs=1, batch_size=1000, momentum=0.0)
    same, _ = trained(plain, Objective())
    prox, _ = trained(plain, Objective(proximal=5.0))
    for a, b in zip(same.parameters(), prox.parameters(), strict=True):
        torch.testing.assert_close(a, b)

    def distance(objective: Objective) -> float:
        start = SPEC.build([1, 3], seed=0)
        model, _ = trained(TrainingSettings(local_epochs=5), objective)
        pairs = zip(model.parameters(), start.parameters(), strict=True)
        return float(sum((a - b).pow(2).sum() for a, b in pairs))

    assert distance(Objective(proximal=1.0)) < 0.5 * distance(Objective())


def test_calibrated_loss_does_not_learn_which_labels_are_frequent() -> None:
    # Nothing in the input tells the labels apart; three of four are class 0. The plain
    # loss learns the odds 3 : 1, the calibrated one has them already.
    x, y = torch.zeros(400, 1, 8, 8), torch.tensor([0, 0, 0, 1] * 100)
    shift = torch.tensor([0.75, 0.25, 1e-6]).log()
    odds = []
    for objective in (Objective(), Objective(shift=shift)):
        model = SPEC.build([2], seed=0)
        settings = TrainingSettings(local_epochs=40, lr=0.05, batch_size=100)
        train(model, x, y, settings=settings, objective=objective, rng=stream(0, "t"))
        first, second, _ = model(x[:1]).logits[0].tolist()
        odds.append(first - second)
    assert odds[0] == pytest.approx(np.log(3), abs=0.05)
    assert odds[1] == pytest.approx(0, abs=0.05)


def test_a_shift_changes_answers() -> None:
    model, _ = trained(ONE_BATCH, Objective())
    x, y = data()
    only_one = torch.tensor([0.0, 1e6, 0.0])
    counts = evaluate(model, x, y, only_one)
    assert counts.recall == [0, 1, 0]
    assert counts.accuracy == 1 / 3


@pytest.mark.parametrize("routing", ["token", "sequence"])
def test_statistics_inside_an_encoder_are_of_tokens_and_of_their_texts(
    routing: str,
) -> None:
    held = (0, 2, 3, 5, 7)
    spec = text_spec(routing=routing)
    model = spec.build(held, seed=1)
    x, y = texts(12), torch.arange(12) % 3
    with torch.no_grad():
        routed = model(x)
    hits = (routed.logits.argmax(1) == y).double()
    losses = torch.nn.functional.cross_entropy(routed.logits, y, reduction="none")
    result = train(
        model, x, y, settings=ONE_BATCH, objective=Objective(), rng=stream(0, "t")
    )
    unit = 0
    for layer, routing_of in zip(model.layers, routed.layers, strict=True):
        assert routing_of.samples is not None
        # Which of its layer's experts each token goes to, found without the dispatch.
        chosen = routing_of.gate_logits[:, layer.held_ids].argmax(1)
        for slot in range(len(layer.experts)):
            mine = routing_of.samples[chosen == slot]
            assert result.samples[unit] == len(mine)
            if len(mine):
                assert result.accuracy[unit] == pytest.approx(float(hits[mine].mean()))
                expected = float(losses[mine].mean())
                assert result.loss[unit] == pytest.approx(expected, rel=1e-5)
            unit += 1
    assert unit == len(held)
    tokens = int((x != 0).sum())
    assert [result.samples[:3].sum(), result.samples[3:].sum()] == [tokens, tokens]
    gates = [r.gate_logits.softmax(1).mean(0) for r in routed.layers]
    np.testing.assert_allclose(result.gate_mass, torch.cat(gates), rtol=1e-4)
    # One expert answers for a token, and there is no label to ask.
    np.testing.assert_allclose(result.responsibility, result.samples / tokens)


def test_an_anchor_teaches_the_gates_of_all_layers() -> None:
    model = text_spec().build([1, 6], seed=1)
    x, y = texts(6), torch.arange(6) % 3
    routed = model(x)
    named = [
        torch.nn.functional.cross_entropy(
            r.gate_logits, torch.full((len(r.gate_logits),), e)
        )
        for r, e in zip(routed.layers, (1, 2), strict=True)
    ]
    plain = Objective().loss(routed, y, model, [], 0.0)
    taught = Objective(gate_supervision=0.5).loss(routed, y, model, [], 0.0)
    torch.testing.assert_close(taught, plain + 0.5 * (named[0] + named[1]) / 2)


# --- batch norm -----------------------------------------------------------------------

SMALL = replace(SPEC, backbone="resnet8", input_shape=(1, 4, 4), norm="batch")
"""Its last stage has features of 1x1."""


def sizes_of_batches(spec: ModelSpec, samples: int, size: int) -> list[int]:
    model = spec.build([1, 3], seed=0)
    seen: list[int] = []
    model.extractor.register_forward_hook(lambda *args: seen.append(len(args[2])))
    x = torch.randn(samples, *spec.input_shape, generator=torch.Generator())
    settings = TrainingSettings(local_epochs=1, batch_size=size, lr=0.01)
    y = torch.arange(samples) % 3
    objective, rng = Objective(), stream(0, "t")
    result = train(model, x, y, settings=settings, objective=objective, rng=rng)
    assert int(result.samples.sum()) == samples
    return seen


@pytest.mark.parametrize(
    ("samples", "expected"), [(7, [3, 4]), (8, [3, 3, 2]), (4, [4]), (3, [3]), (2, [2])]
)
def test_a_last_sample_joins_the_batch_before_a_batch_norm(
    samples: int, expected: list[int]
) -> None:
    assert sizes_of_batches(SMALL, samples, size=3) == expected


def test_without_batch_norm_a_batch_of_one_is_one() -> None:
    for spec in (SPEC, replace(SMALL, norm="group")):
        assert sizes_of_batches(spec, 7, size=3) == [3, 3, 1]
    # Larger features have a spread of their own.
    large = replace(SMALL, input_shape=(1, 8, 8))
    assert sizes_of_batches(large, 1, size=3) == [1]


@pytest.mark.parametrize(("samples", "size"), [(1, 3), (2, 1)])
def test_where_nothing_can_be_joined_the_settings_are_named(
    samples: int, size: int
) -> None:
    with pytest.raises(ValueError, match=r'norm = "batch" cannot train on one sample'):
        sizes_of_batches(SMALL, samples, size)


def test_of_a_sum_the_gate_learns_beside_and_nothing_follows_it() -> None:
    spec = replace(SPEC, num_experts=4, top_k=2, mixes="sum")
    x, y = data()
    found = []
    for start in (0.0, 3.0):
        model = spec.build([0, 3], seed=0)
        gate: Any = model.moe.gate
        with torch.no_grad():
            gate.banks[0] = start
        train(
            model, x, y, settings=ONE_BATCH, objective=Objective(), rng=stream(0, "t")
        )
        found.append(model.vectors(["extractor", "expert.0", "expert.3", "gate"]))
    one, other = found
    for part in ("extractor", "expert.0", "expert.3"):
        np.testing.assert_array_equal(one[part], other[part], err_msg=part)
    # By hand: the gradient of CE(2 sum_j softmax(a)_j o_j) at a = 0, for both a_j.
    model = spec.build([0, 3], seed=0)
    with torch.no_grad():
        features = model.extractor(x)
        outputs = torch.stack([e(features) for e in model.moe.experts.values()])
    weights = torch.zeros(2, requires_grad=True)
    logits = 2 * torch.einsum("h,hbc->bc", weights.softmax(0), outputs)
    torch.nn.functional.cross_entropy(logits, y).backward()
    assert weights.grad is not None
    np.testing.assert_allclose(one["gate"], -0.1 * weights.grad.numpy(), rtol=1e-4)

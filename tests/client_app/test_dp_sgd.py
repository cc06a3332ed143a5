"""DP-SGD: how far one sample moves a sum, noise, chance, and what cannot be covered."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from client_app.dp_sgd import ClippedSum, drawn, steps_of, train_private
from client_app.training import Objective, train
from common.errors import SettingsError
from common.moe import ModelSpec, MoEModel
from common.seeding import stream
from common.settings.privacy_settings import PrivacySettings
from common.settings.training_settings import TrainingSettings

SPEC = ModelSpec(
    backbone="mlp",
    input_shape=(1, 8, 8),
    num_classes=3,
    num_experts=5,
    expert_hidden=16,
    top_k=1,
)
PLAIN = Objective()
ONE_STEP = TrainingSettings(
    local_epochs=1, batch_size=1000, lr=0.1, momentum=0, weight_decay=0
)


def rules(clip: float = 1.0, multiplier: float = 1.0) -> PrivacySettings:
    known = PrivacySettings()
    return known.model_copy(
        update={"privacy_clip": clip, "noise_multiplier": multiplier}
    )


def noise_of(seed: int) -> Any:
    """Bytes that can be drawn again, which a device's never can."""
    return np.random.default_rng(seed).bytes


def data(n: int = 12, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    x = rng.normal(size=(n, 1, 8, 8)) + y[:, None, None, None]
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y)


def sum_of(
    model: MoEModel, x: torch.Tensor, y: torch.Tensor, clip: float
) -> list[np.ndarray]:
    """What a step sums up, without noise."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    sums = ClippedSum(parameters, clip)
    for row in range(len(y)):
        model.zero_grad()
        routed = model(x[row : row + 1])
        PLAIN.loss(routed, y[row : row + 1], model, [], 0.0).backward()
        sums.add_gradients()
    return sums.sums()


def far(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    return float(
        np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(one, other, strict=True)))
    )


SHAPES = [
    {"backbone": "mlp"},
    {"backbone": "mlp", "top_k": 2},
    {"backbone": "cnn", "expert": "conv"},
    {"backbone": "cnn", "expert": "conv", "top_k": 0},
    {"backbone": "mlp", "mixes": "probabilities", "top_k": 2},
    {"backbone": "mlp", "mixes": "sum", "top_k": 2},
]


@given(
    shape=st.sampled_from(SHAPES),
    seed=st.integers(0, 1000),
    clip=st.sampled_from([1e-3, 1.0, 50.0]),
    scale=st.sampled_from([0.0, 1.0, 100.0, 1e8, np.inf]),
    which=st.integers(0, 5),
)
@settings(max_examples=25, deadline=None)
def test_one_sample_moves_the_sum_by_at_most_the_clip(
    shape: dict[str, Any], seed: int, clip: float, scale: float, which: int
) -> None:
    model = replace(SPEC, **shape).build([0, 1, 3], seed=seed).train()
    x, y = data(6, seed)
    x[which] *= scale
    whole = sum_of(model, x, y, clip)
    rest = [n for n in range(6) if n != which]
    without = sum_of(model, x[rest], y[rest], clip)
    assert far(whole, without) <= clip
    other = x.clone()
    other[which] = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(seed))
    assert far(whole, sum_of(model, other, y, clip)) <= 2 * clip


def test_what_one_sample_says_is_the_gate_s_as_well() -> None:
    # All that is trained is one vector: a sample of a huge gradient reaches C, no part
    # of it alone.
    model = SPEC.build([1, 3], seed=0).train()
    x, y = data(1)
    found = sum_of(model, x, y, 0.1)
    names = [name for name, _ in model.named_parameters()]
    norms = {n: float(np.linalg.norm(v)) for n, v in zip(names, found, strict=True)}
    assert np.sqrt(sum(v**2 for v in norms.values())) == pytest.approx(0.1, rel=1e-4)
    assert 0 < norms["layers.0.gate.weight"] < 0.1


def test_a_gate_without_noise_would_let_one_sample_move_the_others() -> None:
    # The same three expert sums, after the gate alone has learnt from 12 samples or
    # from 13: the other 12 are sent elsewhere, and their sum moves by more than C.
    x, y = data(12)
    odd = torch.full((1, 1, 8, 8), 3.0)
    sums = []
    for more in (False, True):
        model = SPEC.build([1, 3], seed=0).train()
        gate = [*model.moe.gate.parameters()]
        seen = torch.cat([x, odd]) if more else x
        labels = torch.cat([y, torch.tensor([0])]) if more else y
        for _ in range(200):
            model.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(seen).logits, labels)
            loss.backward()
            with torch.no_grad():
                for p in gate:
                    assert p.grad is not None
                    p.sub_(p.grad)
        sums.append(sum_of(model, x, y, clip=0.1))
    assert far(*sums) > 2 * 0.1


def test_without_noise_and_clip_it_is_a_step_of_plain_training() -> None:
    x, y = data(60)
    one, other = (SPEC.build([1, 3], seed=0) for _ in range(2))
    train(one, x, y, settings=ONE_STEP, objective=PLAIN, rng=stream(0))
    train_private(
        other,
        x,
        y,
        settings=ONE_STEP,
        objective=PLAIN,
        rules=rules(clip=1000.0, multiplier=1e-12),
    )
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        np.testing.assert_allclose(a.detach(), b.detach(), atol=1e-6)


def test_the_pull_to_what_was_received_is_no_sample_s() -> None:
    x, y = data(60)
    objective = Objective(proximal=0.5)
    one, other = (SPEC.build([1, 3], seed=0) for _ in range(2))
    steps = ONE_STEP.model_copy(update={"local_epochs": 3})
    train(one, x, y, settings=steps, objective=objective, rng=stream(0))
    train_private(
        other,
        x,
        y,
        settings=steps,
        objective=objective,
        rules=rules(clip=1000.0, multiplier=1e-12),
    )
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        np.testing.assert_allclose(a.detach(), b.detach(), atol=1e-5)


def test_every_part_gets_the_noise_that_was_promised() -> None:
    # One step at rate 1 with lr 1 and a clip that leaves nothing of the gradients: what
    # is left is the noise, z C over the samples expected, in experts without samples
    # and in the gate's columns of experts that are elsewhere too.
    spec = replace(SPEC, expert_hidden=64)
    x, y = data(10)
    settings = ONE_STEP.model_copy(update={"lr": 1.0, "batch_size": 10})
    model, start = (spec.build([0, 1, 3], seed=0) for _ in range(2))
    model.moe.gate.bias.data[0] = start.moe.gate.bias.data[0] = 1e4
    train_private(
        model,
        x,
        y,
        settings=settings,
        objective=PLAIN,
        rules=rules(clip=1e-6, multiplier=5e5),
        random_bytes=noise_of(2),
    )
    pairs = zip(model.named_parameters(), start.parameters(), strict=True)
    moved = {n: (p - q).detach().numpy().ravel() for (n, p), q in pairs}
    assert "layers.0.experts.3.hidden.weight" in moved  # nobody went there
    for name, noise in moved.items():
        if noise.size >= 64 and "bias" not in name:
            assert stats.kstest(noise / 0.05, "norm").pvalue > 1e-3, name
    every = np.concatenate([v for k, v in moved.items() if "gate.bias" not in k])
    assert every.std() == pytest.approx(0.05, rel=0.03)


def test_who_takes_part_is_drawn_one_by_one() -> None:
    rate, bytes_ = 0.2, noise_of(3)
    rows = np.zeros((2000, 50), dtype=bool)
    for step in rows:
        step[drawn(50, rate, bytes_)] = True
    counts = rows.sum(1)
    # Binomial, not a fixed number: 50 * .2 with variance 50 * .2 * .8.
    assert counts.mean() == pytest.approx(10, abs=0.25)
    assert counts.var() == pytest.approx(8, rel=0.12)
    between = np.corrcoef(rows.T.astype(float)) - np.eye(50)
    assert abs(between).max() < 0.1
    assert drawn(50, 1.0, bytes_).tolist() == [*range(50)]


def test_steps_are_those_of_plain_training() -> None:
    steps = TrainingSettings(local_epochs=3, batch_size=16)
    assert [steps_of(n, steps) for n in (1, 16, 17, 160)] == [3, 3, 6, 30]


def test_two_trainings_differ_and_a_sample_of_nan_does_not_show() -> None:
    x, y = data(12)
    x[4] = torch.nan
    steps = TrainingSettings(local_epochs=2, batch_size=4)
    models = [SPEC.build([1, 3], seed=0) for _ in range(2)]
    for model in models:
        train_private(
            model, x, y, settings=steps, objective=PLAIN, rules=rules(multiplier=0.1)
        )
        assert all(bool(p.isfinite().all()) for p in model.parameters())
    first, second = (model.vectors(["extractor"])["extractor"] for model in models)
    assert not np.array_equal(first, second)


def test_it_is_counted_only_where_that_is_asked() -> None:
    x, y = data(30)
    steps = TrainingSettings(local_epochs=2, batch_size=30)
    model = SPEC.build([1, 3], seed=0)
    common: dict[str, Any] = {
        "settings": steps,
        "objective": Objective(gate_exploration=0.1),
        "rules": rules(),
    }
    silent = train_private(model, x, y, **common)
    assert silent.samples.tolist() == [0, 0] and silent.train_loss == 0
    told = train_private(model, x, y, counted=True, **common)
    assert told.samples.sum() == 30 and told.train_loss > 0


@pytest.mark.parametrize(
    ("shape", "objective", "changes", "named"),
    [
        ({}, Objective(gate_balance=0.01), {}, "gate-balance"),
        ({}, Objective(shift=torch.zeros(3)), {}, "loss-calibration"),
        ({}, Objective(present=torch.ones(3)), {}, "classes that are here"),
        ({"backbone": "cnn", "norm": "batch"}, PLAIN, {}, 'norm = "batch"'),
        ({}, PLAIN, {"precision": "bfloat16"}, "precision"),
    ],
)
def test_what_joins_samples_is_refused(
    shape: dict[str, Any], objective: Objective, changes: dict[str, Any], named: str
) -> None:
    model = replace(SPEC, **shape).build([1, 3], seed=0)
    x, y = data(6)
    with pytest.raises(SettingsError, match=named) as refused:
        train_private(
            model,
            x,
            y,
            settings=ONE_STEP.model_copy(update=changes),
            objective=objective,
            rules=rules(),
        )
    assert "\n" not in str(refused.value)


class Remembers(torch.nn.Module):
    """A backbone that keeps the mean of what it has seen."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner, self.out_features = inner, inner.out_features
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.mean: torch.Tensor
        self.mean.lerp_(x.mean(), 0.1)
        seen: torch.Tensor = self.inner(x)
        return seen


def test_a_model_that_keeps_something_of_its_inputs_is_refused() -> None:
    model = SPEC.build([1, 3], seed=0)
    model.extractor = Remembers(model.extractor)
    with pytest.raises(SettingsError, match="beside its weights"):
        train_private(
            model, *data(6), settings=ONE_STEP, objective=PLAIN, rules=rules()
        )


def test_opacus_sums_the_same_where_it_can() -> None:
    # Where all experts see all samples, its hooks find the same rows in every layer.
    import opacus

    spec = replace(SPEC, backbone="cnn", expert="conv", top_k=0)
    x, y = data(9)
    model = spec.build([0, 2], seed=4).train()
    ours = sum_of(model, x, y, clip=0.7)
    theirs = spec.build([0, 2], seed=4).train()
    wrapped = opacus.GradSampleModule(theirs)
    optimizer = opacus.optimizers.DPOptimizer(
        torch.optim.SGD(theirs.parameters(), lr=1.0),
        noise_multiplier=0.0,
        max_grad_norm=0.7,
        expected_batch_size=1,
        loss_reduction="sum",
    )
    logits = wrapped(x).logits
    torch.nn.functional.cross_entropy(logits, y, reduction="sum").backward()
    optimizer.pre_step()
    for (name, p), mine in zip(theirs.named_parameters(), ours, strict=True):
        assert p.grad is not None
        np.testing.assert_allclose(p.grad.numpy(), mine, atol=2e-5, err_msg=name)

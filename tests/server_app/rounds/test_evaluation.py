"""What the server measures of single experts, by hand; and that it moves nothing."""

from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord
from torch import nn

from common.moe import ModelSpec
from common.settings import Settings
from common.shape import dataset_of, model_spec
from server_app.rounds.evaluation import ServerEvaluation, bare_experts, expert_recall
from server_app.strategies import STRATEGIES, find_strategy
from server_app.strategies.baselines import Random

SPEC = ModelSpec(
    backbone="mlp",
    input_shape=(1, 2, 2),
    num_classes=3,
    num_experts=2,
    expert_hidden=2,
    top_k=1,
)


def test_recall_is_per_expert_and_class() -> None:
    strategy = Random(Settings.from_run_config({"num-experts": 2}), SPEC)
    for expert in range(2):
        # Always the same answer: class 0 of expert 0, class 2 of expert 1.
        vector = np.zeros(SPEC.size("expert.0"), np.float32)
        vector[-3:] = np.eye(3)[2 * expert]
        strategy.model[f"expert.{expert}"] = vector
    model = bare_experts(strategy)
    assert model is not None
    found = expert_recall(model, torch.zeros(4, 1, 2, 2), torch.tensor([0, 0, 2, 2]))
    np.testing.assert_array_equal(found, [[1, np.nan, 0], [0, np.nan, 1]])


def test_a_strategy_that_keeps_no_such_experts_is_not_measured() -> None:
    strategy = Random(Settings.from_run_config({"num-experts": 2}), SPEC)
    del strategy.model["expert.1"]
    assert bare_experts(strategy) is None


def devices(thing: Any, seen: set[int]) -> set[str]:
    """Return the devices of all tensors that can be reached from an object."""
    if id(thing) in seen:
        return set()
    seen.add(id(thing))
    if isinstance(thing, torch.Tensor):
        return {thing.device.type}
    if isinstance(thing, nn.Module):
        return {t.device.type for t in [*thing.parameters(), *thing.buffers()]} | (
            devices(vars(thing), seen)
        )
    parts: list[Any] = []
    if isinstance(thing, dict):
        parts = [*thing.values()]
    elif isinstance(thing, list | tuple | set):
        parts = [*thing]
    elif type(thing).__module__.startswith(("server_app", "common")):
        parts = [*getattr(thing, "__dict__", {}).values()]
    return set[str]().union(*(devices(part, seen) for part in parts))


@pytest.mark.parametrize("name", [*sorted(STRATEGIES.built_in), "flwr:FedAvg"])
def test_a_predictor_that_is_moved_takes_nothing_with_it(name: str) -> None:
    options = {"flex-moe-plus": "gate-epochs=1"}.get(name, "")
    config = {"strategy": name, "reserved-samples": 40, "strategy-options": options}
    if name == "fedbn":
        config |= {"backbone": "cnn", "norm": "batch"}
    settings = Settings.from_run_config(config)
    spec = model_spec(settings, dataset_of(settings))
    strategy = find_strategy(name)(settings, spec)
    if name != "cent-moe":  # which learns the round from its plan
        strategy.finish()
    if (found := strategy.global_model()) is None:
        assert strategy.no_predictor
        return
    predictor = found.to("meta")
    tensors = [*predictor.parameters(), *predictor.buffers()]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert devices(strategy, set()) <= {"cpu"}
    # Nor was anything of it handed out twice.
    again = strategy.global_model()
    assert again is not None
    assert torch.isfinite(again(torch.zeros(2, 1, 8, 8))).all()


def test_what_a_users_strategy_returns_stays_where_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = Settings.from_run_config({})
    dataset = dataset_of(settings)
    strategy = Random(settings, model_spec(settings, dataset))
    own = strategy.global_model()
    assert own is not None
    monkeypatch.setattr(strategy, "global_model", lambda: own)
    x = dataset.normalise(dataset.x_test)
    evaluation = ServerEvaluation(strategy, x, dataset.y_test)
    evaluation._device = torch.device("meta")
    with pytest.raises((RuntimeError, NotImplementedError)):  # meta has no values
        evaluation(1, ArrayRecord())
    assert {tensor.device.type for tensor in own.parameters()} == {"cpu"}

"""What the server measures of single experts, by hand."""

import numpy as np
import torch

from common.config import Settings
from common.moe import ModelSpec
from server_app.evaluation import bare_experts, expert_recall
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

"""HeteroFL: nested windows, the masked loss and the merge by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from client_app.training import Objective
from common.errors import SettingsError
from common.moe import Routed, unflatten
from common.settings import Settings
from server_app.strategies.sub_models.heterofl import HeteroFL
from tests.server_app.strategies.handmade import reply_of, spec_of, view_of

SPEC = spec_of(4, input_shape=(1, 1, 1), expert_hidden=3)


def strategy_of(options: str = "", **changes: Any) -> HeteroFL:
    config = {"num-experts": 4, "strategy-options": options, **changes}
    return HeteroFL(Settings.from_run_config(config), SPEC)


@pytest.mark.parametrize("server_round", [1, 2, 60])
def test_the_window_begins_at_the_first_channel_in_every_round(
    server_round: int,
) -> None:
    # Hidden layer of 3 units, rate 0.5: ceil(1.5) = 2 units, 32 of 64 features.
    strategy = strategy_of()
    plan = strategy.plan(view_of([2], 1, server_round=server_round))
    narrow = plan.content[0]["expert.0"]
    whole = unflatten(strategy.model["expert.0"], SPEC.layout("expert.0"))
    np.testing.assert_array_equal(
        narrow[:64].reshape(2, 32), whole["hidden.weight"][:2, :32]
    )
    np.testing.assert_array_equal(narrow[66:70], whole["out.weight"][:, :2].ravel())
    assert plan.order == {"masked_loss": True}
    assert plan.client_order == {0: {"width": 0.5}}


def test_each_coordinate_is_the_mean_over_its_holders() -> None:
    strategy = strategy_of()
    before = strategy.model["expert.0"]
    # Client 0 holds units {0, 1} of 3, client 1 all; 10 and 30 samples.
    whole = SPEC.dense()
    small = strategy.positions("expert.0", 0.5, 7).size
    for client, samples, rate, change, size in (
        (0, 10, 0.5, 4.0, small),
        (1, 30, 1.0, 8.0, whole.size("expert.0")),
    ):
        fields: dict[str, Any] = {"gate": "none", "width": rate, "server_round": 7}
        deltas = {"expert.0": np.full(size, change, np.float32)}
        strategy.merge(
            reply_of(client, [0], [samples], deltas, num_experts=1, **fields)
        )
    strategy.finish()
    moved = unflatten(strategy.model["expert.0"] - before, whole.layout("expert.0"))
    # Both held units 0 and 1: (10 * 4 + 30 * 8) / 40 = 7; only client 1 held unit 2.
    np.testing.assert_allclose(moved["hidden.bias"], [7, 7, 8], rtol=1e-5)
    np.testing.assert_allclose(moved["out.weight"], [[7, 7, 8]] * 2, rtol=1e-5)
    np.testing.assert_allclose(moved["out.bias"], [7, 7], rtol=1e-5)


def test_a_class_the_client_lacks_gets_no_gradient() -> None:
    logits = torch.tensor([[2.0, -1.0, 5.0], [0.5, 1.5, 3.0]], requires_grad=True)
    y = torch.tensor([0, 1])
    model = SPEC.build([0])
    objective = Objective(present=torch.tensor([1.0, 1.0, 0.0]))
    loss = objective.loss(Routed(logits=logits, layers=()), y, model, [], 0.0)
    # The third logit counts as 0 in the softmax, as in the paper.
    expected = F.cross_entropy(torch.tensor([[2.0, -1.0, 0.0], [0.5, 1.5, 0.0]]), y)
    torch.testing.assert_close(loss.detach(), expected)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[:, 2].tolist() == [0, 0]
    assert (logits.grad[:, :2] != 0).all()


def test_running_statistics_are_refused() -> None:
    with pytest.raises(SettingsError, match="norm = 'batch' is not allowed"):
        strategy_of(backbone="cnn", norm="batch")


def test_three_rounds_with_classes_missing(exercise: Any) -> None:
    _, records = exercise(
        "heterofl",
        **{
            "expert-capacity": "1:0.5,3:0.5",
            "train-samples": 120,
            "partition": "classes:2",
        },
    )
    sizes = {client.bytes_down for client in records[0].clients}
    assert max(sizes) > 2 * min(sizes)
    assert not any(record.rejected for record in records)


def test_without_masks_and_with_whole_models_it_is_fedavg(exercise: Any) -> None:
    same = {"train-samples": 120, "partition": "classes:2"}
    whole, _ = exercise(
        "heterofl", **same, **{"strategy-options": "rate=1.0, masked=false"}
    )
    dense, _ = exercise("fedavg", **same)
    for part, vector in dense.model.items():
        np.testing.assert_array_equal(whole.model[part], vector)

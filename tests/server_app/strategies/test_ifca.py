"""IFCA: warm-up, split and means over clusters by hand; one cluster is FedAvg."""

from typing import Any

import numpy as np
import pytest

from common.moe import ModelSpec
from common.settings import Settings
from server_app.run_folder.checkpoint import decode, encode
from server_app.strategies.base import Reply
from server_app.strategies.ifca import IFCA
from tests.server_app.strategies import handmade
from tests.server_app.strategies.handmade import view_of

SPEC = ModelSpec(
    backbone="mlp",
    input_shape=(1, 1, 1),
    num_classes=2,
    num_experts=4,
    expert_hidden=3,
    top_k=1,
)


def strategy_of(options: str) -> IFCA:
    config = {"num-experts": 4, "strategy-options": options}
    return IFCA(Settings.from_run_config(config), SPEC)


def split(options: str = "clusters=3, warmup=0") -> IFCA:
    strategy = strategy_of(options)
    strategy.plan(view_of([1] * 4, 1, server_round=1))
    return strategy


def reply_of(
    strategy: IFCA, client: int, samples: int, candidate: int, change: float
) -> Reply:
    deltas = {
        part: np.full(strategy.spec.size(part), change, np.float32)
        for part in ("extractor", "expert.0")
    }
    fields: dict[str, Any] = {"gate": "none", "candidate": candidate, "candidates": 3}
    return handmade.reply_of(client, [0], [samples], deltas, num_experts=1, **fields)


def test_a_device_needs_memory_for_all_models_and_time_to_try_them() -> None:
    method = strategy_of("clusters=3").local_method()
    assert method.candidates == 3
    assert method.passes(2) == 2 + 3 / 3
    assert strategy_of("clusters=1").local_method().passes(2) == 2


def test_in_the_warm_up_there_is_one_model() -> None:
    strategy = strategy_of("clusters=3, warmup=2")
    for server_round, candidates, parts in ((1, 1, 2), (2, 1, 2), (3, 3, 6)):
        plan = strategy.plan(view_of([1, 1], 1, server_round=server_round))
        assert plan.order == {"candidates": candidates}
        assert len(strategy.parts_for([0])) == parts


def test_models_split_near_the_one_they_come_from() -> None:
    strategy = split()
    first = strategy.model["expert.0"]
    for number in (1, 2):
        other = strategy.model[f"model{number}.expert.0"]
        distance = np.linalg.norm(other - first) / np.linalg.norm(first)
        assert 0.01 < distance < 0.5
    assert not np.array_equal(
        strategy.model["model1.expert.0"], strategy.model["model2.expert.0"]
    )


def test_each_model_is_the_mean_of_who_chose_it() -> None:
    strategy = split()
    before = dict(strategy.model)
    replies = [
        reply_of(strategy, 0, 10, candidate=0, change=4.0),
        reply_of(strategy, 1, 30, candidate=0, change=8.0),
        reply_of(strategy, 2, 5, candidate=2, change=1.0),
    ]
    for reply in replies:
        strategy.merge(reply)
    strategy.finish()
    strategy.learn(replies)
    # (10 * 4 + 30 * 8) / 40 = 7; nobody chose model 1.
    for prefix, moved in (("", 7.0), ("model1.", 0.0), ("model2.", 1.0)):
        for part in ("extractor", "expert.0"):
            change = strategy.model[prefix + part] - before[prefix + part]
            np.testing.assert_allclose(change, moved, atol=1e-5)
    assert strategy.cluster.tolist() == [0, 0, 2, -1]
    assert [strategy.serves(client) for client in range(4)] == [0, 0, 2, 0]


def test_with_weight_sharing_the_extractor_is_everybodys() -> None:
    strategy = split("clusters=2, warmup=0, shared=true")
    assert sorted(strategy.model) == ["expert.0", "extractor", "model1.expert.0"]
    before = dict(strategy.model)
    for client, candidate, change in ((0, 0, 2.0), (1, 1, 4.0)):
        strategy.merge(reply_of(strategy, client, 10, candidate, change))
    strategy.finish()
    moved = {p: float((v - before[p]).mean()) for p, v in strategy.model.items()}
    assert moved == pytest.approx(
        {"extractor": 3.0, "expert.0": 2.0, "model1.expert.0": 4.0}, abs=1e-5
    )


def test_what_is_served_is_the_clusters_own_model() -> None:
    strategy = split()
    strategy.cluster = np.array([2, 2, 1])
    for which in range(3):
        served = strategy.served_model(which).model
        prefix = f"model{which}." if which else ""
        for part, vector in served.vectors(["extractor", "expert.0"]).items():
            np.testing.assert_array_equal(vector, strategy.model[prefix + part])
    most = strategy.global_model().model.vectors(["extractor"])["extractor"]
    np.testing.assert_array_equal(most, strategy.model["model2.extractor"])


def test_who_chose_what_outlives_a_cut() -> None:
    # A client that is not asked in the first round after it has its model all the same.
    strategy, resumed = split(), strategy_of("clusters=3, warmup=0")
    strategy.cluster = np.array([2, 0, 1, -1])
    resumed.load_state(decode(encode(strategy.state())))
    assert [resumed.serves(client) for client in range(4)] == [2, 0, 1, 0]


def test_one_cluster_is_fedavg(exercise: Any) -> None:
    one, _ = exercise("ifca", **{"strategy-options": "clusters=1, warmup=0"})
    dense, _ = exercise("fedavg")
    assert one.model.keys() == dense.model.keys()
    for part, vector in dense.model.items():
        np.testing.assert_array_equal(one.model[part], vector)


@pytest.mark.parametrize("shared", ["true", "false"])
def test_three_rounds_with_all_models_sent(shared: str, exercise: Any) -> None:
    options = f"clusters=3, warmup=1, shared={shared}"
    strategy, records = exercise("ifca", **{"strategy-options": options})
    first, second, _ = records
    assert second.bytes_down > (1.5 if shared == "true" else 2.5) * first.bytes_down
    assert second.bytes_up < 1.1 * first.bytes_up
    assert set(strategy.cluster.tolist()) <= {0, 1, 2}


def test_clients_find_those_who_mean_the_same(exercise: Any) -> None:
    """Two groups with other labels for the same things end in two clusters."""
    strategy, _ = exercise(
        "ifca",
        **{
            "partition": "concept:2+iid",
            "strategy-options": "clusters=2, warmup=1",
            "train-samples": 0,
            "local-epochs": 4,
        },
    )
    assert {*strategy.cluster.tolist()} == {0, 1}

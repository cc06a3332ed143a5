"""Start here: two rounds of six strategies with two or three clients, on paper.

Every number a strategy computes is worked out in a comment: who holds what (``plan``),
what the model becomes (``merge``, ``finish``), what is remembered (``learn``). All
vectors of a model are constant, so that one number stands for a part.
"""

from typing import Any, TypeVar, cast

import numpy as np

from common.moe import ModelSpec
from common.settings import Settings
from server_app.strategies.base import ExpertStrategy, Reply
from server_app.strategies.baselines import Greedy, Random, RoundRobin
from server_app.strategies.dense import FedAvg
from server_app.strategies.flex_moe import FlexMoE
from server_app.strategies.system_level import SystemLevel
from tests.server_app.strategies.handmade import profile, reply_of, view_of

S = TypeVar("S", bound=ExpertStrategy)


def begun(kind: type[S], experts: int, **config: Any) -> S:
    """A strategy whose global model is all zeros."""
    config = {name.replace("_", "-"): value for name, value in config.items()}
    spec = ModelSpec(
        backbone="mlp",
        input_shape=(1, 2, 2),
        num_classes=2,
        num_experts=experts,
        expert_hidden=2,
        top_k=1,
    )
    strategy = kind(Settings.from_run_config({"num-experts": experts, **config}), spec)
    strategy.model = {k: np.zeros_like(v) for k, v in strategy.model.items()}
    return strategy


def answer(
    strategy: ExpertStrategy,
    client: int,
    experts: dict[int, tuple[int, float]],
    psi: float,
    **report: Any,
) -> Reply:
    """The reply of a client that held ``experts``: samples u and change of each."""
    changes = {"extractor": psi}
    changes |= {f"expert.{e}": change for e, (_, change) in experts.items()}
    return reply_of(
        client,
        list(experts),
        [u for u, _ in experts.values()],
        {k: np.full_like(strategy.model[k], v) for k, v in changes.items()},
        num_experts=strategy.spec.num_experts,
        **report,
    )


def finish(strategy: ExpertStrategy, replies: list[Reply]) -> None:
    """What the round loop does with the replies of a round."""
    for reply in replies:
        strategy.merge(reply)
    strategy.finish()
    strategy.learn(replies)


def model(strategy: ExpertStrategy) -> list[float]:
    """psi, theta_0, theta_1 ..., of a model of constant vectors."""
    assert all(np.ptp(vector) == 0 for vector in strategy.model.values())
    return [float(vector[0]) for vector in strategy.model.values()]


def test_flex_moe() -> None:
    # Three clients that can hold 2, 1 and 1 of two experts; beta = 0.3, delta = 0.
    strategy = begun(FlexMoE, 2, fitness="accuracy", fitness_rate=0.3, load_tolerance=0)
    strategy.fitness = np.array([[0.9, 0.1], [0.5, 0.6], [0.2, 0.9]])

    # Round 1. L* = (2 + 1 + 1) / 2 = 2 and D = 0: two holders of each expert. Client 0
    # takes both. Clients 1 and 2 would both rather have expert 1, but one may have it:
    # 0.5 + 0.9 is more than 0.6 + 0.2.
    first = strategy.plan(view_of([2, 1, 1], 2))
    assert first.assignment.tolist() == [[True, True], [True, False], [False, True]]

    # Client 2 never answers. The samples of client 0 are n = 40, of which its gate sent
    # 10 to expert 0 and 30 to expert 1; those of client 1 are n = 10, all to expert 0.
    finish(
        strategy,
        [
            answer(strategy, 0, {0: (10, 5), 1: (30, 2)}, 1, expert_accuracy=[0.5, 1]),
            answer(strategy, 1, {0: (10, 1)}, 6, expert_accuracy=[0.4]),
        ],
    )
    # psi = (40 * 1 + 10 * 6) / 50 = 2;  theta_0 = (10 * 5 + 10 * 1) / 20 = 3;
    # theta_1 = 2, of client 0 alone: who does not hold it does not count.
    assert model(strategy) == [2, 3, 2]
    # 0.7 * 0.9 + 0.3 * 0.5,  0.7 * 0.1 + 0.3 * 1,  0.7 * 0.5 + 0.3 * 0.4.
    expected = [[0.78, 0.37], [0.47, 0.6], [0.2, 0.9]]
    np.testing.assert_allclose(strategy.fitness, expected)
    # Delivered loads are 2 and 1, their mean 1.5: expert 1 is owed half a holder.
    assert strategy.deficit.tolist() == [-0.5, 0.5]

    # Round 2. Targets L* + D = 1.5 and 2.5: one or two holders of expert 0, two or
    # three of expert 1. Now clients 1 and 2 may both have expert 1, and 0.6 > 0.47.
    second = strategy.plan(view_of([2, 1, 1], 2, server_round=2))
    assert second.assignment.tolist() == [[True, True], [False, True], [False, True]]
    finish(
        strategy,
        [
            answer(strategy, 0, {0: (10, 1), 1: (30, 2)}, 1, expert_accuracy=[1, 1]),
            answer(strategy, 1, {1: (10, 4)}, 1, expert_accuracy=[0]),
            answer(strategy, 2, {1: (30, -1)}, 1, expert_accuracy=[1]),
        ],
    )
    # psi = 2 + 1;  theta_0 = 3 + 1;  theta_1 = 2 + (30 * 2 + 10 * 4 - 30 * 1) / 70 = 3.
    assert model(strategy) == [3, 4, 3]
    # 0.7 * 0.78 + 0.3, 0.7 * 0.37 + 0.3;  0.7 * 0.6 + 0;  0.7 * 0.9 + 0.3.
    expected = [[0.846, 0.559], [0.47, 0.42], [0.2, 0.93]]
    np.testing.assert_allclose(strategy.fitness, expected)
    # Loads 1 and 3, mean 2: -0.5 + 1 and 0.5 - 1.
    assert strategy.deficit.tolist() == [0.5, -0.5]


def test_greedy() -> None:
    strategy = begun(Greedy, 2, fitness="accuracy", fitness_rate=0.5)
    strategy.fitness = np.array([[0.9, 0.1], [0.8, 0.45]])

    # Everybody takes its best, whatever the load.
    first = strategy.plan(view_of([1, 1], 2))
    assert first.assignment.tolist() == [[True, False], [True, False]]
    finish(
        strategy,
        [
            answer(strategy, 0, {0: (10, 1)}, 1, expert_accuracy=[0.1]),
            answer(strategy, 1, {0: (30, 3)}, 5, expert_accuracy=[0.0]),
        ],
    )
    # (10 * 1 + 30 * 5) / 40 = 4;  (10 * 1 + 30 * 3) / 40 = 2.5;  nobody held expert 1.
    assert model(strategy) == [4, 2.5, 0]
    # (0.9 + 0.1) / 2 and (0.8 + 0) / 2.
    np.testing.assert_allclose(strategy.fitness, [[0.5, 0.1], [0.4, 0.45]])

    # 0.4 < 0.45: client 1 changes.
    second = strategy.plan(view_of([1, 1], 2, server_round=2))
    assert second.assignment.tolist() == [[True, False], [False, True]]
    finish(
        strategy,
        [
            answer(strategy, 0, {0: (10, 1)}, 0, expert_accuracy=[0.7]),
            answer(strategy, 1, {1: (30, 3)}, 0, expert_accuracy=[0.95]),
        ],
    )
    assert model(strategy) == [4, 3.5, 3]
    np.testing.assert_allclose(strategy.fitness, [[0.6, 0.1], [0.4, 0.7]])


class Dice:
    """A generator that draws what it is told."""

    def __init__(self, *rows: list[float]) -> None:
        self.rows = np.array(rows)

    def random(self, shape: tuple[int, ...]) -> Any:
        assert shape == self.rows.shape
        return self.rows


def test_random() -> None:
    strategy = begun(Random, 3)

    # Client 0 holds the expert it drew the highest number for, client 1 the two.
    dice = cast(np.random.Generator, Dice([0.2, 0.7, 0.5], [0.9, 0.1, 0.4]))
    first = strategy.plan(view_of([1, 2], 3, rng=dice))
    assert first.assignment.tolist() == [[False, True, False], [True, False, True]]
    finish(
        strategy,
        [
            answer(strategy, 0, {1: (20, 4)}, 1),
            answer(strategy, 1, {0: (15, 2), 2: (5, 8)}, 3),
        ],
    )
    # Both have 20 samples: (1 + 3) / 2. Every expert was held by one client.
    assert model(strategy) == [2, 2, 4, 8]

    # What was learnt plays no part, and nothing is remembered.
    dice = cast(np.random.Generator, Dice([0.2, 0.1, 0.5], [0.3, 0.1, 0.4]))
    second = strategy.plan(view_of([1, 2], 3, rng=dice, server_round=2))
    assert second.assignment.tolist() == [[False, False, True], [True, False, True]]
    finish(
        strategy,
        [
            answer(strategy, 0, {2: (20, 1)}, 1),
            answer(strategy, 1, {0: (15, 1), 2: (5, 6)}, 1),
        ],
    )
    # theta_2 = 8 + (20 * 1 + 5 * 6) / 25 = 10.
    assert model(strategy) == [3, 3, 4, 10]
    assert set(strategy.state()) == {"usage"}


def test_round_robin() -> None:
    strategy = begun(RoundRobin, 3)

    # The ring starts at the number of the round: client 0 takes expert 1, client 1 goes
    # on with 2 and 0.
    first = strategy.plan(view_of([1, 2], 3))
    assert first.assignment.tolist() == [[False, True, False], [True, False, True]]
    finish(
        strategy,
        [
            answer(strategy, 0, {1: (20, 4)}, 1),
            answer(strategy, 1, {0: (15, 2), 2: (5, 8)}, 3),
        ],
    )
    assert model(strategy) == [2, 2, 4, 8]

    # One further: 2, then 0 and 1.
    second = strategy.plan(view_of([1, 2], 3, server_round=2))
    assert second.assignment.tolist() == [[False, False, True], [True, True, False]]
    finish(
        strategy,
        [
            answer(strategy, 0, {2: (20, -1)}, 0),
            answer(strategy, 1, {0: (15, 1), 1: (5, 1)}, 1),
        ],
    )
    # psi = 2 + (20 * 0 + 20 * 1) / 40.
    assert model(strategy) == [2.5, 3, 5, 7]
    assert set(strategy.state()) == {"usage"}


def test_system_level() -> None:
    # w = w_f = w_u = 1/2, beta = 0.3, rho = 0.1, lambda = 1/2.
    strategy = begun(
        SystemLevel,
        2,
        fitness_rate=0.3,
        strategy_options="stale-decay=0.1, usage-decay=0.5",
    )
    strategy.fitness = np.array([[0.8, 0.4], [0.4, 0.2]])
    profiles = (profile(), profile())

    # Nothing was used yet: S = F / 0.8 / 2 prefers expert 0 at both.
    first = strategy.plan(view_of([1, 1], 2, profiles=profiles))
    assert first.assignment.tolist() == [[True, False], [True, False]]
    finish(
        strategy,
        [
            answer(strategy, 0, {0: (10, 1)}, 1, expert_loss=[np.log(2)]),
            answer(strategy, 1, {0: (30, 3)}, 5, expert_loss=[np.log(4)]),
        ],
    )
    # (10 * 1 + 30 * 5) / 40,  (10 * 1 + 30 * 3) / 40.
    assert model(strategy) == [4, 2.5, 0]
    # r = 1/2 exp(-l) + 1/2 of all samples: 1/4 + 1/2 = 0.75 and 1/8 + 1/2 = 0.625.
    # F: 0.7 * 0.8 + 0.3 * 0.75 and 0.7 * 0.4 + 0.3 * 0.625; stale pairs 0.9 * F.
    np.testing.assert_allclose(strategy.fitness, [[0.785, 0.36], [0.4675, 0.18]])
    # U = 0 / 2 + 10 + 30.
    assert strategy.attention.tolist() == [40, 0]

    # Round 2. S of client 0: 1/2 - 1/2 = 0 and 0.36 / 0.785 / 2 = 0.229; of client 1:
    # 0.4675 / 0.785 / 2 - 1/2 < 0 and 0.115. The neglected expert wins at both.
    second = strategy.plan(view_of([1, 1], 2, server_round=2, profiles=profiles))
    assert second.assignment.tolist() == [[False, True], [False, True]]
    finish(
        strategy,
        [
            answer(strategy, 0, {1: (10, 2)}, 0, expert_loss=[0.0]),
            answer(strategy, 1, {1: (10, 4)}, 0, expert_loss=[0.0]),
        ],
    )
    assert model(strategy) == [4, 2.5, 3]
    # r = 1: 0.7 * 0.36 + 0.3 and 0.7 * 0.18 + 0.3; 0.9 * 0.785 and 0.9 * 0.4675.
    expected = [[0.7065, 0.552], [0.42075, 0.426]]
    np.testing.assert_allclose(strategy.fitness, expected)
    # U = 40 / 2 and 0 / 2 + 10 + 10.
    assert strategy.attention.tolist() == [20, 20]


def test_fedavg() -> None:
    strategy = begun(FedAvg, 8)

    # One dense model, an extractor and one expert, for everybody.
    first = strategy.plan(view_of([1, 1], 1))
    assert first.assignment.tolist() == [[True], [True]]
    finish(
        strategy,
        [
            answer(strategy, 0, {0: (10, 1)}, 1),
            answer(strategy, 1, {0: (30, 3)}, 5),
        ],
    )
    # (10 * 1 + 30 * 5) / 40 = 4 and (10 * 1 + 30 * 3) / 40 = 2.5.
    assert model(strategy) == [4, 2.5]

    second = strategy.plan(view_of([1, 1], 1, server_round=2))
    assert second.assignment.tolist() == [[True], [True]]
    # Client 1 is silent: the mean is over those that answered.
    finish(strategy, [answer(strategy, 0, {0: (10, -0.5)}, 1)])
    assert model(strategy) == [5, 2]
    assert set(strategy.state()) == {"usage"}

"""Every strategy on text: two mixture layers inside an encoder, from texts in a file.

The texts say what they are in one word of their own among many of anybody's, wherever
it stands. Half of them are of either class: whoever guesses is right in half of them.
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from client_app.app import app as client_app
from common.errors import SettingsError
from common.inline_grid import InlineGrid
from server_app.fleet.agreement import Agreement
from server_app.rounds.evaluation import server_evaluation
from server_app.rounds.loop import RoundLoop
from server_app.run_config import check_run_config
from server_app.run_error import RunError
from server_app.strategies import STRATEGIES
from server_app.strategies.base import ExpertStrategy
from tests.server_app.strategies.conftest import step, strategy_of

CLIENTS, ROUNDS, EXPERTS = 4, 8, 3
SIGNS = (("splendid", "charming"), ("dreadful", "tedious"))
ANYBODYS = ["the", "a", "film", "book", "it", "was", "with", "and", "of", "for", "this"]
NEEDS: dict[str, dict[str, Any]] = {
    "cent-moe": {"reserved-samples": 120},
    "fed-moe": {"reserved-samples": 60, "strategy-options": "experts=2, iterations=2"},
}
# An encoder has no channels to cut windows out of, and no batch norm.
NOT_OF_TEXT = {"fedrolex", "heterofl", "fedbn"}
NAMES = [*sorted({*STRATEGIES.built_in} - NOT_OF_TEXT), "flwr:FedAvgM"]


def texts(count: int) -> Iterator[str]:
    rng = np.random.default_rng(0)
    for number in range(count):
        label = number % 2
        words = [*rng.choice(ANYBODYS, rng.integers(2, 6)), rng.choice(SIGNS[label])]
        line = {"text": " ".join(rng.permutation(words)), "label": label}
        yield json.dumps({**line, "group": f"shop {number // 2 % CLIENTS}"})


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("texts")
    (folder / "opinions.jsonl").write_text("\n".join(texts(480)) + "\n")
    return {
        "dataset": "opinions",
        "data-dir": str(folder),
        "partition": "natural",
        "text-length": 8,
        "vocabulary": 256,
        "backbone": "text-transformer",
        "encoder-layers": 2,
        "encoder-width": 16,
        "encoder-heads": 2,
        "num-experts": EXPERTS,
        "expert-hidden": 16,
        "num-rounds": ROUNDS,
        "lr": 0.1,
        "seed": 1,
    }


def run(config: dict[str, Any]) -> tuple[ExpertStrategy, list[Any], float]:
    strategy = strategy_of(config)
    grid = InlineGrid(client_app, CLIENTS, config)
    loop = RoundLoop(strategy)
    records = [step(loop, grid, number) for number in range(1, ROUNDS + 1)]
    assert [r.rejected for r in records] == [{}] * ROUNDS
    evaluation = server_evaluation(strategy, Agreement(strategy.settings))
    assert evaluation is not None
    measured = evaluation(ROUNDS, strategy.arrays())
    assert measured is not None
    accuracy = measured.get("server_global", 0.0)
    assert isinstance(accuracy, float)
    return strategy, records, accuracy


@pytest.mark.parametrize("name", NAMES)
def test_a_strategy_learns_what_no_guess_can(name: str, config: dict[str, Any]) -> None:
    config = {**config, **NEEDS.get(name, {}), "strategy": name}
    strategy, records, accuracy = run(config)
    spec = strategy.spec
    assert spec.num_layers == 2
    local = [record.mean("client_local") for record in records][-1]
    assert max(accuracy, local or 0) > 0.8, (accuracy, local)
    for record in records:
        assert len(record.load) == spec.num_units
        written = record.to_json()
        assert {"cv_layer_1", "cv_layer_2"} <= written.keys()
        for client in record.clients:
            held = np.array(client.experts)
            assert len(held) <= client.budget
            assert set(spec.layers[held].tolist()) == {0, 1}
            # Tokens, of which a text has 1 to 8.
            by_layer = np.bincount(spec.layers[held], weights=client.expert_samples)
            assert (by_layer >= client.num_examples).all()
            assert (by_layer <= 8 * 2 * client.num_examples).all()


def test_flex_moe_balances_every_layer(config: dict[str, Any]) -> None:
    _, records, _ = run({**config, "strategy": "flex-moe"})
    totals = np.sum([record.load for record in records], axis=0)
    # 4 clients with 2 of every layer, over 3 experts and 8 rounds: 64 / 3 each.
    assert totals.sum() == 128
    assert np.abs(totals - 64 / 3).max() < 2
    last = records[-1].to_json()
    for layer, key in enumerate(("cv_layer_1", "cv_layer_2")):
        inside = totals.reshape(2, 3)[layer]
        assert last[key] == pytest.approx(inside.std() / inside.mean())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"backbone": "mlp"}, "backbone = 'mlp' is not allowed with dataset"),
        ({"dataset": "digits", "partition": "iid"}, "which is no text: choose mlp"),
        ({"moe-layers": "2,1"}, "moe-layers = '2,1' is not allowed"),
        ({"moe-layers": "3"}, "from 1 to encoder-layers = 2"),
        ({"moe-layers": "first"}, 'expected "all" or depths'),
        ({"encoder-heads": 3}, "a multiple of encoder-heads = 3"),
        ({"routing": "word"}, "routing = 'word' is not allowed"),
        ({"strategy": "fedrolex"}, "cuts windows out of channels"),
        ({"strategy": "fedbn"}, "there is no batch norm in that model"),
        ({"backbone": "text-transfomer"}, "did you mean 'text-transformer'"),
    ],
)
def test_what_does_not_fit_together_ends_in_one_line(
    changes: dict[str, Any], reason: str, config: dict[str, Any]
) -> None:
    with pytest.raises(SettingsError) as error:
        check_run_config({**config, **changes})
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_a_plan_without_an_expert_of_a_layer_is_refused(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy = strategy_of({**config, "strategy": "random"})
    plan = strategy.plan

    def careless(view: Any) -> Any:
        made = plan(view)
        made.assignment[2, EXPERTS:] = False
        return made

    monkeypatch.setattr(strategy, "plan", careless)
    with pytest.raises(RunError, match="gives client 2 no expert of layer 2"):
        RoundLoop(strategy).open(1, InlineGrid(client_app, CLIENTS, config))


def test_the_same_seed_gives_the_same_bits(config: dict[str, Any]) -> None:
    models = []
    for _ in range(2):
        strategy = strategy_of(
            {**config, "strategy": "flex-moe", "routing": "sequence"}
        )
        grid = InlineGrid(client_app, CLIENTS, config)
        loop = RoundLoop(strategy)
        for number in (1, 2):
            step(loop, grid, number)
        models.append(strategy.model)
    for part, vector in models[0].items():
        np.testing.assert_array_equal(models[1][part], vector, err_msg=part)

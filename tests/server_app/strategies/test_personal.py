"""Strategies whose clients keep models, or parts of one, to themselves."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from flwr.app import Message

from client_app.app import app as client_app
from client_app.kept.snapshot import DeviceSource
from common import wire
from common.data import load_dataset
from common.errors import SettingsError, SourceError
from common.inline_grid import InlineGrid
from server_app.commands.simulate import simulate
from server_app.launcher.signals import Interrupted
from server_app.rounds.loop import RoundLoop
from server_app.run_config import check_run_config
from server_app.run_folder.folder import RunFolder
from server_app.run_source import RunSource
from server_app.strategies.base import ExpertStrategy
from tests.server_app.strategies.conftest import step, strategy_of
from tests.server_app.strategies.handmade import reply_of, view_of

CLIENTS = 3
SMALL: dict[str, Any] = {"train-samples": 90, "local-epochs": 1, "num-rounds": 3}
NORMS = {"backbone": "cnn", "norm": "batch"}
KEEP = RunFolder.keep
# What travels, what stays, and whether the server can predict.
SHARES = {
    "local": ([], ["extractor", "expert.0"], False),
    "fedper": (["extractor"], ["expert.0"], False),
    "fedrep": (["extractor"], ["expert.0"], False),
    "fedbn": (["extractor", "expert.0"], ["norm"], False),
    "fedavg-ft": (["extractor", "expert.0"], [], True),
    "ditto": (["extractor", "expert.0"], [], True),
    "apfl": (["extractor", "expert.0"], [], True),
}


def made(name: str, **config: Any) -> ExpertStrategy:
    return strategy_of({**SMALL, **norms_of(name), "strategy": name, **config})


def norms_of(name: str) -> dict[str, Any]:
    return NORMS if name == "fedbn" else {}


@pytest.mark.parametrize("name", SHARES)
def test_two_rounds_of_two_clients_by_hand(name: str) -> None:
    shared, private, predicts = SHARES[name]
    strategy = made(name)
    assert [*strategy.model] == shared and strategy.private_parts == private
    strategy.model = {k: np.zeros_like(v) for k, v in strategy.model.items()}
    plan = strategy.plan(view_of([1, 1], 1))
    assert plan.assignment.tolist() == [[True], [True]]
    for expected, changes in ((4.0, {0: 1.0, 1: 5.0}), (3.0, {0: -1.0})):
        # (10 * 1 + 30 * 5) / 40 = 4; then client 1 is silent.
        for client, change in changes.items():
            deltas = {k: np.full_like(v, change) for k, v in strategy.model.items()}
            n = (10, 30)[client]
            strategy.merge(
                reply_of(client, [0], [n], deltas, num_experts=1, gate="none")
            )
        strategy.finish()
        assert all((vector == expected).all() for vector in strategy.model.values())
    assert (strategy.global_model() is not None) == predicts
    assert set(strategy.state()) == {"usage"}


@pytest.mark.parametrize("name", SHARES)
def test_what_is_private_is_in_no_message(name: str) -> None:
    shared, private, _ = SHARES[name]
    strategy = made(name)
    grid = InlineGrid(client_app, CLIENTS, {**SMALL, **norms_of(name)})
    loop = RoundLoop(strategy)
    messages = loop.open(1, grid)
    for message in messages:
        assert [*wire.arrays_of(message.content)] == shared
        order = wire.decode_order(message.content)
        assert order.private_parts == private and order.gate == "none"
    replies = list(grid.send_and_receive(messages))
    for reply in replies:
        assert [*wire.arrays_of(reply.content)] == shared
        loop.accept(reply)
    record = loop.close()
    assert record.rejected == {} and record.merged
    values = sum(v.size for v in strategy.model.values())
    scalars = 8 * 1024 * CLIENTS
    assert 0 <= record.bytes_up - 4 * values * CLIENTS < scalars


def test_a_client_that_sends_its_head_is_refused() -> None:
    strategy = made("fedper")
    grid = InlineGrid(client_app, CLIENTS, SMALL)
    loop = RoundLoop(strategy)
    messages = loop.open(1, grid)
    first, *others = grid.send_and_receive(messages)
    [arrays] = first.content.array_records.values()
    head = np.zeros(strategy.spec.size("expert.0"), np.float32)
    arrays.update(wire.pack({"expert.0": head}))
    for reply in (first, *others):
        loop.accept(reply)
    record = loop.close()
    assert list(record.rejected.values()) == ["parts never assigned: ['expert.0']"]


def metrics_of(run: Path) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def timeless(rounds: list[dict[str, Any]]) -> list[Any]:
    """All that does not depend on a clock."""
    return [
        {k: v for k, v in record.items() if "seconds" not in k and k != "ended"}
        | {
            "clients": [
                {k: v for k, v in client.items() if "seconds" not in k}
                for client in record["clients"]
            ]
        }
        for record in rounds
    ]


def cut(run: RunFolder, server_round: int, *given: Any) -> None:
    """Keep a round as ever; with the second one the power goes."""
    KEEP(run, server_round, *given)
    if server_round == 2:
        raise Interrupted


def trained(folder: Path, name: str, *, cut_off: bool = False, **config: Any) -> Path:
    places = {"output-dir": f"{folder}/out", "state-dir": f"{folder}/state"}
    config = {**SMALL, **norms_of(name), "strategy": name, **places, **config}
    if cut_off:
        with patch.object(RunFolder, "keep", cut), suppress(Interrupted):
            simulate(config, CLIENTS)
        [run] = (folder / "out").iterdir()
        simulate({**config, "resume-from": str(run)}, CLIENTS)
    else:
        simulate(config, CLIENTS)
    [run] = (folder / "out").iterdir()
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: trained(tmp_path_factory.mktemp(name), name) for name in SHARES}


@pytest.mark.parametrize("name", SHARES)
def test_a_resumed_run_goes_on_bit_for_bit_with_what_clients_kept(
    name: str, runs: dict[str, Path], tmp_path: Path
) -> None:
    whole, resumed = runs[name], trained(tmp_path, name, cut_off=True)
    assert timeless(metrics_of(whole)) == timeless(metrics_of(resumed))
    kept = {}
    for run in (whole, resumed):
        state = run.parent.parent / "state"
        files = sorted(state.glob("*/*/model-3.npy"))
        assert len(files) == (0 if name == "fedavg-ft" else CLIENTS)
        kept[run] = [np.load(file) for file in files]
    for one, other in zip(*kept.values(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_repeated_round_starts_from_what_it_started_from(tmp_path: Path) -> None:
    config = {**SMALL, "strategy": "ditto", "state-dir": str(tmp_path)}
    loop, grid = RoundLoop(strategy_of(config)), InlineGrid(client_app, 1, config)
    step(loop, grid, 1)
    messages = loop.open(2, grid)
    kept = []
    for attempt in range(2):
        for message in messages:
            again = Message(message.content, 1, "train", group_id=f"{attempt}")
            list(grid.send_and_receive([again]))
        [file] = tmp_path.rglob("model-2.npy")
        kept.append(file.read_bytes())
    assert kept[0] == kept[1]


@pytest.mark.parametrize("name", ["local", "fedper", "ditto", "apfl", "fedavg-ft"])
def test_a_device_predicts_with_its_own_model(name: str, runs: dict[str, Path]) -> None:
    run, digits = runs[name], load_dataset("digits", ".")
    for client in metrics_of(run)[-1]["clients"]:
        state = run.parent.parent / "state"
        servable = DeviceSource(state, client=client["client"]).load()
        found = servable.predict(digits.x_test).classes
        right = float((found == digits.y_test).mean())
        assert right == pytest.approx(client["client_global"], abs=1e-9)


@pytest.mark.parametrize("name", ["local", "fedper"])
def test_where_the_server_cannot_predict_everything_says_so(
    name: str, runs: dict[str, Path]
) -> None:
    run = runs[name]
    first, *others = metrics_of(run)
    told = f"with strategy {name} the server has no"
    assert any(note.startswith(told) for note in first["notes"])
    assert not any(told in note for record in others for note in record["notes"])
    for record in (first, *others):
        assert record["server_global"] is None
        assert record["client_global"] is not None
    assert not (run / "model.safetensors").exists()
    assert told in (run / "report.html").read_text()
    with pytest.raises(SourceError, match=told):
        RunSource(run).load()


def test_a_run_with_a_predictor_keeps_it(runs: dict[str, Path]) -> None:
    assert metrics_of(runs["ditto"])[-1]["server_global"] > 0
    assert (runs["ditto"] / "model.safetensors").exists()
    assert RunSource(runs["ditto"]).load().server_round == 3


@pytest.mark.parametrize(
    ("name", "options"),
    [("fedavg-ft", "epochs=0"), ("apfl", "alpha=0.0, adaptive=false")],
)
def test_limits_that_are_fedavg(name: str, options: str) -> None:
    found = []
    named: list[dict[str, Any]] = [
        {"strategy": "fedavg"},
        {"strategy": name, "strategy-options": options},
    ]
    for config in named:
        # Fine-tuned or not, a client keeps its share of what changed.
        keep = 0.5 if name == "fedavg-ft" else 1.0
        config = {**SMALL, **config, "client-keep": keep}
        loop, grid = RoundLoop(strategy_of(config)), InlineGrid(client_app, 3, config)
        records = [step(loop, grid, server_round) for server_round in (1, 2)]
        found.append((loop.strategy.model, records))
    (plain, expected), (model, records) = found
    for part, vector in plain.items():
        np.testing.assert_array_equal(model[part], vector)
    for one, other in zip(expected, records, strict=True):
        for measure in ("client_local", "client_global"):
            assert one.mean(measure) == other.mean(measure)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"strategy": "fedbn"}, "backbone = 'mlp', norm = 'group'"),
        ({"strategy": "fedbn", "backbone": "cnn"}, 'choose norm = "batch"'),
        ({"strategy": "fedbn", "norm": "batch"}, "there is no batch norm"),
        ({"strategy": "ditto", "strategy-options": "pull=0.0"}, 'strategy = "local"'),
        (
            {"strategy": "ditto", "strategy-options": "pull=30.0"},
            "pull = 30 is not allowed with lr = 0.05: a step would overshoot the "
            "shared model; at most 20",
        ),
        ({"strategy": "apfl", "strategy-options": "alpha=1.5"}, "alpha = 1.5"),
        ({"strategy": "fedrep", "strategy-options": "head-epoch=1"}, "'head-epochs'"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    config: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError) as error:
        check_run_config(config)
    assert said in str(error.value)
    assert "\n" not in str(error.value)

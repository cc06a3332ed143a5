"""Whole runs over the in-process grid: determinism, the run log, sampling."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from client_app.app import app as client_app
from common.inline_grid import InlineGrid
from server_app.run_folder.matrices import read_assignments, read_fitness
from tests.server_app.rounds.runs import CLIENTS, run, settings_of, strategy_of


def test_a_run_leaves_everything_it_promises(tmp_path: Path) -> None:
    folder, rounds = run(tmp_path, settings_of())
    facts = json.loads((folder / "run.json").read_text())
    assert facts["settings"]["num-experts"] == 4
    assert len(facts["partition_hash"]) == 1
    assert len(facts["clients"]) == CLIENTS
    assert [r["round"] for r in rounds] == [1, 2, 3]
    for key in (
        "client_global",
        "server_global",
        "client_local",
        "cv_round",
        "cv_cumulative",
        "load",
        "bytes_down",
        "bytes_up",
        "seconds",
        "solver",
    ):
        assert rounds[0][key] is not None
    held = read_assignments(folder).values
    assert held.shape == (3, CLIENTS, 4)
    assert held.sum(2).tolist() == [[2] * CLIENTS] * 3
    assert held.sum(1).tolist() == [r["load"] for r in rounds]
    assert read_fitness(folder).values.shape == (3, CLIENTS, 4)
    tensors = load_file(folder / "model.safetensors")
    assert tensors["expert.3.out.weight"].shape == (10, 32)
    assert not any(name.startswith("gate") for name in tensors)


def test_cv_is_what_the_loads_say(tmp_path: Path) -> None:
    _, rounds = run(tmp_path, settings_of(strategy="random"))
    total = np.zeros(4)
    for record in rounds:
        load = np.array(record["load"])
        total += load
        assert record["cv_round"] == pytest.approx(load.std() / load.mean())
        assert record["cv_cumulative"] == pytest.approx(total.std() / total.mean())
        used = [n > 0 for client in record["clients"] for n in client["expert_samples"]]
        assert len(used) == load.sum()
        assert record["dead_share"] == pytest.approx(1 - np.mean(used))


def test_the_same_seed_gives_the_same_model_and_another_seed_another(
    tmp_path: Path,
) -> None:
    models = []
    for seed in (1, 1, 2):
        folder, _ = run(tmp_path, settings_of(seed=seed))
        models.append((folder / "model.safetensors").read_bytes())
    assert models[0] == models[1]
    assert models[0] != models[2]


def test_bytes_are_those_of_the_messages(tmp_path: Path) -> None:
    _, rounds = run(tmp_path, settings_of())
    spec = strategy_of(settings_of()).spec
    # psi and two experts each way, 128 bytes of header an array, some scalars.
    floor = CLIENTS * (spec.nbytes("extractor") + 2 * spec.nbytes("expert.0") + 3 * 128)
    for record in rounds:
        for key in ("bytes_down", "bytes_up"):
            assert floor < record[key] < floor + CLIENTS * 1500


def test_works_under_flowers_own_loop() -> None:
    """A true Flower strategy: configure and aggregate without our start."""
    from flwr.serverapp.strategy import Strategy

    config = settings_of()
    strategy = strategy_of(config)
    grid = InlineGrid(client_app, CLIENTS, config)
    result = Strategy.start(strategy, grid, strategy.arrays(), num_rounds=2)
    assert set(result.train_metrics_clientapp) == {1, 2}
    ours = strategy_of(config)
    ours.start(InlineGrid(client_app, CLIENTS, config), num_rounds=2)
    for part, vector in ours.model.items():
        np.testing.assert_array_equal(result.arrays[part].numpy(), vector)


def test_a_server_whose_own_training_diverges_stops_and_says_of_what(
    tmp_path: Path,
) -> None:
    config = settings_of(
        **{"strategy": "cent-moe", "reserved-samples": 100, "lr": 1e20}
    )
    with pytest.raises(
        RuntimeError, match=r"'cent-moe': made NaN or .* of .*may diverge"
    ):
        run(tmp_path, config)
    [folder] = tmp_path.iterdir()
    assert not (folder / "metrics.jsonl").exists()  # no such round is on record
    assert not (folder / "model.safetensors").exists()


def test_sampling_takes_the_same_clients_every_time(tmp_path: Path) -> None:
    config = settings_of(**{"clients-per-round": 3})
    chosen = []
    for _ in range(2):
        _, rounds = run(tmp_path, config)
        chosen.append([[c["client"] for c in r["clients"]] for r in rounds])
    assert chosen[0] == chosen[1]
    assert all(len(names) == 3 for names in chosen[0])
    assert len({tuple(names) for names in chosen[0]}) > 1


def test_mixed_capacities_are_respected(tmp_path: Path) -> None:
    _, rounds = run(tmp_path, settings_of(**{"expert-capacity": "1:0.5,3:0.5"}))
    for record in rounds:
        assert sorted(len(c["experts"]) for c in record["clients"]) == [1] * 3 + [3] * 3

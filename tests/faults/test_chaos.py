"""Whole runs with clients that drop, lie and send rubbish."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.clientapp import ClientApp
from safetensors.numpy import load_file

from client_app.app import app as real_app
from common.inline_grid import InlineGrid
from common.settings import Settings
from common.shape import dataset_of, model_spec
from server_app.run_error import RunError
from server_app.run_folder.checkpoint import newest_intact
from server_app.strategies.flex_moe import FlexMoE
from tests.faults.chaos import FAULTS, chaos_app
from tests.whole_runs import fill, lying, only_run, rounds_of, serve

CLIENTS = 8
CONFIG: dict[str, Any] = {"num-experts": 4, "local-epochs": 1, "set-aside-after": 50}


def run(
    folder: Path,
    config: dict[str, Any],
    app: ClientApp = real_app,
    clients: int = CLIENTS,
) -> tuple[Path, list[dict[str, Any]]]:
    config = {**CONFIG, **config, "output-dir": str(folder)}
    serve(config, InlineGrid(app, clients, config))
    run_folder = only_run(folder)
    return run_folder, rounds_of(run_folder)


def test_every_fault_is_rejected_with_its_reason_and_none_is_merged(
    tmp_path: Path,
) -> None:
    seen: dict[str, list[tuple[int, str]]] = {}
    folder, rounds = run(tmp_path, {"num-rounds": 25}, chaos_app(0.5, 1, seen))
    assert len(rounds) == 25
    expected = {(r, c): reason for c, items in seen.items() for r, reason in items}
    logged = {(r["round"], c): why for r in rounds for c, why in r["rejected"].items()}
    assert logged.keys() == expected.keys()
    for key, reason in expected.items():
        assert reason in logged[key]
    assert len({reason for reason in expected.values()}) >= len(FAULTS) - 3
    for record in rounds:
        held = sum(len(c["experts"]) for c in record["clients"] if c["replied"])
        # Where most replies are refused the round is not merged.
        assert sum(record["load"]) == (held if record["merged"] else 0)
    for tensor in load_file(folder / "model.safetensors").values():
        assert np.isfinite(tensor).all() and np.abs(tensor).max() < 50
    assert rounds[-1]["server_global"] > 0.3


@pytest.mark.parametrize("drop_out", [0.2, 0.5])
def test_thirty_rounds_with_drop_out_stay_balanced(
    tmp_path: Path, drop_out: float
) -> None:
    config = {
        "num-rounds": 30,
        "num-experts": 8,
        "drop-out": drop_out,
        "eval-every": 30,
    }
    _, rounds = run(tmp_path, config, clients=20)
    assert len(rounds) == 30
    assert all(record["merged"] for record in rounds)
    assert rounds[-1]["cv_cumulative"] < 0.02
    assert sum(len(record["rejected"]) for record in rounds) > 30


def test_lying_about_capacity_costs_the_liar_its_rounds_not_the_run(
    tmp_path: Path,
) -> None:
    config = {"num-rounds": 6, "capacity-error": 0.6, "expert-capacity": "1:0.5,3:0.5"}
    _, rounds = run(tmp_path, config)
    reasons = [why for record in rounds for why in record["rejected"].values()]
    assert reasons and all("can hold" in reason for reason in reasons)
    assert rounds[-1]["server_global"] is not None


def test_a_device_that_loses_memory_gets_fewer_experts_next_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from client_app.session import Session

    def shrinking(session: Session) -> int:
        return 1 if session.client == "client-2" and session.server_round >= 2 else 3

    monkeypatch.setattr("client_app.app.reported_capacity", shrinking)
    _, rounds = run(tmp_path, {"num-rounds": 4})
    held = [
        len(c["experts"])
        for record in rounds
        for c in record["clients"]
        if c["client"] == "client-2"
    ]
    assert held == [3, 3, 1, 1]


def test_a_short_round_is_repeated_and_then_merged(tmp_path: Path) -> None:
    # Needs 7 of 8 with 30 % drop-out: few rounds succeed at the first attempt.
    config = {"num-rounds": 4, "min-replies": 6, "drop-out": 0.3}
    _, rounds = run(tmp_path, config)
    assert [record["round"] for record in rounds] == [1, 2, 3, 4]
    for record in rounds:
        replied = sum(c["replied"] for c in record["clients"])
        assert (replied >= 6) == record["merged"]


def test_a_skipped_round_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    config = {"num-rounds": 3, "min-replies": 8, "drop-out": 0.6, "short-round": "skip"}
    with pytest.raises(RunError, match="of at least 8 replies"):
        run(tmp_path, config)
    folder = only_run(tmp_path)
    rounds = rounds_of(folder)
    assert [record["merged"] for record in rounds] == [False] * 3
    assert all("not merged" in record["notes"][-1] for record in rounds)
    found = newest_intact(folder)
    assert found is not None and found[1]["completed"] == 3
    settings = Settings.from_run_config({**CONFIG, **config})
    strategy = FlexMoE(settings, model_spec(settings, dataset_of(settings)))
    for part, vector in strategy.model.items():
        np.testing.assert_array_equal(found[1]["model"][part], vector)


def test_over_selection_stops_at_enough_and_discards_the_rest(tmp_path: Path) -> None:
    config = {"num-rounds": 3, "clients-per-round": 4, "over-selection": 0.5}
    _, rounds = run(tmp_path, config)
    for record in rounds:
        assert len(record["clients"]) == 6
        assert sum(c["replied"] for c in record["clients"]) == 4
    assert sum(record["late"] for record in rounds) > 0


def test_robust_merging_withstands_a_client_within_the_bounds(tmp_path: Path) -> None:
    app = lying(lambda content, _: fill(content, 5.0))
    results = {}
    for rule in ("mean", "median", "trimmed-mean", "clipped"):
        # Enough of everybody's data that a plain mean of honest replies gets to .92,
        # and no bound by medians, which would cut the liar down first.
        config = {
            "norm-bound": 0.0,
            "num-rounds": 8,
            "merging": rule,
            "num-experts": 2,
            "eval-every": 8,
            "partition": "iid",
            "local-epochs": 4,
        }
        _, rounds = run(tmp_path / rule, config, app)
        results[rule] = rounds[-1]["server_global"]
    assert results.pop("mean") < 0.3
    assert min(results.values()) > 0.8, results

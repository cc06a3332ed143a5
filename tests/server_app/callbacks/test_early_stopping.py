"""Early stopping: patience counted by hand, and counted again after a resume."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from common.errors import SettingsError
from common.settings import Settings
from server_app.callbacks.early_stopping import EarlyStopping
from server_app.callbacks.hooks import RunStart
from server_app.commands.simulate import simulate
from server_app.report.run_data import read_run
from server_app.rounds.client_round import ClientRound
from server_app.rounds.record import MEASURES
from tests.server_app.run_folder.support import record_of

ANY: Any = None


def stopping(**changes: Any) -> EarlyStopping:
    config = {f"stop-{key}": value for key, value in changes.items()}
    return EarlyStopping(Settings.from_run_config(config))


def stopped_after(
    callback: EarlyStopping, values: Sequence[float | None], begin: int = 1
) -> tuple[int, str] | None:
    """Return the round after which the run is stopped, and why."""
    for number, value in enumerate(values, begin):
        why = callback.on_round_end(record_of(number, server_global=value), ANY)
        if why is not None:
            return number, why
    return None


# 0.4 in round 2 is the best; 3, 4 and 5 are not better (a tie is not), 6 would be.
VALUES = [0.1, 0.4, 0.3, 0.4, 0.2, 0.5]


def test_patience_is_how_many_rounds_may_not_be_better() -> None:
    said = stopped_after(stopping(patience=3), VALUES)
    expected = "server_global was best in round 2 (0.4); measured 3 times since"
    assert said == (5, expected)
    assert stopped_after(stopping(patience=4), VALUES) is None


def test_less_can_be_better() -> None:
    costs: list[float | None] = [0.5, 0.2, 0.3, 0.1, 0.4, 0.6]
    said = stopped_after(stopping(patience=2, mode="min"), costs)
    expected = "server_global was best in round 4 (0.1); measured 2 times since"
    assert said == (6, expected)


def test_a_round_that_measured_nothing_does_not_count() -> None:
    values = [0.5, None, None, None, 0.4, float("nan"), 0.3]
    assert stopped_after(stopping(patience=3), values) is None
    said = stopped_after(stopping(patience=2), values)
    assert said is not None and said[0] == 7


def test_what_clients_measure_of_their_own_can_be_watched() -> None:
    callback = stopping(patience=1, measure="metrics.energy", mode="min")
    for number, joules, more in ((1, 3.0, 5.0), (2, 2.0, 4.0), (3, 1.0, 6.0)):
        clients = [
            ClientRound(client=name, experts=[0], budget=1, metrics={"energy": value})
            for name, value in (("a", joules), ("b", more))
        ]
        why = callback.on_round_end(record_of(number, clients=clients), ANY)
    # Means 4, 3 and 3.5.
    assert why == "metrics.energy was best in round 2 (3); measured 1 times since"


@pytest.mark.parametrize("kept", range(1, 6))
def test_a_resumed_run_stops_where_the_whole_one_does(kept: int) -> None:
    lines = [record_of(n, server_global=v).to_json() for n, v in enumerate(VALUES, 1)]
    callback = stopping(patience=3)
    run = RunStart(path=Path(), name="r", completed=kept, history=lines[:kept])
    at_once = callback.on_run_begin(run, ANY)
    if kept == 5:  # the power went after the round, before the run was over
        assert at_once is not None and "best in round 2" in at_once
        return
    assert at_once is None
    said = stopped_after(callback, [*VALUES[kept:]], begin=kept + 1)
    assert said is not None and said[0] == 5


def test_a_measure_there_is_not_is_refused_with_the_nearest() -> None:
    with pytest.raises(SettingsError, match=r"'server_globl' .*mean 'server_global'"):
        stopping(measure="server_globl")
    stopping(measure="metrics.anything")


@pytest.mark.parametrize(
    ("measure", "own", "tested", "instead"),
    [
        ("server_global", True, False, "choose fleet"),
        ("client_global", True, False, "choose client_local"),
        ("client_global", True, True, "choose client_local"),
        ("fleet", True, True, "choose server_global"),
        ("fleet", False, False, "choose server_global"),
    ],
)
def test_what_this_run_never_measures_is_refused_with_what_it_does(
    measure: str, own: bool, tested: bool, instead: str
) -> None:
    data = {"task": "task.toml"} if own else {}
    data |= {"test-data": "test"} if tested else {}
    with pytest.raises(SettingsError, match=f"'{measure}' .*{instead}"):
        EarlyStopping(Settings.from_run_config({**data, "stop-measure": measure}))
    for allowed in (instead.removeprefix("choose "), "balanced", "client_local_worst"):
        EarlyStopping(Settings.from_run_config({**data, "stop-measure": allowed}))


@pytest.mark.parametrize("measure", ["served", "worst_group"])
def test_groups_are_watched_where_devices_differ(measure: str) -> None:
    EarlyStopping(
        Settings.from_run_config(
            {"stop-measure": measure, "partition": "rotation:2+iid"}
        )
    )
    with pytest.raises(SettingsError, match="'iid' has no device that differs"):
        EarlyStopping(
            Settings.from_run_config({"stop-measure": measure, "partition": "iid"})
        )


def test_the_new_measures_are_watched_and_the_nearest_of_them_named() -> None:
    callback = stopping(patience=1, measure="balanced")
    assert callback.on_round_end(record_of(1, balanced=0.75), ANY) is None
    said = callback.on_round_end(record_of(2, balanced=0.5), ANY)
    assert said == "balanced was best in round 1 (0.75); measured 1 times since"
    with pytest.raises(SettingsError, match="mean 'client_local_worst'"):
        stopping(measure="client_local_wrost")


def test_every_measure_that_may_be_named_is_in_a_record() -> None:
    record = record_of(1, served=0.5)
    assert {*MEASURES} - {"epsilon"} <= record.to_json().keys()
    record.privacy = {"epsilon": 1.0}
    assert {*MEASURES} <= record.to_json().keys()
    with pytest.raises(SettingsError, match="there is none"):
        stopping(measure="epsilon")


def test_a_run_stops_early_and_stays_so_until_it_may_go_on(tmp_path: Path) -> None:
    # No learning, so no round is better than the first.
    config: dict[str, Any] = {
        "num-rounds": 5,
        "num-experts": 2,
        "local-epochs": 1,
        "lr": 1e-30,
        "train-samples": 100,
        "test-samples": 20,
        "callbacks": "early-stopping",
        "stop-patience": 2,
    }
    simulate({**config, "output-dir": str(tmp_path)}, 2)
    [path] = tmp_path.iterdir()
    assert read_run(path).numbers == [1, 2, 3]
    model = (path / "model.safetensors").read_bytes()
    simulate({**config, "resume-from": str(path)}, 2)
    assert read_run(path).numbers == [1, 2, 3]
    assert (path / "model.safetensors").read_bytes() == model
    assert "best in round 1" in json.loads((path / "run.json").read_text())["stopped"]
    simulate({**config, "resume-from": str(path), "stop-patience": 4}, 2)
    assert read_run(path).numbers == [1, 2, 3, 4, 5]

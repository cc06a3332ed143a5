"""What a run shows: nothing of it can end a run, and rows are whose they say."""

import json
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from common.errors import SettingsError
from common.settings import Settings
from server_app.callbacks.guard import Guard
from server_app.callbacks.runlog import RunLog
from server_app.commands.simulate import simulate
from server_app.report.pages import run_page
from server_app.report.run_data import read_run
from server_app.run_folder.checkpoint import Checkpoints, read
from server_app.run_folder.matrices import read_assignments, read_fitness
from server_app.run_folder.run_files import read_facts, read_metrics
from server_app.strategies.baselines import Random
from tests.server_app.run_folder.support import (
    full,
    record_of,
    settings_of,
    state_of,
)

NAMES = ["a", "b"]
SMALL: dict[str, str | int] = {
    "num-rounds": 2,
    "num-experts": 4,
    "local-epochs": 1,
    "test-samples": 50,
    "train-samples": 200,
}


def fitness_of(number: int) -> np.ndarray[Any, Any]:
    return np.full((2, 2), number, dtype=float)


def logged(
    log: RunLog,
    number: int,
    fitness: Any = lambda: None,
) -> None:
    record = record_of(number)
    log.run.keep(number, record.to_json(), state_of(number))
    log.show(record, strategy_of(fitness))


def strategy_of(fitness: Any) -> Any:
    return SimpleNamespace(fitness_matrix=fitness)


def nothing() -> Any:
    return strategy_of(lambda: None)


def resumed(path: Path) -> RunLog:
    settings: Settings = settings_of(path.parent, resume_from=str(path))
    return RunLog(settings)


# --- going on ----------------------------------------------------------------------

CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a fact of a client that there is no more": lambda state: state["fleet"].update(
        availability=np.ones(3)
    ),
    "a fact of clients that was not kept": lambda state: state["fleet"].pop("tier"),
    "an older wire": lambda state: state["fleet"].update(
        profiles=['{"protocol": 2}', *state["fleet"]["profiles"][1:]]
    ),
    "fewer clients than numbers": lambda state: state["fleet"]["profiles"].pop(),
    "nothing of the strategy": lambda state: state.update(strategy={}),
    "no loads": lambda state: state.pop("load_total"),
    "a list": lambda state: state.update(held=[]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_checkpoint_of_another_version_is_refused_in_one_line(
    change: Callable[[dict[str, Any]], object], one_round: Path
) -> None:
    [path] = (one_round / "checkpoints").glob("round-*")
    whole = path.read_bytes()
    state = read(path)
    change(state)
    Checkpoints(one_round, 1).save(1, state)
    again = {**SMALL, "resume-from": str(one_round)}
    with pytest.raises(SettingsError, match=r"resume-from = .* is of another version"):
        simulate(again, 3)
    path.write_bytes(whole)
    simulate(again, 3)
    assert [r["round"] for r in read_metrics(one_round)[0]] == [1, 2]


@pytest.fixture
def one_round(tmp_path: Path) -> Path:
    simulate({**SMALL, "num-rounds": 1, "output-dir": str(tmp_path)}, 3)
    [path] = tmp_path.iterdir()
    return path


# --- how it ended ------------------------------------------------------------------


class Asked(BaseException):
    """As SIGTERM or Ctrl-C: no error."""


@pytest.mark.parametrize(
    ("error", "ended", "why"),
    [
        (None, "complete", ""),
        (RuntimeError("no <reply>"), "failed", "no <reply>"),
        (KeyboardInterrupt(), "stopped", "interrupted"),
        (Asked(), "stopped", "interrupted"),
        (SystemExit(1), "stopped", "interrupted"),
    ],
)
def test_a_run_says_how_it_ended_and_its_report_as_well(
    error: BaseException | None, ended: str, why: str, tmp_path: Path
) -> None:
    log = RunLog(settings_of(tmp_path))
    page = log.run.path / "report.html"
    with suppress(BaseException), log:
        log.open(nothing())
        logged(log, 1)
        assert 'class="state running"' in page.read_text()
        if error is not None:
            raise error
    facts = read_facts(log.run.path)
    assert (facts["state"], facts["why"]) == (ended, why)
    html = page.read_text()
    assert f'class="state {ended}"' in html and 'data-until="' not in html
    with resumed(log.run.path) as again:
        again.open(nothing(), 1)
        assert read_facts(log.run.path)["state"] == "running"


def test_a_run_that_never_began_says_nothing_of_its_end(tmp_path: Path) -> None:
    with pytest.raises(SettingsError), RunLog(settings_of(tmp_path)) as log:
        raise SettingsError("no such thing")
    assert not (log.run.path / "run.json").exists()


# --- nothing optional ends a run ---------------------------------------------------

OPTIONAL = {
    "server_app.callbacks.live_report.run_page": "report.html",
    "server_app.strategies.flex_moe.FlexMoE.fitness_matrix": "fitness.rows",
    "server_app.rounds.record.RoundRecord.line": "the table",
    "server_app.rounds.evaluation.expert_recall": "expert_classes.npz",
}


def broken(*_: Any, **__: Any) -> None:
    raise IndexError("zip() argument 2 is longer than argument 1")


@pytest.mark.parametrize("fails", [broken, full], ids=["error", "disk full"])
def test_what_is_optional_costs_a_warning_and_nothing_else(
    fails: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for target in OPTIONAL:
        monkeypatch.setattr(target, fails)
    simulate({**SMALL, "output-dir": str(tmp_path)}, 3)
    [path] = tmp_path.iterdir()
    assert [r["round"] for r in read_metrics(path)[0]] == [1, 2]
    assert len(list((path / "checkpoints").glob("round-*"))) == 2
    assert (path / "model.safetensors").exists()
    warned = {r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING}
    for what in OPTIONAL.values():
        assert any(text.startswith(f"{what} is not up to date: ") for text in warned)


class Strange(Random):
    """A strategy whose attributes mean something else than ours."""

    name = "strange"
    fitness: Any = 0.5


STRANGE: dict[str, Any] = {
    "shape": lambda: np.zeros((99, 3)),
    "width": lambda: np.zeros((1, 3)),
    "text": lambda: "fitness",
    "number": lambda: 0.5,
    "ragged": lambda: [[1.0], [1.0, 2.0]],
    "error": broken,
    "no method": 0.5,
}


@pytest.mark.parametrize("given", STRANGE.values(), ids=STRANGE)
def test_what_a_strategy_gives_the_log_is_checked(
    given: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RunLog(settings_of(tmp_path)) as log:
        log.open(nothing(), 0, lambda: NAMES)
        logged(log, 1, given)
    assert "fitness.rows is not up to date" in caplog.text
    assert not (log.run.path / "fitness.rows").exists()
    assert (log.run.path / "report.html").exists()


def test_an_attribute_called_fitness_is_the_strategy_s_own(tmp_path: Path) -> None:
    name = f"{Strange.__module__}:Strange"
    simulate({**SMALL, "output-dir": str(tmp_path), "strategy": name}, 3)
    [path] = tmp_path.iterdir()
    assert not (path / "fitness.rows").exists()
    assert (path / "report.html").exists()


def test_a_failure_is_said_once_and_its_end_as_well(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    guard = Guard()
    for _ in range(3):
        guard("report.html", full)
    guard("report.html", broken)
    guard("report.html", lambda: None)
    guard("report.html", lambda: None)
    assert [record.getMessage() for record in caplog.records] == [
        "report.html is not up to date: No space left on device",
        "report.html is not up to date: IndexError: zip() argument 2 is longer than "
        "argument 1",
        "report.html is up to date again",
    ]


# --- matrices ----------------------------------------------------------------------


def test_rows_are_whose_they_say(tmp_path: Path) -> None:
    config: dict[str, str | int] = {
        **SMALL,
        "clients-per-round": 2,
        "output-dir": str(tmp_path),
        "seed": 1,
    }
    simulate(config, 6)
    [path] = tmp_path.iterdir()
    found, assigned = read_fitness(path), read_assignments(path)
    fitness, held, names = found.values, assigned.values, found.clients
    assert found.rounds == assigned.rounds == [1, 2]
    assert assigned.clients == names
    assert names == [f"client-{n}" for n in range(6)]
    assert fitness.shape == held.shape == (2, 6, 4)
    for index, record in enumerate(read_metrics(path)[0]):
        experts = {c["client"]: c["experts"] for c in record["clients"]}
        for row, name in enumerate(names):
            assert np.flatnonzero(held[index, row]).tolist() == experts.get(name, [])
    # Only who took part has learnt anything.
    moved = (np.abs(fitness[1] - fitness[0]) > 0).any(axis=1)
    assert {names[row] for row in np.flatnonzero(moved)} <= set(experts)
    assert moved.any()


def test_a_latecomer_has_no_fitness_before_it_came(tmp_path: Path) -> None:
    with RunLog(settings_of(tmp_path)) as log:
        names = ["a", "b"]
        log.open(nothing(), 0, lambda: names)
        logged(log, 1, lambda: fitness_of(1))
        names.append("late")
        logged(log, 2, lambda: np.full((3, 2), 2.0))
        log.tell(clients={name: {} for name in names})
    found = read_fitness(log.run.path)
    assert found.clients == ["a", "b", "late"]
    np.testing.assert_array_equal(found.values[0, 2], [np.nan, np.nan])
    np.testing.assert_array_equal(found.values[0, :2], fitness_of(1))
    np.testing.assert_array_equal(found.values[1], np.full((3, 2), 2.0))


def went_on(path: Path) -> dict[int, float]:
    """Resume after round 3, log round 4, return what ``fitness.rows`` has."""
    with resumed(path) as log:
        state = log.run.newest()
        assert state is not None
        log.open(strategy_of(lambda: fitness_of(3)), state["completed"], lambda: NAMES)
        logged(log, 4, lambda: fitness_of(4))
    held, fitness = read_assignments(path), read_fitness(path)
    assert held.rounds == [1, 2, 3, 4]
    assert held.values[:, 0, 0].tolist() == [True] * 4
    pairs = zip(fitness.rounds, fitness.values, strict=True)
    return {number: float(matrix[0, 0]) for number, matrix in pairs}


@pytest.fixture
def three_rounds(tmp_path: Path) -> Path:
    with RunLog(settings_of(tmp_path)) as log:
        log.open(nothing(), 0, lambda: NAMES)
        for number in (1, 2, 3):
            logged(log, number, lambda: fitness_of(number))  # noqa: B023 - called now
    return log.run.path


def test_matrices_go_on_after_a_resume(three_rounds: Path) -> None:
    assert went_on(three_rounds) == {1: 1, 2: 2, 3: 3, 4: 4}


@pytest.mark.parametrize("content", [b"", b"PK\3\4 no zip", b"\0" * 999])
def test_damaged_fitness_is_gone_on_with_as_far_as_it_can(
    content: bytes, three_rounds: Path
) -> None:
    (three_rounds / "fitness.rows").write_bytes(content)
    assert went_on(three_rounds) == {3: 3, 4: 4}
    assert "<svg" in run_page(read_run(three_rounds))


def test_matrices_that_are_directories_cost_only_themselves(three_rounds: Path) -> None:
    for name in ("fitness.rows", "report.html"):
        (three_rounds / name).unlink(missing_ok=True)
        (three_rounds / name).mkdir()
    with resumed(three_rounds) as log:
        log.open(strategy_of(lambda: fitness_of(3)), 3, lambda: NAMES)
        logged(log, 4, lambda: fitness_of(4))
    facts = json.loads((three_rounds / "run.json").read_text())
    assert facts["run"] == log.run.name
    assert log.run.kept == 4

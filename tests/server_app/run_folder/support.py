"""Runs made by hand, for the tests of a run's directory."""

from pathlib import Path
from typing import Any

import numpy as np

from common.settings import Settings
from server_app.rounds.client_round import ClientRound
from server_app.rounds.record import RoundRecord
from server_app.run_folder.folder import RunFolder
from server_app.run_folder.run_files import read_metrics

ROUNDS = 4


def settings_of(folder: Path, **changes: Any) -> Settings:
    changed = {key.replace("_", "-"): value for key, value in changes.items()}
    return Settings.from_run_config({"output-dir": str(folder), **changed})


def record_of(number: int, **changes: Any) -> RoundRecord:
    fields: dict[str, Any] = {
        "round": number,
        "merged": True,
        "server_global": 0.5,
        "cv_round": 0.0,
        "cv_cumulative": 0.0,
        "cv_samples": 0.0,
        "cv_layers": [0.0],
        "load": [1, 0],
        "samples": [10, 0],
        "seconds": 1.0,
        "solver": None,
        "notes": [],
        "rejected": {},
        "late": 0,
        "ended": "",
        "clients": [ClientRound(client="a", experts=[0], budget=1)],
    }
    return RoundRecord(**{**fields, **changes})


def state_of(number: int) -> dict[str, Any]:
    return {"completed": number, "model": {"extractor": np.full(50, number)}}


def begin(folder: Path, **changes: Any) -> RunFolder:
    run = RunFolder(settings_of(folder, **changes))
    run.write_facts(run=run.name, settings=settings_of(folder).to_run_config())
    return run


def go_on(path: Path, **changes: Any) -> tuple[RunFolder, int]:
    """Resume a run; return it with the round it goes on after."""
    run = RunFolder(settings_of(path.parent, resume_from=str(path), **changes))
    try:
        state = run.newest()
        completed = state["completed"] if state else 0
        run.restore(completed)
        run.write_facts(run=run.name)
    except BaseException:
        run.release()
        raise
    return run, completed


def train(run: RunFolder, completed: int, kept: list[int]) -> None:
    for number in range(completed + 1, ROUNDS + 1):
        run.keep(number, record_of(number).to_json(), state_of(number))
        kept.append(number)


def made(folder: Path, rounds: int = ROUNDS) -> Path:
    """Return the directory of a run that was stopped after some rounds."""
    run = begin(folder)
    for number in range(1, rounds + 1):
        run.keep(number, record_of(number).to_json(), state_of(number))
    run.release()
    return run.path


def numbers(path: Path) -> list[int]:
    return [record["round"] for record in read_metrics(path)[0]]


def full(*_: Any, **__: Any) -> None:
    raise OSError(28, "No space left on device")

"""One cell, run in this process: what a worker of a study does."""

import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.study.cells import Cell, summary
from common.text import message_of

Task = tuple[Cell, str]
"""A cell, and the directory of its data sets."""

Ended = tuple[Cell, dict[str, Any] | None, str | None]
"""A cell, with the line of a run that ended well or with why it failed."""


class WorkersError(Exception):
    """Who should run the cells cannot; the message is one readable line."""


def complete_config(cell: Cell, data_dir: str) -> dict[str, Any]:
    """Return all settings of a cell's run but where it writes."""
    # Late: the parent process plans and draws, and needs neither torch nor Flower.
    from server_app.launcher.config import THIS_APP, app_defaults

    return {**app_defaults(THIS_APP), **cell.run_config, "data-dir": data_dir}


def records(cell: Cell, data_dir: str, folder: str) -> list[dict[str, Any]]:
    """Return the records of a run's rounds; its files are left in ``folder``."""
    from server_app.commands.simulate import simulate

    config = complete_config(cell, data_dir)
    simulate({**config, "output-dir": folder, "keep-checkpoints": 1}, cell.clients)
    [path] = Path(folder).glob("*/metrics.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def run_cell(task: Task) -> Ended:
    """Run a cell; whatever goes wrong with it is in what is returned."""
    cell, data_dir = task
    with tempfile.TemporaryDirectory() as folder:
        try:
            rounds = records(cell, data_dir, folder)
        except Exception as error:  # one run must not end the study
            return cell, None, f"{type(error).__name__}: {message_of(error)}"
    line = {
        "key": cell.key,
        "strategy": cell.label,
        "dataset": cell.dataset,
        "partition": cell.partition,
        "seed": cell.seed,
        "clients": cell.clients,
        **summary(rounds),
    }
    return cell, line, None

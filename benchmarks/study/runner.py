"""Runs what is missing of a study, several runs at a time, and keeps each at once."""

import json
import logging
import multiprocessing
import os
import tempfile
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread
from typing import Any

from benchmarks.study.cells import Cell, summary

Ended = tuple[Cell, dict[str, Any] | None, str | None]


def run_all(
    cells: Sequence[Cell], out: Path, jobs: int, data_dir: str
) -> Iterator[Ended]:
    """Run cells, several at a time; yield each as it ends, its line written to ``out``.

    Parameters
    ----------
    out : Path
        JSON lines, one is added as each run ends: a study can be stopped and continued.
    jobs : int
        Runs at a time, one processor core each.
    data_dir : str
        Where the data sets are; not part of what identifies a run.

    Yields
    ------
    cell, line, error
        The line of a run that ended well, or why it failed.
    """
    if not cells:
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    tasks = [(cell, data_dir) for cell in cells]
    # A fresh interpreter per worker: torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(jobs, len(tasks)), initializer=_start_worker) as pool:
        for ended in pool.imap_unordered(_run, tasks):
            if ended[1] is not None:
                _append(out, json.dumps(ended[1]))
            yield ended


def _append(path: Path, line: str) -> None:
    """Add a line, on a line of its own even after one that was cut off."""
    whole = not path.exists() or path.read_bytes()[-1:] in (b"", b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{'' if whole else chr(10)}{line}\n")


def _end_with_parent() -> None:
    """Wait for the study to end: killed, it takes its runs with it."""
    study = multiprocessing.parent_process()
    assert study is not None
    wait([study.sentinel])
    os._exit(1)


def _start_worker() -> None:
    Thread(target=_end_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = "1"
    logging.disable(logging.WARNING)


def records(cell: Cell, data_dir: str, folder: str) -> list[dict[str, Any]]:
    """Return the records of a run's rounds; its files are left in ``folder``."""
    # Late: the parent process plans and draws, and needs neither torch nor Flower.
    from server_app.commands.simulate import APP_DIR, simulate
    from server_app.launcher.config import app_defaults

    config = {
        **app_defaults(APP_DIR),
        **cell.run_config,
        "data-dir": data_dir,
        "output-dir": folder,
        "keep-checkpoints": 1,
    }
    simulate(config, cell.clients)
    [path] = Path(folder).glob("*/metrics.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def _run(task: tuple[Cell, str]) -> Ended:
    cell, data_dir = task
    with tempfile.TemporaryDirectory() as folder:
        try:
            rounds = records(cell, data_dir, folder)
        except Exception as error:  # one run must not end the study
            return cell, None, f"{type(error).__name__}: {error}"
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


def default_jobs() -> int:
    """Return how many runs at a time: one per core this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1

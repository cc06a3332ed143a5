"""Runs what is missing of a study, several runs at a time, and keeps each at once."""

import argparse
import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol

from benchmarks.study.cells import Cell
from benchmarks.study.one_cell import Ended, Task, run_cell
from expertfleet.sweep.workers import default_jobs, in_processes


class Workers(Protocol):
    """Who runs cells: ``Processes`` of this machine, or a ``RayCluster``."""

    def __call__(self, tasks: Sequence[Task]) -> Generator[Ended, None, None]:
        """Run cells; yield each as it ends, in any order.

        What ends the iterator early ends the cells as well.

        Raises
        ------
        WorkersError
            If no cell can be run so.
        """


def run_all(
    cells: Sequence[Cell], out: Path, workers: Workers, data_dir: str
) -> Iterator[Ended]:
    """Run cells, several at a time; yield each as it ends, its line written to ``out``.

    Parameters
    ----------
    out : Path
        JSON lines, one is added as each run ends: a study can be stopped and continued.
    workers : Workers
        See :func:`workers_of`.
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
    with closing(workers([(cell, data_dir) for cell in cells])) as all_ended:
        for ended in all_ended:
            if ended[1] is not None:
                _append(out, json.dumps(ended[1]))
            yield ended


def _append(path: Path, line: str) -> None:
    """Add a line, on a line of its own even after one that was cut off."""
    whole = not path.exists() or path.read_bytes()[-1:] in (b"", b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{'' if whole else chr(10)}{line}\n")


class Processes:
    """Runs cells in processes of this machine, one core each.

    Parameters
    ----------
    jobs : int
        Runs at a time.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs

    def __call__(self, tasks: Sequence[Task]) -> Generator[Ended, None, None]:
        """Run cells; yield each as it ends."""
        with closing(in_processes(run_cell, tasks, self.jobs)) as all_ended:
            for (cell, _), ended, lost in all_ended:
                yield ended or (cell, None, lost)


def add_workers_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that say who runs the cells."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--jobs",
        type=int,
        default=default_jobs(),
        metavar="N",
        help="runs at a time on this machine (default: one per core)",
    )
    where.add_argument(
        "--ray-address",
        metavar="HOST:PORT",
        help="run on the machines of this Ray cluster instead, one core each",
    )


def workers_of(args: argparse.Namespace) -> Workers:
    """Return who runs the cells, by the options of :func:`add_workers_arguments`."""
    if args.ray_address is None:
        return Processes(args.jobs)
    # Late: Ray takes seconds, and is not everywhere.
    from benchmarks.study.on_ray import RayCluster

    return RayCluster(args.ray_address)

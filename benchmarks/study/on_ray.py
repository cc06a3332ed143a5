"""Cells on the machines of a Ray cluster, one core each."""

from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path

from benchmarks.study.one_cell import (
    Ended,
    Task,
    WorkersError,
    complete_config,
    run_cell,
)
from common.text import message_of
from expertfleet.sweep.ray_tasks import on_cluster
from server_app.launcher.cluster import Needs, read_by_clients
from server_app.launcher.config import RunConfigError


class RayCluster:
    """Runs cells as tasks of a Ray cluster; see :func:`on_cluster`.

    Parameters
    ----------
    address : str
        ``HOST:PORT`` of the cluster's head. This machine has to be one of the cluster.
    """

    def __init__(self, address: str) -> None:
        self.address = address

    def __call__(self, tasks: Sequence[Task]) -> Generator[Ended, None, None]:
        """Run cells; yield each as it ends.

        Raises
        ------
        WorkersError
            If the cluster cannot be reached or lacks what the cells need.
        """
        tasks = [(cell, str(Path(folder).absolute())) for cell, folder in tasks]
        running = on_cluster(
            run_cell,
            tasks,
            self.address,
            Needs(same=read_by_clients(*(complete_config(*each) for each in tasks))),
            label=_label,
            told=_told,
            packages=("benchmarks", "expertfleet"),
        )
        try:
            with closing(running) as all_ended:
                for (cell, _), ended, lost in all_ended:
                    yield ended or (cell, None, lost)
        except RunConfigError as error:
            raise WorkersError(message_of(error)) from None


def _label(task: Task) -> str:
    cell, _ = task
    return f"{cell.dataset} {cell.partition} {cell.label}, seed {cell.seed}"


def _told(line: str) -> None:
    print(line, flush=True)

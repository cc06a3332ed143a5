"""Cells on the machines of a Ray cluster, one core each."""

import logging
import os
import tempfile
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from benchmarks.study.one_cell import (
    Ended,
    Task,
    WorkersError,
    complete_config,
    run_cell,
)
from common.code_hash import code_hash
from common.text import first_line, message_of
from server_app.launcher.cluster import (
    Needs,
    check_cluster,
    code_archive,
    read_by_clients,
)
from server_app.launcher.config import THIS_APP, RunConfigError

TRIES = 3
"""How often a cell is begun whose machine is lost, or whose memory runs out."""

_DEVICES = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""Let a cell see its machine's GPU, as it does without Ray."""

CANCELLED_WITHIN = 5.0
"""Seconds in which a run that is cancelled can put away its files."""


class RayCluster:
    """Runs cells as tasks of a Ray cluster, with the code of this machine.

    A machine that is lost costs its cells a second try. What ends the iterator early
    cancels the cells; the cluster goes on.

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
        with tempfile.TemporaryDirectory() as folder:
            archive = code_archive(
                THIS_APP, Path(folder), ["benchmarks", "expertfleet"]
            )
            try:
                found = check_cluster(self.address, archive, Needs(same=_read(tasks)))
            except RunConfigError as error:
                raise WorkersError(message_of(error)) from None
            print(
                f"Ray cluster at {self.address}: {found.machines} machines, "
                f"{found.places} runs at once",
                flush=True,
            )
            if found.free_cpus < 1:
                print("no core of the cluster is free: the runs wait for one")
            os.environ |= _DEVICES
            ray.init(
                address=self.address,
                runtime_env={"working_dir": str(archive), "env_vars": _DEVICES},
                log_to_driver=False,
                logging_level=logging.WARNING,
            )
        try:
            yield from _run_all(tasks)
        finally:
            ray.shutdown()


def _read(tasks: Iterable[Task]) -> dict[str, list[Path]]:
    """Return what cells read of the disk, by setting."""
    found: dict[str, dict[Path, None]] = {}
    for cell, data_dir in tasks:
        for key, paths in read_by_clients(complete_config(cell, data_dir)).items():
            found.setdefault(key, {}).update(dict.fromkeys(paths))
    return {key: [*paths] for key, paths in found.items()}


def _run_all(tasks: Iterable[Task]) -> Iterator[Ended]:
    # Tried again here, not by Ray: so that it is told.
    begin = ray.remote(num_cpus=1, max_retries=0)(_run_there).remote
    code = code_hash()
    running: dict[Any, tuple[Task, int]] = {begin(t, code): (t, 1) for t in tasks}
    try:
        while running:
            [ended], _ = ray.wait([*running], num_returns=1)
            task, tries = running.pop(ended)
            cell = task[0]
            try:
                result: Ended = ray.get(ended)
            except RayTaskError as error:  # other code there, say
                result = cell, None, first_line(str(error.cause))
            except RayError as error:
                why = f"lost with its worker ({type(error).__name__})"
                if tries < TRIES:
                    where = f"{cell.dataset} {cell.partition} {cell.label}"
                    print(f"{where}, seed {cell.seed}: {why}; it is run again")
                    running[begin(task, code)] = task, tries + 1
                    continue
                result = cell, None, f"{why} {tries} times"
            yield result
    finally:
        _cancel([*running])


def _run_there(task: Task, code: str) -> Ended:
    """Run a cell on whatever machine this is, if it has the code of the study."""
    if (here := code_hash()) != code:
        raise RuntimeError(f"the machine runs other code: {here} instead of {code}")
    logging.disable(logging.WARNING)
    return run_cell(task)


def _cancel(refs: list[Any]) -> None:
    """Interrupt what runs, so that it puts its files away; then end it."""
    for force in (False, True):
        for ref in refs:
            ray.cancel(ref, force=force)
        if refs:
            _, refs = ray.wait(refs, num_returns=len(refs), timeout=CANCELLED_WITHIN)

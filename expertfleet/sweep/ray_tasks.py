"""Tasks on the machines of a Ray cluster, one core each; see ``workers`` for this one.

A machine that is lost costs its tasks a second try. Not here: what a cluster has to
have (``server_app.launcher.cluster``).
"""

import logging
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from common.code_hash import code_hash
from common.text import first_line
from server_app.launcher.cluster import Needs, check_cluster, code_archive
from server_app.launcher.config import THIS_APP

Task = TypeVar("Task")
Result = TypeVar("Result")

TRIES = 3
"""How often a task is begun whose machine is lost, or whose memory runs out."""

_DEVICES = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""Let a task see its machine's GPU, as it does without Ray."""

CANCELLED_WITHIN = 5.0
"""Seconds in which a task that is cancelled can put away its files."""


def on_cluster(
    run: Callable[[Task], Result],
    tasks: Sequence[Task],
    address: str,
    needs: Needs,
    *,
    label: Callable[[Task], str],
    told: Callable[[str], object],
    packages: Iterable[str] = ("expertfleet",),
) -> Generator[tuple[Task, Result | None, str], None, None]:
    """Run tasks with the code of this machine, all at a time; yield each as it ends.

    What ends the generator early cancels the tasks; the cluster goes on.

    Parameters
    ----------
    run : callable
        Of a module's own, as are tasks and results: they are pickled.
    tasks : sequence
    address : str
        ``HOST:PORT`` of the cluster's head. This machine has to be one of the cluster.
    needs : Needs
        What each machine has to have.
    label : callable
        Returns what a task is called in what is told.
    told : callable
        Called with a line on the cluster, and with one for each task that begins again.
    packages : iterable of str
        Sent beside the app: those of ``run``.

    Yields
    ------
    task, result, error
        A result, or None and why there is none.

    Raises
    ------
    ClusterError
        If the cluster cannot be reached or lacks what the tasks need.
    """
    with tempfile.TemporaryDirectory() as folder:
        archive = code_archive(THIS_APP, Path(folder), packages)
        found = check_cluster(address, archive, needs)
        told(
            f"Ray cluster at {address}: {found.machines} machines, {found.places} "
            "runs at once"
        )
        if found.free_cpus < 1:
            told("no core of the cluster is free: the runs wait for one")
        os.environ |= _DEVICES
        with _sigterm_is_ours():
            ray.init(
                address=address,
                runtime_env={"working_dir": str(archive), "env_vars": _DEVICES},
                log_to_driver=False,
                logging_level=logging.WARNING,
            )
    try:
        yield from _run_all(run, tasks, label, told)
    finally:
        ray.shutdown()


@contextmanager
def _sigterm_is_ours() -> Iterator[None]:
    """Undo that Ray takes SIGTERM, to end with 1 and a dump."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def _run_all(
    run: Callable[[Task], Result],
    tasks: Iterable[Task],
    label: Callable[[Task], str],
    told: Callable[[str], object],
) -> Iterator[tuple[Task, Result | None, str]]:
    # Tried again here, not by Ray: so that it is told.
    begin: Any = ray.remote(num_cpus=1, max_retries=0)(_run_there).remote
    code = code_hash()
    running: dict[Any, tuple[Task, int]] = {begin(run, t, code): (t, 1) for t in tasks}
    try:
        while running:
            [ended], _ = ray.wait([*running], num_returns=1)
            task, tries = running.pop(ended)
            result, error = None, ""
            try:
                result = ray.get(ended)
            except RayTaskError as failure:  # other code there, say
                error = first_line(str(failure.cause))
            except RayError as failure:
                why = f"lost with its worker ({type(failure).__name__})"
                if tries < TRIES:
                    told(f"{label(task)}: {why}; it is run again")
                    running[begin(run, task, code)] = task, tries + 1
                    continue
                error = f"{why} {tries} times"
            yield task, result, error
    finally:
        _cancel([*running])


def _run_there(run: Callable[[Task], Result], task: Task, code: str) -> Result:
    """Run a task on whatever machine this is, if it has the code of who asks."""
    if (here := code_hash()) != code:
        raise RuntimeError(f"the machine runs other code: {here} instead of {code}")
    logging.disable(logging.ERROR)
    return run(task)


def _cancel(refs: list[Any]) -> None:
    """Interrupt what runs, so that it puts its files away; then end it."""
    for force in (False, True):
        for ref in refs:
            ray.cancel(ref, force=force)
        if refs:
            _, refs = ray.wait(refs, num_returns=len(refs), timeout=CANCELLED_WITHIN)

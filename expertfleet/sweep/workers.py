"""Tasks in processes of this machine, one process each: one that dies costs itself."""

import logging
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Generator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from threading import Thread
from types import FrameType
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

ENDED_WITHIN = 20.0
"""Seconds in which a task that is ended can put away its files."""


def in_processes(
    run: Callable[[Task], Result], tasks: Sequence[Task], jobs: int
) -> Generator[tuple[Task, Result | None, str], None, None]:
    """Run tasks, several at a time; yield each as it ends.

    What ends the generator early ends the tasks as well, as does the death of this
    process.

    Parameters
    ----------
    run : callable
        Of a module's own, as are tasks and results: they are pickled.
    tasks : sequence
    jobs : int
        Tasks at a time.

    Yields
    ------
    task, result, error
        A result, or None and why there is none: the process died.
    """
    # A fresh interpreter per task: torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    waiting = deque(tasks)
    running: dict[Connection, tuple[BaseProcess, Task]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                task = waiting.popleft()
                receive, send = context.Pipe(duplex=False)
                started = context.Process(target=_work, args=(send, run, task))
                started.start()
                send.close()
                running[receive] = started, task
            for ended in wait([*running]):
                assert isinstance(ended, Connection)
                process, task = running.pop(ended)
                result, error = _received(ended, process)
                yield task, result, error
    finally:
        _end([process for process, _ in running.values()])


def default_jobs() -> int:
    """Return how many tasks at a time: one per core this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _received(source: Connection, process: BaseProcess) -> tuple[Result | None, str]:
    try:
        with source:
            result: Result = source.recv()
        process.join()
    except EOFError:
        process.join()
        code = process.exitcode or 0
        if code == -signal.SIGKILL:
            return None, "its process was killed (too little memory?)"
        how = f"by signal {-code}" if code < 0 else f"with code {code}"
        return None, f"its process ended {how}"
    return result, ""


def _end(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(ENDED_WITHIN)
        if process.is_alive():
            process.kill()
            process.join()


def _work(send: Connection, run: Callable[[Task], Result], task: Task) -> None:
    # Ctrl-C goes to all processes of a terminal: the first of them ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    Thread(target=_end_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = "1"
    logging.disable(logging.ERROR)
    send.send(run(task))


def _leave(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(128 + number)


def _end_with_parent() -> None:
    """Wait for the parent to end: killed, it takes its tasks with it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)

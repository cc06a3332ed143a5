"""What makes a test fail on another machine: a pytest plugin (``make test-hard``).

It runs every test in a process of its own, forked after all were collected, so that
none can lean on what another one imported or left. There the first looks at a clock
last two seconds each, as on a machine that stalls: a test whose limits, ages or waiting
are true only of a quick machine fails.

Meant for tests that start no processes, whose clocks nobody here can slow down.
"""

import os
import pickle
import time
import traceback
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

STALL_SECONDS = 2.0
STALLS = 3
"""Looks at a clock that last so long, in each test."""

# Before a test puts another in its place.
_SLEEP = time.sleep


def _stall() -> None:
    """Let the next looks at a clock last; those after them are as before."""
    left, pid = STALLS, os.getpid()

    def slowly(look: Any) -> Any:
        def slow() -> float:
            nonlocal left
            if left > 0 and os.getpid() == pid:
                left -= 1
                _SLEEP(STALL_SECONDS)
            return float(look())

        return slow

    for name in ("time", "monotonic"):
        setattr(time, name, slowly(getattr(time, name)))


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Any:
    """Stall in the test itself, not in its fixtures."""
    _stall()
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool:
    """Run a test in a fork, and report here what came of it."""
    hook, config = item.ihook, item.config
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in _reports(item):
        hook.pytest_runtest_logreport(
            report=config.hook.pytest_report_from_serializable(
                config=config, data=report
            )
        )
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _reports(item: pytest.Item) -> list[dict[str, Any]]:
    to_report = item.config.hook.pytest_report_to_serializable
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            reports = runtestprotocol(item, log=False, nextitem=None)
            made = [to_report(config=item.config, report=each) for each in reports]
            with os.fdopen(writing, "wb") as file:
                pickle.dump(made, file)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        said = file.read()
    os.waitpid(child, 0)
    if said:
        found: list[dict[str, Any]] = pickle.loads(said)
        return found
    died = pytest.TestReport(
        item.nodeid, item.location, {}, "failed", "its process died", "call"
    )
    return [to_report(config=item.config, report=died)]

"""Why a run failed: one line, out of a log that has many."""

import pytest

from server_app.launcher.failure import failure, last_exception
from server_app.launcher.superlink import SuperLink

TRACEBACK = [
    "Traceback (most recent call last):",
    '  File "app.py", line 1, in main',
    "KeyError: 'fitness'",
    "",
    "During handling of the above exception, another exception occurred:",
    "",
    "Traceback (most recent call last):",
    '  File "app.py", line 2, in main',
]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["INFO : round 1", *TRACEBACK, "", "a.RunError: no round", "after"], "a.Run"),
        (TRACEBACK, "KeyError: 'fitness'"),  # cut off in the second one
        (["INFO : round 1", "a: b"], ""),
    ],
)
def test_the_reason_of_a_failure_is_the_last_exception(
    lines: list[str], said: str
) -> None:
    found = last_exception(lines)
    assert found.startswith(said) and bool(found) == bool(said)


class Ended(SuperLink):
    """A SuperLink whose run has failed."""

    def __init__(self) -> None:
        pass

    def outcome(self) -> tuple[str, str]:
        return "finished:failed", ""


def test_a_ray_that_is_late_is_told_from_a_run_that_fails() -> None:
    # Ray's words, and Flower's around them, shortened.
    lines = [
        "ERROR :     An exception occured!! The current node timed out during startup. "
        "This could happen because some of the raylet failed to startup",
        "Traceback (most recent call last):",
        '  File "run_simulation.py", line 346, in _main_loop',
        "RuntimeError: An error was encountered. Ending simulation.",
    ]
    late = failure(Ended(), lines)
    assert late is not None and late.startswith("Ray did not start within the 30 s")
    assert failure(Ended(), lines[1:]) == lines[-1]

"""Programs that a test starts and waits for."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path


def run_program(
    command: Sequence[str | Path], place: Path, *, timeout: float = 600, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a program in a directory; return what it said, and how it ended.

    Parameters
    ----------
    timeout : float
        Seconds, after which the test fails.
    **env : str
        What is in its environment beside, or instead of, what is in ours.
    """
    return subprocess.run(
        command,
        cwd=place,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )

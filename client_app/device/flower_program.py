"""Run one of Flower's programs to its end: signals passed on, nothing left behind."""

import ctypes
import signal
import subprocess
from contextlib import suppress
from types import FrameType

START_ANEW = 75
"""Exit code of a SuperNode that an error has ended, which it has logged.

It is none of Flower's codes: a SuperNode of Flower does not end then. It stays as a
process that does nothing.
"""

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1  # Linux's <sys/prctl.h>; nothing elsewhere


def run_program(command: list[str], env: dict[str, str]) -> tuple[int, bool]:
    """Run a program to its end; return its exit code and whether it was asked to end.

    Signals that ask this process to end are passed on. Killed, it takes the program
    with it, where the system can do that.
    """
    asked = False
    process: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, _: FrameType | None) -> None:
        nonlocal asked
        asked = True
        if process is not None:
            process.send_signal(number)

    previous = {number: signal.signal(number, pass_on) for number in _ENDING}
    try:
        # A group of its own: a terminal's Ctrl-C would reach it twice, and the second
        # one cuts off Flower's ending.
        process = subprocess.Popen(
            command, env=env, preexec_fn=_end_with_parent, process_group=0
        )
        if asked:  # while it was being started
            process.terminate()
        code = process.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return (code if code >= 0 else 128 - code), asked


def _end_with_parent() -> None:
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))

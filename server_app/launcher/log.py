"""How a run is told: the table of rounds on standard output, all else on the other.

So ``expertfleet simulate > table.txt`` has the table alone. Colours are only where
somebody sees them (``NO_COLOR``, ``FORCE_COLOR``: rich knows), and never in the table.
"""

import logging
import re
import sys
from typing import TextIO

from rich.console import Console

LOGGER = "flwr.expertfleet"
TABLE = f"{LOGGER}.table"
"""The logger of the table, and of where the results are."""

_COLOURS = {"WARNING": 33, "ERROR": 31, "CRITICAL": 31}  # yellow and red
_TABLE_LINE = re.compile(
    r"round +(server|fleet) .*| *\d+ +(-|\d\.\d{4}) .*|results: .*"
)
_LEVEL = re.compile(r"(DEBUG|INFO|WARNING|ERROR|CRITICAL) *: +(.*)")


class PlainLog(logging.Handler):
    """Shows each record where it belongs.

    Parameters
    ----------
    aside : TextIO, optional
        Where all but the table goes; standard error by default.
    """

    def __init__(self, aside: TextIO | None = None) -> None:
        super().__init__()
        self._aside = aside

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record; a reader that has gone ends the run, a full disk does not."""
        text = self.format(record)
        try:
            if record.name == TABLE:
                print(text, flush=True)
            elif record.levelno > logging.INFO:
                told(f"{record.levelname}: {text}", record.levelname, self._aside)
            else:
                told(text, "", self._aside)
        except BrokenPipeError:
            raise
        except OSError:
            pass  # what is trained is worth more than what is told of it


def show_line(line: str, *, quiet: bool) -> None:
    """Show a line of the log of a ServerApp that runs elsewhere.

    Parameters
    ----------
    line : str
        As Flower streams it, without colours.
    quiet : bool
        Whether only warnings and errors are shown.
    """
    leveled = _LEVEL.fullmatch(line)
    level = leveled[1] if leveled else ""
    if level in _COLOURS:
        told(f"{level}: {leveled[2]}" if leveled else line, level)
    elif quiet:
        return
    elif _TABLE_LINE.fullmatch(line):
        print(line, flush=True)
    else:
        told(line)


def told(text: str, level: str = "", file: TextIO | None = None) -> None:
    """Print a line that is no line of the table, coloured by its level if wanted."""
    stream = file or sys.stderr
    if level in _COLOURS:
        # Asked, and not printed with: it ends the process where nobody reads any more.
        asked = Console(file=stream)
        if asked.is_terminal and asked.color_system and not asked.no_color:
            text = f"\x1b[{_COLOURS[level]}m{text}\x1b[0m"
    print(text, file=stream, flush=True)


def is_quiet() -> bool:
    """Whether only warnings and errors were asked for (``expertfleet --quiet``)."""
    return logging.getLogger(LOGGER).level > logging.INFO

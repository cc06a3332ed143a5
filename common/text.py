"""Text from elsewhere, made fit to be shown: one short line that no terminal obeys.

Names, reasons and models of boards come from devices and end in logs, tables, files and
pages. They are cleaned where messages are read (``common.wire``), and nowhere after.
Only the standard library is needed here.
"""

import textwrap
import unicodedata
from collections.abc import Sequence

LONGEST = 300
"""Characters kept of what a device says."""

LONGEST_MESSAGE = 600
"""Characters kept of an error's message."""

RUN_NAME = r"[\w.-]{1,100}"
"""The names of runs: they travel in every order, and devices make folders of them."""

CLIENT_NAME = r"\w[\w.-]{0,99}"
CLIENT_NAME_RULE = (
    "1 to 100 letters, digits, '-', '_' or '.', beginning with a letter or digit"
)

# Control characters, what changes the direction of writing or is not seen, halves of
# characters, and the two separators that are line ends to some programs.
_UNSAFE = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})


def one_line(text: str, longest: int = LONGEST) -> str:
    """Return any text as one line that is safe to print.

    What is longer than ``longest`` characters ends in "..."; what is no text is "?".
    """
    cut = text if len(text) <= longest else f"{text[: longest - 3]}..."
    return "".join("?" if unicodedata.category(c) in _UNSAFE else c for c in cut)


def first_line(text: str | None, longest: int = LONGEST) -> str:
    """Return the first line of a text that says anything, as :func:`one_line` does."""
    # A reason of many megabytes is not searched for its line ends.
    start = (text or "")[: 16 * longest].strip()
    return one_line(start.splitlines()[0], longest) if start else "no reason given"


def message_of(error: BaseException) -> str:
    """Return all lines of an error's message in one, as :func:`one_line` does."""
    return one_line(" ".join(str(error).split()), LONGEST_MESSAGE)


def reason(error: BaseException) -> str:
    """Return why something failed, in one line and without the names of temporaries."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {first_line(str(error))}"


def table(rows: Sequence[Sequence[str]], width: int = 10**6) -> str:
    """Return rows as aligned columns, the last one wrapped to ``width`` in all."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    indent = sum(widths) + 2 * len(widths)
    lines = []
    for *cells, last in rows:
        pairs = zip(cells, widths, strict=True)
        start = "".join(f"{cell:<{size}}  " for cell, size in pairs)
        wrapped = textwrap.wrap(last, max(20, width - indent)) or [""]
        lines += [start + wrapped[0], *(" " * indent + more for more in wrapped[1:])]
    return "\n".join(line.rstrip() for line in lines)

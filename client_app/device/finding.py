"""What one look at a device found: how it is, or what to do.

Who looks is beside this module: ``link`` at the server, ``local_checks`` at the device.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    check : str
        What was looked at, in one word.
    text : str
        One line: what was found, and what to do about it where it is not well.
    ok : bool
    passes : bool
        Whether something that is not well may pass without anybody touching this
        device: a network that comes later, a clock that is being set.
    """

    check: str
    text: str
    ok: bool = True
    passes: bool = False


def first_problem(findings: Iterable[Finding]) -> Finding | None:
    """Return the first that is not well, None if all are."""
    return next((each for each in findings if not each.ok), None)

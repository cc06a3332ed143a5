"""Errors whose message is for the user, and the name that was probably meant.

Only the standard library is needed here.
"""

import difflib
from collections.abc import Callable, Iterable


class SettingsError(ValueError):
    """A setting the user gave cannot be used; the message is one readable line."""


class DataError(ValueError):
    """Data cannot be used; the message names it and says what to do."""


class SourceError(ValueError):
    """There is no usable model where one was looked for; the message says why."""


def nearest(name: str, valid: Iterable[str], spell: Callable[[str], str] = str) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest valid name, or ``""``.

    Parameters
    ----------
    name : str
        What was given; upper and lower case are the same here.
    valid : iterable of str
        Names that exist.
    spell : Callable[[str], str]
        Turns the closest name into what is to be typed.
    """
    known = {each.lower(): each for each in valid}
    close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    return f"; did you mean {spell(known[close[0]])!r}?" if close else ""

"""The error of this package and the "did you mean" of its messages."""

import difflib
from collections.abc import Callable, Iterable


class DataError(ValueError):
    """Data cannot be used; the message names it and says what to do."""


def did_you_mean(
    name: str, valid: Iterable[str], spell: Callable[[str], str] = str
) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest valid name, or ``""``.

    Parameters
    ----------
    name : str
        What was given.
    valid : iterable of str
        Names that exist.
    spell : Callable[[str], str]
        Turns the closest name into what is to be typed.
    """
    close = difflib.get_close_matches(name.lower(), list(valid), n=1, cutoff=0.5)
    return f"; did you mean {spell(close[0])!r}?" if close else ""

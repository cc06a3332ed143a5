"""How far this device's clock may be from the server's.

Requests of a SuperNode are signed with the time, and the SuperLink refuses what is
dated too far off; neither says so. How far it is ``link`` finds out.
"""

AHEAD, BEHIND = 5.0, 305.0
"""Seconds that Flower lets a device be ahead and behind (a test compares)."""

_DOUBT = 1.5
"""Seconds that the answer's way and its date, in whole seconds, leave open."""


def clock_problem(offset: float, refused: bool = False) -> str:
    """Return one line for a clock that the server will not accept, else ``""``.

    Parameters
    ----------
    offset : float
        Seconds that this clock is ahead of the server's, good to about a second.
    refused : bool
        Whether the server has refused a request for its signature or its time: then a
        clock that may just be good is taken for wrong.
    """
    doubt = -_DOUBT if refused else _DOUBT
    if -BEHIND - doubt <= offset <= AHEAD + doubt:
        return ""
    return (
        f"this device's clock is {away(offset)} the server's, which accepts "
        f"{AHEAD:.0f} s ahead and {BEHIND:.0f} s behind: set the clock (timedatectl "
        "set-ntp true)"
    )


def away(offset: float) -> str:
    """Return an offset in words that ``the server's`` may follow."""
    return f"{_span(abs(offset))} {'ahead of' if offset > 0 else 'behind'}"


def _span(seconds: float) -> str:
    for name, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"

"""How far this device's clock is from the server's.

Requests of a SuperNode are signed with the time, and the SuperLink refuses what is
dated too far off; neither says so. Any answer of its web server has the server's time.
"""

import ssl
import time
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx

AHEAD, BEHIND = 5.0, 305.0
"""Seconds that Flower lets a device be ahead and behind (a test compares)."""

_DOUBT = 1.5
"""Seconds that the answer's way and its date, in whole seconds, leave open."""
_PATIENCE = 10.0
# OpenSSL's X509_V_FLAG_NO_CHECK_TIME: who has a wrong clock finds every certificate
# expired, or not yet valid. Only the date of the answer is used, and only to be told.
_NO_CHECK_TIME = 0x200000


def clock_offset(superlink: str, authority: Path) -> float | None:
    """Return how many seconds this clock is ahead of the server's.

    Parameters
    ----------
    superlink : str
        HOST:PORT.
    authority : Path
        The certificate that the SuperLink's must be signed by.

    Returns
    -------
    float or None
        Good to about a second; None if the server cannot be asked.
    """
    try:
        context = ssl.create_default_context(cafile=str(authority))
        context.verify_flags |= _NO_CHECK_TIME
        url = f"https://{superlink}/"  # 404 has a date as well
        said = httpx.head(url, verify=context, timeout=_PATIENCE).headers["Date"]
        return time.time() - parsedate_to_datetime(said).timestamp() - 0.5
    except (OSError, httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError):
        return None  # no answer, no address, no date


def clock_problem(offset: float | None) -> str:
    """Return one line for a clock that the server will not accept, else ``""``."""
    if offset is None or -BEHIND - _DOUBT <= offset <= AHEAD + _DOUBT:
        return ""
    direction = "ahead of" if offset > 0 else "behind"
    return (
        f"this device's clock is {_span(abs(offset))} {direction} the server's, which "
        f"accepts {AHEAD:.0f} s ahead and {BEHIND:.0f} s behind: set the clock "
        "(timedatectl set-ntp true)"
    )


def _span(seconds: float) -> str:
    for name, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"

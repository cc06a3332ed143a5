"""How fast this device's link is, upwards: measured with the question of ``link``.

``ActivateNode`` is answered when it has been read to its end, whatever it carries
beside what Flower knows of. The same question with and without so many bytes more
therefore tells how long these take. Nothing that a server answers is long enough to
measure the way down by: an owner can say it (``downlink-bytes-per-second``), else it is
taken to be no slower than the way up.
"""

import time
from collections.abc import Mapping

import httpx

from client_app.device.link import tls_of
from client_app.device.signed_question import PATH, signed_question
from client_app.device.unpacked_bundle import Bundle
from common.chunks import LARGEST, SECONDS, chosen_size, in_words

SIZES = (2**14, 2**16, 2**18)
"""Bytes, until they take long enough to be measured."""

ENOUGH_SECONDS = 1.0

TOO_QUICK = 0.1
"""Seconds that cannot be told from the server's own."""

TIMEOUT = 30.0


def declared(node: Mapping[str, object]) -> tuple[float, float]:
    """Return the bytes per second up and down that an owner says; 0 where none.

    What is no number is found wanting elsewhere (``client_app.device.node``).
    """
    up, down = (node.get(f"{way}link-bytes-per-second") for way in ("up", "down"))
    return _number(up), _number(down)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and value > 0 else 0.0


def described(up: float, *, measured: bool) -> str:
    """Return a line about a link and how messages are cut for it.

    Raises
    ------
    ValueError
        With one line, if what the operator says of that is no size.
    """
    speed = f"{up * 8 / 1e3:.0f} kbit/s up" if up else "too quick to tell upwards"
    how = " (measured)" if measured else " (declared)"
    return f"{speed}{how if up else ''}: messages go in {in_words(chosen_size(up))}"


def measured_uplink(bundle: Bundle) -> float:
    """Return bytes per second; 0 where the link is too quick to tell, or not there.

    Sends at most 330 kB, and on a slow link about what it carries in a few seconds.
    """
    found = 0.0
    try:
        with httpx.Client(verify=tls_of(bundle), timeout=TIMEOUT) as client:
            _seconds(client, bundle, 0)  # finds the name, and agrees upon a key
            before, taken = 0, _seconds(client, bundle, 0)
            alone = taken
            for size in SIZES:
                seconds = _seconds(client, bundle, size)
                # What one takes more than the last: a line often lets the first bytes
                # through in a burst.
                if seconds - taken > TOO_QUICK:
                    found = (size - before) / (seconds - taken)
                before, taken = size, seconds
                if taken - alone > ENOUGH_SECONDS:
                    break
    except (httpx.HTTPError, OSError, ValueError, TypeError):
        return found
    return found if found * SECONDS < LARGEST else 0.0


def _seconds(client: httpx.Client, bundle: Bundle, more: int) -> float:
    body, headers = signed_question(bundle.key, more)
    began = time.monotonic()
    client.post(f"https://{bundle.superlink}{PATH}", content=body, headers=headers)
    return time.monotonic() - began

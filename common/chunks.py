"""How a message is cut for a link: the size of a piece.

Flower sends a message as objects, one to a request: an array in pieces of up to 5 MiB,
two at a time. A piece that is not sent within 30 s is sent again from its beginning, so
that over a slow link none ever arrives. The rule here is for all who make messages: a
device for what it sends (``client_app``), the server for what it sends to the slowest
of those it asks (``server_app``). An operator's own value of Flower's variable wins.

That two go at a time is left as it is: while one waits for its answer the other is on
the line. With pieces of half the size that was an eighth quicker over 256 kbit/s and
600 ms than one at a time, and neither takes longer.

Not here: how fast a link is (``client_app.device.uplink``).
"""

import os
import sys

VARIABLE = "FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE"
"""Flower's; it is read once, when Flower is imported (1.41)."""

SECONDS = 5.0
"""For one piece alone, at most: two at a time take 10, a third of Flower's 30. A link
may be three times as slow as it was measured, and a break costs two pieces."""

LARGEST, SMALLEST = 5 * 2**20, 32 * 2**10
"""Bytes of a piece: Flower's own, and what is left where nothing helps."""


def chunk_size(bytes_per_second: float) -> int:
    """Return the bytes of a piece for a link.

    The largest power of two that the link carries within ``SECONDS``; where that is
    Flower's own size or more, Flower's own.

    Parameters
    ----------
    bytes_per_second : float
        0 where it is unknown, which is left to Flower.
    """
    most = int(bytes_per_second * SECONDS)
    if not most or most >= LARGEST:
        return LARGEST
    return max(SMALLEST, 1 << (most.bit_length() - 1))


def chosen_size(bytes_per_second: float) -> int:
    """Return the operator's word, else the size for a link.

    Raises
    ------
    ValueError
        With one line, if the operator's word is no size.
    """
    word = os.environ.get(VARIABLE)
    if word is None:
        return chunk_size(bytes_per_second)
    if not word.isdecimal() or not int(word):
        raise ValueError(
            f"{VARIABLE} = {word!r} is not allowed: bytes, a whole number above 0"
        )
    return int(word)


def cut_for(bytes_per_second: float) -> int:
    """Cut all messages of this process from now on for a link; return the size.

    Parameters
    ----------
    bytes_per_second : float
    """
    size = chosen_size(bytes_per_second)
    # A fifth of a second to import, which a device behind a good link need not spend;
    # the operator's word Flower has read itself.
    if VARIABLE not in os.environ and (
        size != LARGEST or "common.flower_internals" in sys.modules
    ):
        from common.flower_internals import cut_arrays

        cut_arrays(size)
    return size


def in_words(size: int) -> str:
    """Return what was chosen, and by whom, for a log."""
    said = f"pieces of {size // 1024} KiB"
    return f"{said} ({VARIABLE})" if VARIABLE in os.environ else said

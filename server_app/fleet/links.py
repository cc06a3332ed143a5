"""What the links of clients mean for a round: how it is cut, and how long it takes.

A client's own word, or what its device has measured, comes with its profile; what the
run's own messages show is :class:`server_app.fleet.client.Link`. Where neither is known
nothing is supposed.
"""

from collections.abc import Iterable, Sequence

from common.chunks import cut_for
from server_app.fleet.client import Client

WORK_SECONDS = 900.0
"""What a round without a deadline of its own gives devices beside their transfers."""

SPARE = 2.0
"""Such a round takes the slowest transfer for so many times as long."""


def transfer_seconds(client: Client, down: int, up: int) -> float:
    """Return what bytes down to a client and up from it take; 0 where unknown.

    By what it says of both ways; else by what was seen of both together, and before
    anything was, by its way up, which is seldom the quicker one.
    """
    told = client.profile
    if told.uplink and told.downlink:
        return down / told.downlink + up / told.uplink
    speed = client.link.speed or told.uplink
    return (down + up) / speed if speed else 0.0


def time_for(
    transfers: Sequence[tuple[Client, int, int]], round_deadline: float
) -> tuple[float, dict[str, str]]:
    """Return how long a round waits for those it asks, and whose link is too slow.

    Parameters
    ----------
    transfers : sequence of (Client, int, int)
        Who is asked, with the bytes down to it and up from it.
    round_deadline : float
        Seconds; 0 takes what the slowest link of those who are asked needs.

    Returns
    -------
    float
        Seconds.
    dict of str to str
        Clients whose link is too slow, each with one line; they are asked all the same,
        since a link is not always as it was.
    """
    slowest = max((transfer_seconds(*each) for each in transfers), default=0.0)
    deadline = round_deadline or WORK_SECONDS + SPARE * slowest
    slow = {
        client.name: line
        for client, down, up in transfers
        if (line := _too_slow(client, down, up, deadline))
    }
    return deadline, slow


def cut_for_slowest(clients: Iterable[Client]) -> tuple[int, str]:
    """Cut all messages from now on for the slowest link; return size and client.

    Everybody is sent the same objects, so they are cut for all. ``""`` where no link is
    known.
    """
    known = {
        client.name: speed
        for client in clients
        if (speed := client.profile.downlink or client.profile.uplink)
    }
    slowest = min(known, key=lambda name: known[name], default="")
    return cut_for(known.get(slowest, 0.0)), slowest


def _too_slow(client: Client, down: int, up: int, deadline: float) -> str:
    """Return in one line that a link is too slow for a round; "" if it is not."""
    seconds = transfer_seconds(client, down, up)
    if seconds <= deadline:
        return ""
    size, rate = (down + up) / 1e6, (down + up) * 8 / 1e3 / seconds
    return (
        f"{client.name} needs {seconds:.0f} s for {size:.1f} MB at {rate:.0f} kbit/s, "
        f"round-deadline is {deadline:g}"
    )

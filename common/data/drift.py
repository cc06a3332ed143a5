"""Gradual concept drift: clients hand their samples on, a little more every round.

The clients stand in a ring drawn by the seed. In round t each of them has handed the
share ``min(1, drift (t - 1))`` of its samples to the next one and has received that
share of the samples of the one before it, so its label mix moves from its own to its
neighbour's. Who has which sample depends on the seed and the round alone: every process
works it out for itself, and a resumed run meets the same samples. No sample is ever
with two clients, and one that is held out stays held out wherever it goes (the named
stress test of arXiv 2507.05685; docs/methods.md, 2, the form is our choice).
"""

import numpy as np

from common.data.splits import Indices
from common.seeding import stream


def share_moved(drift: float, server_round: int) -> float:
    """Return the share of its samples a client has handed on by a round.

    Parameters
    ----------
    drift : float
        Share handed on per round, 0 to 1.
    server_round : int
        From 1; in the first round (and before) everybody has its own samples.
    """
    return min(1.0, drift * max(0, server_round - 1))


def neighbour_before(client: int, num_clients: int, seed: int) -> int:
    """Return the client whose samples this one receives; itself if it is alone."""
    ring = stream(seed, "data", "drift").permutation(num_clients)
    [place] = np.flatnonzero(ring == client)
    return int(ring[place - 1])


def handed_on(
    own: Indices, neighbours: Indices, share: float, seed: int, client: int, giver: int
) -> Indices:
    """Return the rows a client has once a share of all rows has been handed on.

    Parameters
    ----------
    own, neighbours : ndarray of int64
        Rows the client and its giver started with.
    share : float
        0 to 1: how much of either has moved.
    client, giver : int
        Their partition ids, which name the order their rows leave in.

    Returns
    -------
    ndarray of int64
        Ascending.
    """

    def leaving_first(rows: Indices, owner: int) -> tuple[Indices, Indices]:
        order = stream(seed, "data", "drift", owner).permutation(rows)
        gone = round(share * len(rows))
        return order[:gone], order[gone:]

    _, kept = leaving_first(own, client)
    received, _ = leaving_first(neighbours, giver)
    return np.sort(np.concatenate([kept, received]))

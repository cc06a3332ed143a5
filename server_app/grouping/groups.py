"""The merge test: from one group per client to groups that differ beyond doubt.

::

    groups = one per client
    while there is more than one:
        pair = argmin excess over the pairs with a common class
        if excess(pair) <= 0: merge it          (means weighted by n, counts add)
        elif some pair has no common class: merge that one
        elif groups > most: merge pair
        else stop

The excess is the score less tau, or less what groups chosen by closeness may differ by
where that is more (``scores``). At 2 a mean of one's own begins to pay: the squared
bias of the common one is then what the variance of two means of half the samples costs
(Akaike). Experts that pool part of their updates pay earlier, and tau = 1.65 is where
real clients of one kind still stay together (docs/methods.md, 7). No evidence is no
difference. Under ``coverage`` of the pairs of
clients with a common class there is nothing to stand on, and all are one group.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server_app.grouping.scores import (
    Array,
    ClassMeans,
    chosen_apart,
    pair_scores,
    scores_to,
)


@dataclass(frozen=True, kw_only=True)
class MergeTest:
    """When groups are one.

    Attributes
    ----------
    most : int
        Groups there may be.
    tau : float
        Score up to which two groups are one.
    z : float
        Standard deviations of its sampling error that a ratio is given.
    coverage : float
        Share of the pairs of clients that must have a common class.
    """

    most: int
    tau: float = 1.65
    z: float = 2.0
    coverage: float = 0.25

    def excess(
        self, score: Array, freedom: Array, sizes: Array | int, others: Array | int
    ) -> Array:
        """Return by how much scores are above what two parts of one group may have."""
        allowed = np.maximum(self.tau, chosen_apart(sizes, others, freedom))
        excess: Array = score - allowed
        return excess


def groups_of(clients: ClassMeans, test: MergeTest) -> NDArray[np.int64]:
    """Return the group of each client, shape (C,).

    Groups are numbered by their first client. In what order the clients are given
    decides nothing else. About one second for 1 000 clients of 26 classes.

    Parameters
    ----------
    clients : ClassMeans
        Whitened.
    """
    count = len(clients)
    if count == 0:
        return np.empty(0, dtype=np.int64)
    # Sums depend on their order in the last bit, and pairs without evidence are taken
    # as they come: both follow what the clients say and not who said it first.
    told = zip(clients.counts, clients.means, strict=True)
    keys = [(n.tobytes(), mu.tobytes()) for n, mu in told]
    order = np.array(sorted(range(count), key=keys.__getitem__), dtype=np.int64)
    groups = _merged(clients[order], test)
    labels = np.empty(count, dtype=np.int64)
    firsts = sorted(groups, key=lambda members: order[members].min())
    for number, members in enumerate(firsts):
        labels[order[members]] = number
    return labels


def nearest(
    client: ClassMeans, groups: ClassMeans, test: MergeTest
) -> tuple[int, float]:
    """Return the group that a client belongs to most, and the score.

    Parameters
    ----------
    client : ClassMeans
        Of one client, whitened as the groups are.

    Returns
    -------
    group : int
        One of those with a common class, else the one of most samples.
    score : float
        Minus infinity where there is no evidence.
    """
    scores, _ = scores_to(client, groups, test.z)
    if np.isinf(scores).all():
        return int(groups.counts.sum(1).argmax()), -np.inf
    return int(scores.argmin()), float(scores.min())


def _merged(clients: ClassMeans, test: MergeTest) -> list[list[int]]:
    members = [[row] for row in range(len(clients))]
    scores, freedom = pair_scores(clients, test.z)
    if not _covered(scores, test.coverage):
        return [[row for each in members for row in each]]
    state = _State(clients, test.excess(scores, freedom, 1, 1), test)
    while len(state.alive) > 1:
        first, second, excess = state.closest()
        if excess > 0:
            if (apart := state.without_evidence()) is not None:
                first, second = apart
            elif len(state.alive) <= test.most:
                break
        members[first] += members[second]
        state.merge(first, second)
    return [members[row] for row in state.alive]


def _covered(scores: Array, coverage: float) -> bool:
    count = len(scores)
    pairs = count * (count - 1)
    found = np.isfinite(scores).sum() - np.isfinite(scores.diagonal()).sum()
    return count < 2 or bool(found >= coverage * pairs)


class _State:
    """Groups under way, with the closest other of each; rows are those of the clients.

    A row that was merged into another stays, infinitely far from all.
    """

    def __init__(self, clients: ClassMeans, excess: Array, test: MergeTest) -> None:
        self.alive = list(range(len(clients)))
        self._test = test
        self._means, self._counts = clients.means.copy(), clients.counts.copy()
        self._sizes = np.ones(len(clients))
        self._excess = excess
        np.fill_diagonal(excess, np.inf)
        self._closest = excess.argmin(1)
        self._least = excess.min(1)

    def closest(self) -> tuple[int, int, float]:
        """Return the pair of the least excess; infinite if no pair has a class."""
        first = int(self._least.argmin())
        pair = sorted((first, int(self._closest[first])))
        return pair[0], pair[1], float(self._least[first])

    def without_evidence(self) -> tuple[int, int] | None:
        """Return the first pair without a common class; None if there is none."""
        rows = np.array(self.alive)
        apart = np.triu(np.isinf(self._excess[np.ix_(rows, rows)]), 1)
        if not apart.any():
            return None
        found = np.unravel_index(int(apart.argmax()), apart.shape)
        return int(rows[found[0]]), int(rows[found[1]])

    def merge(self, first: int, second: int) -> None:
        """Add the second group to the first."""
        n, m = self._counts[first], self._counts[second]
        both = n + m
        share = (m / np.where(both > 0, both, 1))[:, None]
        self._means[first] += share * (self._means[second] - self._means[first])
        self._counts[first], self._counts[second] = both, 0
        self._sizes[first] += self._sizes[second]
        self.alive.remove(second)
        self._excess[second] = self._excess[:, second] = np.inf
        self._least[second] = np.inf
        self._compare(first, second)

    def _compare(self, first: int, second: int) -> None:
        """Compare a group that has just taken in another with all."""
        everyone = ClassMeans(means=self._means, counts=self._counts)
        one, sizes = everyone[slice(first, first + 1)], self._sizes
        # Those merged into others have no samples any more, and are far from all.
        scores, freedom = scores_to(one, everyone, self._test.z)
        new = self._test.excess(scores, freedom, sizes[first], sizes)
        new[first] = np.inf
        self._excess[first] = self._excess[:, first] = new
        closer = new < self._least
        self._least[closer], self._closest[closer] = new[closer], first
        lost = np.isin(self._closest, (first, second)) & ~closer
        lost &= np.isfinite(self._least)
        lost[first] = True
        rows = np.flatnonzero(lost)
        self._closest[rows] = self._excess[rows].argmin(1)
        self._least[rows] = self._excess[rows, self._closest[rows]]

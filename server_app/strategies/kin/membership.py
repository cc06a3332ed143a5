"""Who belongs to which group, by what every client last said of its samples.

The first clients that say anything are grouped by the merge test; who comes later joins
one of the groups or founds another (``server_app.grouping``). A client that says
something new is taken out and joins again. Nothing here knows experts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.statistic_noise import noise_covariance
from common.wire import QueryReply
from server_app.grouping import ClassMeans, MergeTest, groups_of, nearest, whitener

FIRST = 0
"""The group of clients that have said nothing of their samples."""


class Membership:
    """The groups of a run.

    Parameters
    ----------
    test : MergeTest
    classes, projections : int
        K and q.
    noise : float
        On the means that clients say, in standard deviations of a sample.

    Attributes
    ----------
    groups : ndarray of int, shape (C,)
        Group of each known client, from 0.
    count : int
        Groups there are.
    """

    def __init__(
        self, test: MergeTest, *, classes: int, projections: int, noise: float
    ) -> None:
        self._test = test
        self._noise = noise
        self._means = np.zeros((0, classes, projections))
        self._counts = np.zeros((0, classes))
        self._blur = np.zeros(0)  # variance of a client's noise where it is widest
        self._whitener = np.zeros((0, projections))  # none before anybody has spoken
        self.groups = np.zeros(0, dtype=np.int64)
        self.count = 1

    def take_in(self, profiles: Sequence[QueryReply]) -> list[str]:
        """Give every client a group; return what there is to tell of it.

        Parameters
        ----------
        profiles : sequence of QueryReply, length C
            Of all known clients, by row.
        """
        new = len(profiles) - len(self.groups)
        self._means = np.pad(self._means, ((0, new), (0, 0), (0, 0)))
        self._counts = np.pad(self._counts, ((0, new), (0, 0)))
        self._blur = np.pad(self._blur, (0, new))
        self.groups = np.pad(self.groups, (0, new), constant_values=FIRST)
        changed = []
        for row, profile in enumerate(profiles):
            if not profile.statistic_counts:
                continue
            means, counts = self._said(profile)
            same = np.array_equal(counts, self._counts[row])
            if not same or not np.array_equal(means, self._means[row]):
                self._means[row], self._counts[row] = means, counts
                changed.append(row)
        if not changed:
            return []
        if not len(self._whitener):
            return self._group(profiles)
        return [note for row in changed if (note := self._join(row, profiles))]

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs to go on bit for bit."""
        return {
            "means": self._means,
            "counts": self._counts,
            "blur": self._blur,
            "whitener": self._whitener,
            "groups": self.groups,
            "count": self.count,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        self._means, self._counts = state["means"], state["counts"]
        self._blur, self._whitener = state["blur"], state["whitener"]
        self.groups, self.count = state["groups"], int(state["count"])

    def _said(
        self, profile: QueryReply
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return means (K, q), and counts (K,)."""
        means = np.array(profile.statistic_means).reshape(self._means.shape[1:])
        return means, np.array(profile.statistic_counts, dtype=np.float64)

    def _group(self, profiles: Sequence[QueryReply]) -> list[str]:
        spoken = [row for row, p in enumerate(profiles) if p.statistic_counts]
        covariances, freedom = [], []
        for row in spoken:
            covariances.append(self._freedom(row) * self._covariance(profiles[row]))
            freedom.append(self._freedom(row))
        self._whitener = whitener(covariances, freedom)
        for row in spoken:
            self._blur[row] = self._widest_noise(row, profiles[row])
        rows = np.array(spoken)
        self.groups[rows] = groups_of(self._white()[rows], self._test)
        self.count = int(self.groups.max()) + 1
        names: list[list[str]] = [[] for _ in range(self.count)]
        for profile, group in zip(profiles, self.groups.tolist(), strict=True):
            names[group].append(profile.client)
        return [f"group {n}: {', '.join(each)}" for n, each in enumerate(names)]

    def _covariance(self, profile: QueryReply) -> NDArray[np.float64]:
        size = self._means.shape[2]
        upper = np.zeros((size, size))
        upper[np.triu_indices(size)] = profile.statistic_covariance
        return upper + np.triu(upper, 1).T

    def _freedom(self, row: int) -> float:
        counts = self._counts[row]
        return max(0.0, counts.sum() - np.count_nonzero(counts))

    def _widest_noise(self, row: int, profile: QueryReply) -> float:
        """Return the variance of its noise, in whitened features, where it is widest.

        There its means are least sure: counted by less, noise alone would split.
        """
        shape = noise_covariance(self._covariance(profile), self._freedom(row))
        white = self._whitener.T @ shape @ self._whitener
        return self._noise**2 * float(np.linalg.eigvalsh(white)[-1])

    def _white(self) -> ClassMeans:
        """Return what all have said, whitened, with counts as noise lets them count."""
        # Noise of variance v beside 1/n is worth what n / (1 + n v) samples are.
        worth = self._counts / (1 + self._counts * self._blur[:, None])
        return ClassMeans(means=self._means, counts=worth).whitened(self._whitener)

    def _join(self, row: int, profiles: Sequence[QueryReply]) -> str:
        """Move a client to the group it belongs to, or to one of its own."""
        self._blur[row] = self._widest_noise(row, profiles[row])
        white, others = self._white(), np.arange(len(self.groups)) != row
        groups = white[others].together(self.groups[others], self.count)
        group, score = nearest(white[np.array([row])], groups, self._test)
        name, before = profiles[row].client, int(self.groups[row])
        if score > self._test.tau:
            inhabited = set(self.groups[others].tolist())
            empty = [g for g in range(self._test.most) if g not in inhabited]
            # The one it is in already, if nobody else is.
            group = min(empty, key=lambda g: (g != before, g), default=group)
            self.count = max(self.count, group + 1)
        self.groups[row] = group
        if group == before:
            return ""
        return f"{name} is of group {group}, by what it says of its samples"

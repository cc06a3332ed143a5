"""How much one reply may count for: what is far above the others is cut down.

Both bounds go by medians, which fewer than half of those who report cannot move far.

- *Norms.* Replies are merged as they land, when the median of their own round is not
  known yet, and to keep them all until then takes memory for all of them. So a change
  is held against the median of the last rounds, a few numbers. A round before which
  nothing is known is judged when it is over (:meth:`NormBounds.beyond`). A kind of part
  that comes later, a gate after a warm-up, is not held against others in its first
  round: honest ones may move a hundred times as far.
- *Weights.* Samples are stated before a round, so the median of its participants is
  known when it is planned.

What is refused outright, and who is told, is in ``server_app.rounds.intake``.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from common.parts import expert_id

WINDOW = 3
"""Rounds whose medians are remembered."""

ALL = ""
"""The kind of all parts."""

Changes = Mapping[str, float]
"""RMS change of each part of one reply, that is its norm over the root of its size."""


class NormBounds:
    """Bounds on the RMS change of a part, in medians.

    A part is held against the parts of its kind, experts against experts since each
    of them has few holders, or against all parts if these change more: a gate that has
    nothing to choose from hardly moves, and would make another's look large. A client
    has one say in a median whatever it holds: the median of its own.

    Parameters
    ----------
    factor : float
        Medians above which a change is cut down to one median; 0 for never.

    Attributes
    ----------
    factor : float
    recent : dict of str to list of float
        The medians of the last rounds, by kind and, under ``ALL``, of all parts; the
        oldest first.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.recent: dict[str, list[float]] = {}

    def cuts(self, changes: Changes) -> dict[str, float]:
        """Return what each part that is too large is to be multiplied with, below 1.

        What is above the bound is cut to the median, not to the bound: whoever is that
        far off has no claim to count for more than others do.
        """
        # The largest: in the first rounds and in a warm-up changes grow.
        usual = {kind: max(last) for kind, last in self.recent.items()}
        return self._above(changes, usual)

    def beyond(self, replies: Mapping[str, Changes]) -> dict[str, float]:
        """Return who was above the bound in a round before which nothing was known.

        Parameters
        ----------
        replies : mapping of str to mapping
            By name of the client.

        Returns
        -------
        dict of str to float
            How many medians of this round a client's largest change was.
        """
        if self.recent:
            return {}
        medians = _medians(replies.values())
        found = {
            name: self._above(changes, medians) for name, changes in replies.items()
        }
        return {name: 1 / min(cut.values()) for name, cut in found.items() if cut}

    def learn(self, replies: Iterable[Changes]) -> None:
        """Take in a round: changes as they came, of parts that were of use."""
        if not self.factor:
            return
        for kind, value in _medians(replies).items():
            self.recent[kind] = [*self.recent.get(kind, ()), value][-WINDOW:]

    def _above(
        self, changes: Changes, medians: Mapping[str, float]
    ) -> dict[str, float]:
        if not (self.factor and medians):
            return {}
        usual = {
            part: max(medians[_kind(part)], medians[ALL])
            for part in changes
            if _kind(part) in medians
        }
        return {
            part: usual[part] / change
            for part, change in changes.items()
            if part in usual and change > self.factor * usual[part]
        }

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs to go on bit for bit."""
        return {"recent": self.recent}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        self.recent = {kind: [*last] for kind, last in state["recent"].items()}


def _kind(part: str) -> str:
    return part if expert_id(part) is None else "expert"


def _medians(replies: Iterable[Changes]) -> dict[str, float]:
    """Return the median over clients of each one's own, of parts that moved."""
    values: dict[str, list[float]] = {}
    for changes in replies:
        own: dict[str, list[float]] = {}
        for part, change in changes.items():
            if change > 0:
                own.setdefault(_kind(part), []).append(change)
                own.setdefault(ALL, []).append(change)
        for kind, moved in own.items():
            values.setdefault(kind, []).append(float(np.median(moved)))
    return {kind: lower_median(found) for kind, found in values.items()}


def lower_median(values: ArrayLike) -> float:
    """Return the median, of an even number of values the lower of the middle two.

    Of two it is the smaller: one of two that is far too large decides nothing.
    """
    return float(np.quantile(np.asarray(values, dtype=np.float64), 0.5, method="lower"))


def most_samples(stated: ArrayLike, factor: float) -> int | None:
    """Return the most samples that a participant of a round counts for; None for any.

    Parameters
    ----------
    stated : array_like of int, shape (P,)
        What the participants said they have before the round.
    factor : float
        In medians of these; 0 for no bound.
    """
    if not factor or not np.size(stated):
        return None
    return max(1, int(factor * lower_median(stated)))

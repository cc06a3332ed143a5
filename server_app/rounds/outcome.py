"""What comes of a round: whether it may be merged, and what the strategy makes of it.

Each reply is merged into the strategy's sums as it lands. When the round is over the
sums move the model and the strategy learns, or they are dropped. Which reply counts is
decided in ``server_app.rounds.intake``, whether the model has collapsed all the same in
``server_app.rounds.best``.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.wire import WireError
from server_app.contract import Algorithm, Reply, broken
from server_app.merging.bounds import Changes
from server_app.rounds.private_round import PrivateRound
from server_app.run_error import RunError

logger = logging.getLogger("flwr.expertfleet")


def too_few(replies: int, needed: int, rejected: Iterable[str]) -> str:
    """Return how many replies a round has of those it needs, and why no more count.

    Parameters
    ----------
    replies, needed : int
    rejected : iterable of str
        Why replies do not count.
    """
    reasons = sorted(set(rejected)) or ["no reply in time"]
    return f"{replies} of at least {needed} replies ({'; '.join(reasons[:3])})"


def mostly_refused(refused: int, accepted: int) -> str:
    """Return how many replies were refused if most were, "" else: few must not decide.

    Parameters
    ----------
    refused : int
        Replies that could be read and break a rule or a bound.
    accepted : int
    """
    if refused <= accepted:
        return ""
    return f"{refused} of {refused + accepted} replies were refused"


class Outcome:
    """What has come of one attempt at a round.

    Parameters
    ----------
    strategy : Algorithm
        Whose sums are merged into.

    Attributes
    ----------
    replies : list of Reply
        Merged so far, without deltas.
    merged : bool
        Whether the round changed anything; False before it is finished.
    """

    def __init__(self, strategy: Algorithm) -> None:
        self.replies: list[Reply] = []
        self.merged = False
        self._strategy = strategy
        self._changes: dict[str, Changes] = {}  # of each reply, by client
        self._failures: list[Exception] = []

    def go_on(self, earlier: "Outcome") -> None:
        """Take over what has been merged in an attempt that was not dropped."""
        self.replies, self._changes = earlier.replies, earlier._changes

    def merge(self, reply: Reply, changes: Changes, ordered: Mapping[str, int]) -> None:
        """Merge an accepted reply.

        Parameters
        ----------
        reply : Reply
        changes : mapping of str to float
            The changes that others are held against.
        ordered : mapping of str to int
            How often each part had moved when it was ordered.

        Raises
        ------
        WireError
            If that fails, or the strategy refuses it: nothing of it is merged then.
        """
        try:
            with self._strategy.sums.whole(ordered):
                self._strategy.merge(reply)
        except WireError:
            raise
        except Exception as error:
            if not self._failures:
                logger.warning("a reply cannot be merged", exc_info=error)
            self._failures.append(error)
            raise WireError(
                f"cannot be merged: {type(error).__name__}: {error}"
            ) from None
        self.replies.append(replace(reply, deltas={}))
        self._changes[reply.report.client] = changes

    def far_off(self) -> str:
        """Return whose changes are far above the others', which nobody knew before.

        "" if nobody's are, or if it was known: then they were cut down as they came.
        """
        found = self._strategy.bounds.beyond(self._changes)
        far = [f"{name} {times:.3g}" for name, times in sorted(found.items())]
        if not far:
            return ""
        return (
            "nothing was known before of how far parts change, and "
            f"{', '.join(far[:5])} times the median is too far"
        )

    def finish(
        self,
        server_round: int,
        awaited: Mapping[str, int],
        private: PrivateRound | None = None,
    ) -> list[str]:
        """Move the model and let the strategy learn; return notes for the record.

        Parameters
        ----------
        server_round : int
        awaited : mapping of str to int
            How many clients hold each part and are still at work.
        private : PrivateRound or None
            What of it may be told; it is paid for before anything moves.

        Raises
        ------
        RunError
            If the strategy made NaN of a part of its model, or no vector as before.
        """
        strategy = self._strategy
        before = dict(strategy.model)
        self.replies.sort(key=lambda reply: reply.client)
        lessons: Sequence[Reply] = self.replies
        used = self.samples()
        if private is not None:
            lessons, used = private.lessons(lessons), private.used(used)
            private.charge(server_round)
        strategy.usage = strategy.usage + used
        notes = self._apply(awaited)
        if wrong := broken(strategy, before):
            raise RunError(f"round {server_round}: strategy {strategy.name!r}: {wrong}")
        strategy.average.add(strategy.model)
        strategy.learn(lessons)
        strategy.bounds.learn(self._changes.values())
        # A strategy may train on the server alone.
        self.merged = bool(self.replies) or not all(
            np.array_equal(vector, before.get(part, ()))
            for part, vector in strategy.model.items()
        )
        if not self.merged:
            notes.append("nobody was asked, and the model is what it was")
        return notes

    def _apply(self, awaited: Mapping[str, int]) -> list[str]:
        """Apply the sums to the model; return what of them was not, in a note."""
        sums = self._strategy.sums
        least = self._strategy.settings.assignment.min_holders
        sums.awaited = awaited
        few = sums.drop_experts(least)
        self._strategy.finish()
        if not few:
            return []
        experts = ", ".join(map(str, few))
        return [
            f"not merged for lack of holders (min-holders = {least}): experts {experts}"
        ]

    def drop(self, *, enough: bool) -> None:
        """Drop everything that was merged so far.

        Parameters
        ----------
        enough : bool
            Whether there were replies enough: what their changes were is known then
            from now on.

        Raises
        ------
        Exception
            What merging failed with, if it failed for several clients and all. One
            reply that cannot be merged is its sender's loss; where none of several
            can, it is the strategy that is wrong.
        """
        if len(self._failures) > 1 and not self.replies:
            raise self._failures[0]
        strategy = self._strategy
        keeps = strategy.settings.rounds.is_buffered and not self.far_off()
        if enough:
            strategy.bounds.learn(self._changes.values())
        if not keeps:  # buffers have replies of earlier rounds as well
            strategy.discard()
        self.replies.clear()

    def load(self) -> NDArray[np.int64]:
        """Return how many clients held each expert and replied, shape (E,)."""
        load = np.zeros(self._strategy.spec.num_units, dtype=np.int64)
        for reply in self.replies:
            load[reply.experts] += 1
        return load

    def samples(self) -> NDArray[np.int64]:
        """Return the samples they routed to each expert, shape (E,)."""
        samples = np.zeros(self._strategy.spec.num_units, dtype=np.int64)
        for reply in self.replies:
            samples[reply.experts] += reply.samples
        return samples


def learnt(strategy: Algorithm) -> dict[str, Any]:
    """Return what rounds have taught, and nothing of clients or of the run."""
    return {
        "model": dict(strategy.model),
        "strategy": strategy.state(),
        "average": strategy.average.state(),
        "bounds": strategy.bounds.state(),
    }


def restore_learnt(strategy: Algorithm, state: Mapping[str, Any]) -> None:
    """Restore what :func:`learnt` returned, and drop the sums: they are of later."""
    strategy.model = dict(state["model"])
    strategy.load_state(state["strategy"])
    strategy.average.load_state(state["average"])
    strategy.bounds.load_state(state["bounds"])
    strategy.sums.clear()

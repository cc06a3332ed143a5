"""Sums that a reply can come late to: a part has a version, and a buffer.

docs/methods.md, 8. The version of a part is the number of times it has moved. A delta
that was computed tau versions ago is added as s(tau) delta, s(tau) = (1 + tau)^-1/2,
with the weight it has anyway: what is stale moves a part less, and does not make others
move it more (FedBuff, Nguyen et al., AISTATS 2022; s is FedAsync's, Xie et al., 2019,
with exponent 1/2).

A part moves at the end of a round, if it is due: a share of those who hold it have
replied, or its buffer has waited for as many rounds as it takes for all to reply at
that share. Until then its sums stay.

How the deltas of one part are merged is up to the rule (``merging.means``,
``merging.robust``); which replies come at all, to ``server_app.rounds``.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import numpy as np

from server_app.merging.exact_sums import Vector
from server_app.merging.means import NONE, Coordinates, PartMeans


def staleness_scale(tau: int) -> float:
    """Return s(tau) = (1 + tau)^-1/2 of a delta that is tau versions old."""
    return float((1 + tau) ** -0.5)


def share_of(share: float, count: int) -> int:
    """Return a share of some clients, rounded up: ceil(share count)."""
    # What is a whole number must not become one more by a computer's rounding.
    return ceil(round(share * count, 9))


class Buffer:
    """What has come of one part since it moved last.

    Parameters
    ----------
    sums : PartMeans
        Of this part alone.

    Attributes
    ----------
    replies : int
        Of clients that held it, those included whose delta has no weight.
    waited : int
        Rounds that have ended without it.
    """

    def __init__(self, sums: PartMeans) -> None:
        self.sums = sums
        self.replies = self.waited = 0

    def is_due(self, share: float, awaited: int) -> bool:
        """Whether the part moves now.

        Parameters
        ----------
        share : float
            Of those who hold it, that have to have replied; 0 waits for nobody.
        awaited : int
            How many hold it and are still at work.
        """
        if not share:
            return True
        needed = share_of(share, self.replies + awaited)
        return self.replies >= needed or self.waited >= ceil(1 / share)


@dataclass
class _Reply:
    """The reply that is being added: its parts, each a step that may be undone."""

    stack: ExitStack
    ordered: Mapping[str, int]
    parts: set[str] = field(default_factory=set)


class Buffers(PartMeans):
    """A buffer for each part, applied when it is due.

    Parameters
    ----------
    rule : Callable[[], PartMeans]
        Makes empty sums of the rule that merges.
    share : float
        See :meth:`Buffer.is_due`.
    """

    def __init__(self, rule: Callable[[], PartMeans], share: float = 0.0) -> None:
        super().__init__()
        self._rule, self._share = rule, share
        self._buffers: dict[str, Buffer] = {}
        self._reply: _Reply | None = None

    @contextmanager
    def whole(self, ordered: Mapping[str, int] = NONE) -> Iterator[None]:
        """Keep all that is added within as one reply's, or none of it.

        Parameters
        ----------
        ordered : mapping of str to int
            What ``moves`` was when the reply was ordered.
        """
        with ExitStack() as stack:
            self._reply = reply = _Reply(stack, ordered)
            try:
                yield
            finally:
                self._reply = None
        for part in reply.parts:
            self._buffers[part].replies += 1

    def add(
        self, part: str, vector: Vector, weight: float, at: Coordinates | None = None
    ) -> None:
        """Add s(tau) times a delta to the part's sums; see :meth:`PartMeans.add`."""
        if self._reply is None:
            with self.whole(self.moves):
                return self.add(part, vector, weight, at)
        buffer = self._buffers.setdefault(part, Buffer(self._rule()))
        if part not in self._reply.parts:
            self._reply.parts.add(part)
            self._reply.stack.enter_context(buffer.sums.whole())
        if tau := self.moves.get(part, 0) - self._reply.ordered.get(part, 0):
            vector = vector * np.float32(staleness_scale(tau))
        buffer.sums.add(part, vector, weight, at)
        return None

    def drop_experts(self, fewer_than: int) -> list[int]:
        """Drop what came of experts that are due, of too few holders; return which."""
        return sorted(
            expert
            for part, buffer in self._buffers.items()
            if buffer.is_due(self._share, self.awaited.get(part, 0))
            for expert in buffer.sums.drop_experts(fewer_than)
        )

    def apply(self, model: dict[str, Vector]) -> None:
        """Move the parts that are due; what the others have stays."""
        for part, buffer in [*self._buffers.items()]:
            if not buffer.replies:  # what there was has been taken back
                del self._buffers[part]
            elif buffer.is_due(self._share, self.awaited.get(part, 0)):
                del self._buffers[part]
                before = model[part]
                buffer.sums.apply(model)
                if model[part] is not before:
                    self.moves[part] = self.moves.get(part, 0) + 1
            else:
                buffer.waited += 1

    def clear(self) -> None:
        """Drop what was added; versions stay."""
        self._buffers.clear()

    def state(self) -> dict[str, Any]:
        """Return the buffers; of versions only orders know, and a resumed run has none.

        Returns
        -------
        dict
            Of arrays, numbers and texts.
        """
        return {
            part: {
                "replies": buffer.replies,
                "waited": buffer.waited,
                "sums": buffer.sums.state(),
            }
            for part, buffer in self._buffers.items()
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        self._buffers = {}
        for part, kept in state.items():
            buffer = self._buffers[part] = Buffer(self._rule())
            buffer.replies, buffer.waited = kept["replies"], kept["waited"]
            buffer.sums.load_state(kept["sums"])

"""What a quantised upload leaves out is added to the next one (error feedback).

The server says in its order which of the client's uploads it merged last, and what that
one left out is what is added: a round that is repeated, replayed after a crash of the
server, or whose reply was lost adds what it should. A residual covers the parts of its
own upload only; what is left over of an expert that the client does not train the next
time is dropped. That bounds the memory by what the client holds anyway, and costs one
rounding error of a code that is right on average.
"""

from collections.abc import Mapping

import numpy as np
from flwr.app import Array
from safetensors import SafetensorError
from safetensors.numpy import load, save

from client_app.store import Store
from common.moe.parts import Vector
from common.wire import Packing, pack, unpack

KEPT = 4
"""Rounds kept: enough to go back to an older checkpoint of the server."""

_START, _END = "residual-", ".safetensors"


class Residuals:
    """Under ``residual-<round>.safetensors``.

    Parameters
    ----------
    store : Store
    kept : int
        Rounds kept, at least 2: the newest one and the one merged last.
    """

    def __init__(self, store: Store, *, kept: int = KEPT) -> None:
        self._store = store
        self._kept = kept

    def load(self, server_round: int) -> dict[str, Vector]:
        """Return what the upload of this round left out; nothing if it is not there."""
        data = self._store.read(f"{_START}{server_round}{_END}")
        try:
            return {} if data is None else load(data)
        except SafetensorError:  # damaged: as if it had never been there
            return {}

    def save(
        self, server_round: int, left: Mapping[str, Vector], merged_round: int = 0
    ) -> None:
        """Keep what this round's upload left out; drop rounds that are too old.

        The one merged last stays: should this upload be lost, the next one needs it.
        Later ones stay: either the server has gone back and will overwrite them, or
        this is a late message of a run that has been resumed since.
        """
        self._store.write(f"{_START}{server_round}{_END}", save(dict(left)))
        names = self._store.names(_START)
        rounds = sorted(int(n.removeprefix(_START).removesuffix(_END)) for n in names)
        older = [r for r in rounds if r < server_round and r != merged_round]
        for old in older[: max(0, len(older) - (self._kept - 2))]:
            self._store.remove(f"{_START}{old}{_END}")


def pack_with_feedback(
    deltas: Mapping[str, Vector],
    packing: Packing,
    *,
    residuals: Residuals,
    server_round: int,
    merged_round: int,
    rng: np.random.Generator,
) -> dict[str, Array]:
    """Pack deltas with what an earlier upload left out; keep what this one leaves out.

    Parameters
    ----------
    deltas : mapping of str to ndarray of float32
        What training changed, part by part.
    merged_round : int
        The round of the client's last upload that was merged, 0 if none was.
    rng : Generator
        Of the stochastic rounding.
    """
    before = residuals.load(merged_round) if merged_round else {}
    wanted = {
        name: delta + before[name] if name in before else delta
        for name, delta in deltas.items()
    }
    arrays = pack(wanted, packing, rng)
    if not all(np.isfinite(vector).all() for vector in wanted.values()):
        return arrays  # the server will refuse it
    sent = unpack(arrays, packing)
    left = {name: wanted[name] - sent[name] for name in wanted}
    residuals.save(server_round, left, merged_round)
    return arrays

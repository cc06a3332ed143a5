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
from safetensors.numpy import load, save

from client_app.clipping import pack_clipped
from client_app.kept.store import Store
from common.parts import Vector
from common.wire import Packing, pack, unpack

_START, _END = "residual-", ".safetensors"


class Residuals:
    """Under ``residual-<round>.safetensors``.

    Parameters
    ----------
    store : Store
        Of one client in one run.
    kept : int
        Rounds kept, at least 2: the newest one and the one merged last.
    """

    def __init__(self, store: Store, *, kept: int) -> None:
        self._store = store
        self._kept = kept

    def pack(
        self,
        deltas: Mapping[str, Vector],
        packing: Packing,
        *,
        server_round: int,
        merged_round: int,
        rng: np.random.Generator,
        clip: float | None = None,
    ) -> dict[str, Array]:
        """Pack deltas with what an earlier upload left out; keep what this one does.

        Parameters
        ----------
        deltas : mapping of str to ndarray of float32
            What training changed, part by part.
        merged_round : int
            The round of the client's last upload that was merged, 0 if none was.
        rng : Generator
            Of the stochastic rounding.
        clip : float or None
            Largest norm of all that is sent, as it is read. What clipping takes away is
            lost, and not left over: it would only grow.
        """
        sizes = {name: delta.size for name, delta in deltas.items()}
        before = self.load(merged_round, sizes) if merged_round else {}
        wanted = {
            name: delta + before[name] if name in before else delta
            for name, delta in deltas.items()
        }
        if clip is None:
            arrays = pack(wanted, packing, rng)
        else:
            wanted, arrays = pack_clipped(wanted, packing, rng, clip)
        if all(np.isfinite(vector).all() for vector in wanted.values()):
            sent = unpack(arrays, packing)
            left = {name: wanted[name] - sent[name] for name in wanted}
            self.save(server_round, left, merged_round)
        return arrays  # which the server refuses if they are not finite

    def load(self, server_round: int, sizes: Mapping[str, int]) -> dict[str, Vector]:
        """Return what the upload of this round left out; nothing if it is not there.

        Parameters
        ----------
        sizes : mapping of str to int
            Values of every part that is asked for; a residual that does not fit is
            damaged, and as if it had never been there.
        """
        name = _name(server_round)
        data = self._store.read(name)
        if data is None:
            self._store.warn(f"{name} is not here: what it held is lost")
            return {}
        try:
            left: dict[str, Vector] = load(data)
            wanted = {part: vector for part, vector in left.items() if part in sizes}
            for part, vector in wanted.items():
                if vector.dtype != np.float32 or vector.shape != (sizes[part],):
                    raise ValueError(f"{part} is {vector.dtype}{vector.shape}")
            if all(np.isfinite(vector).all() for vector in wanted.values()):
                return wanted
        except Exception:  # noqa: S110 # of damaged bytes, more than SafetensorError
            pass  # told below
        self._store.warn(f"{name} is damaged and passed over")
        return {}

    def save(
        self, server_round: int, left: Mapping[str, Vector], merged_round: int = 0
    ) -> None:
        """Keep what this round's upload left out; drop rounds that are too old.

        The one merged last stays: should this upload be lost, the next one needs it.
        Later ones stay: either the server has gone back and will overwrite them, or
        this is a late message of a run that has been resumed since.
        """
        if not self._store.write(_name(server_round), save(dict(left))):
            return
        rounds = self._store.rounds(_START, _END)
        older = [r for r in rounds if r < server_round and r != merged_round]
        for old in older[: max(0, len(older) - (self._kept - 2))]:
            self._store.remove(_name(old))


def _name(server_round: int) -> str:
    return f"{_START}{server_round}{_END}"

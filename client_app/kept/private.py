"""Where what a client keeps to itself survives between rounds: its gate, its model.

Each is one vector, kept under the round that produced it. Loading asks for the newest
one *before* a round, so that a round repeated after a crash of the server starts from
what it started from the first time. Nothing in here is ever part of a message; where
the bytes are kept is ``client_app.kept.store``.
"""

from collections.abc import Mapping
from io import BytesIO

import numpy as np

from client_app.kept.store import Store
from common.parts import GATE, Vector

MODEL = "model"
"""What the method of a round keeps (``client_app.local``): parts of a model, or all."""
NAMES = (GATE, MODEL)
_END = ".npy"
_ATTEMPTS = "attempts"


def rounds_kept(store: Store, keep_checkpoints: int) -> int:
    """Return how many rounds a client keeps of what belongs to one.

    A store that lasts has one for every round the server may go back to, and one of the
    round under way; in memory, only the last round can be repeated.
    """
    return 1 + (keep_checkpoints if store.lasting else 1)


class Private:
    """Under ``<name>-<round>.npy``; one that is damaged gives way to the one before.

    Parameters
    ----------
    store : Store
        Of one client in one run; a resumed run keeps its name.
    attempt : int
        Flower's number of the run. One that is new here has resumed the run: what
        earlier ones left of rounds to come is dropped, of all names at once, and what
        they are still working on is not saved any more.
    sizes : mapping of str to int
        What is kept in this run, out of ``NAMES``, and the values of each.
    kept : int
        Rounds kept, at least 2: the newest and the one before it.
    """

    def __init__(
        self, store: Store, attempt: int, *, sizes: Mapping[str, int], kept: int
    ) -> None:
        self._store = store
        self._attempt = str(attempt)
        self._sizes = sizes
        self._kept = kept

    def load(self, before_round: int, merged_round: int = 0) -> dict[str, Vector]:
        """Return the newest intact vectors of an earlier round; none that is not here.

        Parameters
        ----------
        merged_round : int
            The client's last round that was merged, 0 if none was. What it ended with
            was kept; that this one or a later one is not here is told to the server.
        """
        if not self._sizes:
            return {}
        self._take_over(before_round)
        found = {
            name: self._newest(name, before_round, merged_round) for name in self._sizes
        }
        return {name: vector for name, vector in found.items() if vector is not None}

    def save(self, server_round: int, vectors: Mapping[str, Vector]) -> None:
        """Keep what this round ended with; drop rounds that are too old."""
        if not vectors or self._take_over(server_round) != self._attempt:
            return
        for name, vector in vectors.items():
            self._save(name, server_round, vector)

    def _newest(self, name: str, before_round: int, merged_round: int) -> Vector | None:
        for server_round in reversed(self._rounds(name)):
            if server_round >= before_round:
                continue
            vector = self._read(name, server_round)
            if vector is not None:
                if server_round < merged_round:
                    instead = f"it goes on from round {server_round}'s"
                    self._miss(name, merged_round, instead)
                return vector
        if merged_round:
            self._miss(name, merged_round, "it starts from a fresh one")
        return None

    def _save(self, name: str, server_round: int, vector: Vector) -> None:
        if vector.shape != (self._sizes[name],) or not np.isfinite(vector).all():
            self._store.warn(f"a {name} that is not finite is not kept")
            return
        file = BytesIO()
        np.save(file, vector, allow_pickle=False)
        if not self._store.write(_file(name, server_round), file.getvalue()):
            return
        older = [r for r in self._rounds(name) if r < server_round]
        for old in older[: 1 - self._kept]:
            self._store.remove(_file(name, old))

    def _miss(self, name: str, merged_round: int, instead: str) -> None:
        self._store.warn(
            f"the private {name} of round {merged_round} is not here: {instead}"
        )

    def _read(self, name: str, server_round: int) -> Vector | None:
        data = self._store.read(_file(name, server_round))
        try:
            vector: Vector = np.load(BytesIO(data or b""), allow_pickle=False)
            # Looked at before it is used: a header may name any shape and type.
            if vector.dtype != np.float32 or vector.shape != (self._sizes[name],):
                raise ValueError(f"{vector.dtype}{vector.shape}")
            if np.isfinite(vector).all():
                return vector
        except Exception:  # noqa: S110 # NumPy evaluates the header, and anything may come of it
            pass  # told below
        self._store.warn(f"{_file(name, server_round)} is damaged and passed over")
        return None

    def _rounds(self, name: str) -> list[int]:
        return self._store.rounds(f"{name}-", _END)

    def _take_over(self, server_round: int) -> str:
        """Make a new attempt the one that counts; return the one that does."""
        known = (self._store.read(_ATTEMPTS) or b"").decode("ascii", "replace")
        attempts = known.split()
        if self._attempt not in attempts:
            for name in NAMES:
                for later in self._rounds(name):
                    if later >= server_round:
                        self._store.remove(_file(name, later))
            attempts.append(self._attempt)
            self._store.write(_ATTEMPTS, "\n".join(attempts).encode())
        return attempts[-1]


def _file(name: str, server_round: int) -> str:
    return f"{name}-{server_round}{_END}"

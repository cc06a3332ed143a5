"""Where a client's private gate survives between rounds.

A gate is kept under the round that produced it. Loading asks for the newest gate
*before* a round, so that a round repeated after a crash of the server starts from the
gate it started from the first time. Nothing in here is ever part of a message; where
the bytes are kept is ``client_app.kept.store``.
"""

from io import BytesIO

import numpy as np

from client_app.kept.store import Store
from common.parts import Vector

_START, _END = "gate-", ".npy"
_ATTEMPTS = "attempts"


def rounds_kept(store: Store, keep_checkpoints: int) -> int:
    """Return how many rounds a client keeps of what belongs to one.

    A store that lasts has one for every round the server may go back to, and one of the
    round under way; in memory, only the last round can be repeated.
    """
    return 1 + (keep_checkpoints if store.lasting else 1)


class Gates:
    """Under ``gate-<round>.npy``; one that is damaged gives way to the one before.

    Parameters
    ----------
    store : Store
        Of one client in one run; a resumed run keeps its name.
    attempt : int
        Flower's number of the run. One that is new here has resumed the run: what
        earlier ones left of rounds to come is dropped, and what they are still working
        on is not saved any more.
    size : int
        Values of this run's gate.
    kept : int
        Rounds kept, at least 2: the newest and the one before it.
    """

    def __init__(self, store: Store, attempt: int, *, size: int, kept: int) -> None:
        self._store = store
        self._attempt = str(attempt)
        self._size = size
        self._kept = kept

    def load(self, before_round: int, merged_round: int = 0) -> Vector | None:
        """Return the newest intact gate of an earlier round, None if there is none.

        Parameters
        ----------
        merged_round : int
            The client's last round that was merged, 0 if none was. It ended with a
            gate; that this one or a later one is not here is told to the server.
        """
        self._take_over(before_round)
        for server_round in reversed(self._rounds()):
            if server_round >= before_round:
                continue
            gate = self._read(server_round)
            if gate is not None:
                if server_round < merged_round:
                    self._miss(merged_round, f"it goes on from round {server_round}'s")
                return gate
        if merged_round:
            self._miss(merged_round, "it starts from a fresh one")
        return None

    def save(self, server_round: int, gate: Vector) -> None:
        """Keep the gate this round ended with; drop rounds that are too old."""
        if self._take_over(server_round) != self._attempt:
            return
        if gate.shape != (self._size,) or not np.isfinite(gate).all():
            self._store.warn("a gate that is not finite is not kept")
            return
        file = BytesIO()
        np.save(file, gate, allow_pickle=False)
        if not self._store.write(_name(server_round), file.getvalue()):
            return
        for old in [r for r in self._rounds() if r < server_round][: 1 - self._kept]:
            self._store.remove(_name(old))

    def _miss(self, merged_round: int, instead: str) -> None:
        self._store.warn(
            f"the private gate of round {merged_round} is not here: {instead}"
        )

    def _read(self, server_round: int) -> Vector | None:
        data = self._store.read(_name(server_round))
        try:
            gate: Vector = np.load(BytesIO(data or b""), allow_pickle=False)
            # Looked at before it is used: a header may name any shape and type.
            if gate.dtype != np.float32 or gate.shape != (self._size,):
                raise ValueError(f"{gate.dtype}{gate.shape}")
            if np.isfinite(gate).all():
                return gate
        except Exception:  # noqa: S110 # NumPy evaluates the header, and anything may come of it
            pass  # told below
        self._store.warn(f"{_name(server_round)} is damaged and passed over")
        return None

    def _rounds(self) -> list[int]:
        return self._store.rounds(_START, _END)

    def _take_over(self, server_round: int) -> str:
        """Make a new attempt the one that counts; return the one that does."""
        known = (self._store.read(_ATTEMPTS) or b"").decode("ascii", "replace")
        attempts = known.split()
        if self._attempt not in attempts:
            for later in self._rounds():
                if later >= server_round:
                    self._store.remove(_name(later))
            attempts.append(self._attempt)
            self._store.write(_ATTEMPTS, "\n".join(attempts).encode())
        return attempts[-1]


def _name(server_round: int) -> str:
    return f"{_START}{server_round}{_END}"

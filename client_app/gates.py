"""Where a client's private gate survives between rounds.

A gate is kept under the round that produced it. Loading asks for the newest gate
*before* a round, so that a round repeated after a crash of the server starts from the
gate it started from the first time. Nothing in here is ever part of a message; where
the bytes are kept is ``client_app.store``.
"""

from io import BytesIO

import numpy as np

from client_app.store import Store
from common.moe.parts import Vector

KEPT = 4
"""Rounds kept per gate: enough to go back to an older checkpoint of the server."""

_START, _END = "gate-", ".npy"
_ATTEMPTS = "attempts"


class Gates:
    """Under ``gate-<round>.npy``; one that cannot be read gives way to the one before.

    Parameters
    ----------
    store : Store
        Of one client in one run; a resumed run keeps its name.
    attempt : int
        Flower's number of the run. One that is new here has resumed the run: what
        earlier ones left of rounds to come is dropped, and what they are still working
        on is not saved any more.
    """

    def __init__(self, store: Store, attempt: int = 0) -> None:
        self._store = store
        self._attempt = str(attempt)

    def load(self, before_round: int) -> Vector | None:
        """Return the newest gate of an earlier round, None if there is none."""
        self._take_over(before_round)
        for server_round in reversed(self._rounds()):
            if server_round < before_round:
                data = self._store.read(_name(server_round))
                try:
                    gate: Vector = np.load(BytesIO(data or b""), allow_pickle=False)
                except (ValueError, OSError, EOFError):
                    continue
                return gate
        return None

    def save(self, server_round: int, gate: Vector) -> None:
        """Keep the gate this round ended with; drop rounds that are too old."""
        if self._take_over(server_round) != self._attempt:
            return
        file = BytesIO()
        np.save(file, gate, allow_pickle=False)
        self._store.write(_name(server_round), file.getvalue())
        for old in [r for r in self._rounds() if r < server_round][: 1 - KEPT]:
            self._store.remove(_name(old))

    def _rounds(self) -> list[int]:
        names = self._store.names(_START)
        return sorted(int(n.removeprefix(_START).removesuffix(_END)) for n in names)

    def _take_over(self, server_round: int) -> str:
        """Make a new attempt the one that counts; return the one that does."""
        attempts = (self._store.read(_ATTEMPTS) or b"").decode().split()
        if self._attempt not in attempts:
            for later in self._rounds():
                if later >= server_round:
                    self._store.remove(_name(later))
            attempts.append(self._attempt)
            self._store.write(_ATTEMPTS, "\n".join(attempts).encode())
        return attempts[-1]


def _name(server_round: int) -> str:
    return f"{_START}{server_round}{_END}"

"""Where a client's private gate survives between rounds.

A gate is kept per run and client, under the round that produced it. Loading asks for
the newest gate *before* a round, so that a round repeated after a crash of the server
starts from the gate it started from the first time. Nothing in here is ever part of a
message.

Two homes: ``Context.state`` (private to one virtual client, gone with the process that
holds it), or a directory (``state-dir``) that survives a power cut.
"""

from pathlib import Path
from typing import Protocol

import numpy as np
from flwr.app import Array, ArrayRecord, Context

from common.files import atomic_write
from common.moe.model import Vector

KEPT = 4
"""Rounds kept per gate: enough to go back to an older checkpoint of the server."""


def client_folder(state_dir: str | Path, run: str, client: str) -> Path:
    """Return where a client keeps what it has of one run; a name cannot leave it."""
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in client)
    return Path(state_dir) / run / safe


class GateStore(Protocol):
    """Keeps the gate of one client in one run."""

    def load(self, before_round: int) -> Vector | None:
        """Return the newest gate saved in an earlier round, None if there is none."""

    def save(self, server_round: int, gate: Vector) -> None:
        """Keep the gate this round ended with."""


class ContextGates:
    """Gates in ``Context.state``, which Flower keeps per node and run.

    Parameters
    ----------
    context : Context
        Of the message being handled.
    run : str
        The run's name, so that a later run on the same node starts afresh.
    """

    def __init__(self, context: Context, run: str) -> None:
        self._key = f"gate/{run}"
        self._state = context.state

    def load(self, before_round: int) -> Vector | None:
        """Return the newest gate saved before a round."""
        record = self._state.array_records.get(self._key, ArrayRecord())
        rounds = [int(name) for name in record if int(name) < before_round]
        return record[str(max(rounds))].numpy() if rounds else None

    def save(self, server_round: int, gate: Vector) -> None:
        """Keep the gate, dropping rounds that are too old or being replayed."""
        record = self._state.array_records.get(self._key, ArrayRecord())
        kept = sorted(int(r) for r in record if int(r) < server_round)[1 - KEPT :]
        arrays = {str(r): record[str(r)] for r in kept}
        arrays[str(server_round)] = Array(gate)
        self._state[self._key] = ArrayRecord(arrays)


class DirectoryGates:
    """Gates as files ``<state-dir>/<run>/<client>/gate-<round>.npy``.

    Written atomically: a power cut leaves the old gate or the new one. A file that
    cannot be read is passed over for the one before it.

    Parameters
    ----------
    state_dir : path
    run, client : str
        Whose gate it is; a resumed run keeps its name.
    attempt : int
        Flower's number of the run. One that is new here has resumed the run: what
        earlier ones left of rounds to come is dropped, and what they are still working
        on is not saved any more.
    """

    def __init__(
        self, state_dir: str | Path, run: str, client: str, attempt: int = 0
    ) -> None:
        self._folder = client_folder(state_dir, run, client)
        self._attempt = str(attempt)

    def _rounds(self) -> dict[int, Path]:
        files = self._folder.glob("gate-*.npy")
        return {int(path.stem.removeprefix("gate-")): path for path in files}

    def load(self, before_round: int) -> Vector | None:
        """Return the newest readable gate saved before a round."""
        self._take_over(before_round)
        files = self._rounds()
        for server_round in sorted(
            (r for r in files if r < before_round), reverse=True
        ):
            try:
                gate: Vector = np.load(files[server_round], allow_pickle=False)
            except (ValueError, OSError, EOFError):
                continue
            return gate
        return None

    def save(self, server_round: int, gate: Vector) -> None:
        """Write the gate atomically and drop rounds that are too old."""
        if self._take_over(server_round) != self._attempt:
            return
        with atomic_write(self._folder / f"gate-{server_round}.npy") as file:
            np.save(file, gate, allow_pickle=False)
        files = self._rounds()
        for old in sorted(r for r in files if r < server_round)[: 1 - KEPT]:
            files[old].unlink(missing_ok=True)

    def _take_over(self, server_round: int) -> str:
        """Make a new attempt the one that counts; return the one that does."""
        path = self._folder / "attempts"
        try:
            attempts = path.read_text().split()
        except OSError:
            attempts = []
        if self._attempt not in attempts:
            for later, file in self._rounds().items():
                if later >= server_round:
                    file.unlink(missing_ok=True)
            attempts.append(self._attempt)
            with atomic_write(path) as handle:
                handle.write("\n".join(attempts).encode())
        return attempts[-1]

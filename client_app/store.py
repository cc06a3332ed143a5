"""What a client keeps between messages, in its state directory or in memory.

Below ``<state-dir>/<run>/<client>/``, every file written atomically::

    gate-<round>.npy, attempts     the private gate (``gates``)
    residual-<round>.safetensors   what quantised uploads left out (``residuals``)
    parts/<part>-<version>.npy     what the server sent, as it was sent (``cache``)
    base/<version>.npy             the frozen checkpoint, as it was sent (``bases``)
    model.safetensors              what the client ended its last round with: extractor,
                                   experts and gate (``snapshot``)

Without a state directory the same names live in ``Context.state``, which Flower keeps
per node and run and which is gone with the process that holds it; the model is then
not kept. Nothing in here is ever part of a message.
"""

from pathlib import Path
from typing import Protocol

from flwr.app import ConfigRecord, Context

from common.files import atomic_write


class Store(Protocol):
    """Named pieces of bytes of one client in one run."""

    def names(self, start: str) -> list[str]:
        """Return the names that begin so, sorted."""

    def read(self, name: str) -> bytes | None:
        """Return the bytes under a name, None if there are none."""

    def write(self, name: str, data: bytes) -> None:
        """Keep bytes under a name, or leave what was there."""

    def remove(self, name: str) -> None:
        """Forget a name; it need not exist."""


class ContextStore:
    """In ``Context.state``.

    Parameters
    ----------
    context : Context
        Of the message being handled.
    run : str
        The run's name, so that a later run on the same node starts afresh.
    """

    def __init__(self, context: Context, run: str) -> None:
        self._key = f"store/{run}"
        self._state = context.state

    def _record(self) -> ConfigRecord:
        return self._state.config_records.get(self._key, ConfigRecord())

    def names(self, start: str) -> list[str]:
        """Return the names that begin so, sorted."""
        return sorted(name for name in self._record() if name.startswith(start))

    def read(self, name: str) -> bytes | None:
        """Return the bytes under a name, None if there are none."""
        data = self._record().get(name)
        return data if isinstance(data, bytes) else None

    def write(self, name: str, data: bytes) -> None:
        """Keep bytes under a name."""
        record = self._record()
        record[name] = data
        self._state[self._key] = record

    def remove(self, name: str) -> None:
        """Forget a name; it need not exist."""
        self._record().pop(name, None)


class DirectoryStore:
    """As files below ``<state-dir>/<run>/<client>/``."""

    def __init__(self, state_dir: str | Path, run: str, client: str) -> None:
        self.folder = client_folder(state_dir, run, client)

    def names(self, start: str) -> list[str]:
        """Return the names that begin so, sorted."""
        place, _, head = start.rpartition("/")
        # What atomic_write was writing when the power went begins with a dot.
        return sorted(
            path.relative_to(self.folder).as_posix()
            for path in (self.folder / place).glob(f"{head}*")
            if path.is_file() and not path.name.startswith(".")
        )

    def read(self, name: str) -> bytes | None:
        """Return the bytes under a name, None if they cannot be read."""
        try:
            return (self.folder / name).read_bytes()
        except OSError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Write a file atomically."""
        with atomic_write(self.folder / name) as file:
            file.write(data)

    def remove(self, name: str) -> None:
        """Delete a file; it need not exist."""
        (self.folder / name).unlink(missing_ok=True)


def open_store(context: Context, state_dir: str, run: str, client: str) -> Store:
    """Return a client's store: in its state directory, in memory if there is none."""
    if state_dir:
        return DirectoryStore(state_dir, run, client)
    return ContextStore(context, run)


def client_folder(state_dir: str | Path, run: str, client: str) -> Path:
    """Return where a client keeps what it has of one run; a name cannot leave it."""
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in client)
    return Path(state_dir) / run / safe

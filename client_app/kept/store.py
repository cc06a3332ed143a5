"""What a client keeps between messages, in its state directory or in memory.

Below ``<state-dir>/<run>/<client>/``, every file written atomically::

    gate-<round>.npy, attempts     the private gate (``private``)
    model-<round>.npy              private parts, or a model of its own (``private``)
    residual-<round>.safetensors   what quantised uploads left out (``residuals``)
    parts/<part>-<version>.npy     what the server sent, as it was sent (``cache``)
    model.safetensors              what the client ended its last round with: extractor,
                                   experts and gate (``snapshot``)

Of all runs alike are the frozen bases it was sent, below ``<state-dir>/bases/``
(``base_weights``), and what it has spent of its privacy, in
``<state-dir>/privacy/<client>/`` (``spent``).

Without a state directory the same names live in ``Context.state``, which Flower keeps
per node and run and which is gone with the process that holds it; the model is then
not kept. Nothing in here is ever part of a message.

A disk that fills up, is read-only, loses files or damages them costs what was kept
there and never the reply: what cannot be read is as if it had never been kept, what
cannot be written is not kept, and a warning says so.
"""

import hashlib
import logging
import re
import tempfile
from abc import ABC, abstractmethod
from io import BytesIO
from pathlib import Path
from typing import ClassVar

import numpy as np
from flwr.app import Array, ConfigRecord, Context

from common import wire
from common.files import atomic_write, remove_partial
from common.text import reason

logger = logging.getLogger("flwr.expertfleet")

MOST_WARNINGS = 4
"""Warnings told to the server in one reply; the device's own log has all of them."""


class Store(ABC):
    """Named pieces of bytes of one client in one run.

    Attributes
    ----------
    lasting : bool
        Whether it outlives the process, so that the server may go back to earlier
        rounds.
    warnings : list of str
        What went wrong since it was opened, for the report to the server.
    """

    lasting: ClassVar[bool]

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        """Say, here and in the next report, what is not as it should be.

        Without a path: where a device keeps its state is its owner's business.
        """
        logger.warning("%s", text)
        text = re.sub("[^ -~]", "?", text)[:200]  # a line of the report's
        if len(self.warnings) < MOST_WARNINGS and text not in self.warnings:
            self.warnings.append(text)

    @abstractmethod
    def names(self, start: str) -> list[str]:
        """Return the names that begin so, sorted; none if they cannot be listed."""

    def rounds(self, start: str, end: str) -> list[int]:
        """Return the rounds of what is kept as START<round>END, ascending."""
        number = re.compile(r"0|[1-9]\d{0,15}", re.ASCII)
        middles = (
            name.removeprefix(start).removesuffix(end)
            for name in self.names(start)
            if name.endswith(end)
        )
        return sorted(int(each) for each in middles if number.fullmatch(each))

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """Return the bytes under a name, None if there are none or they are lost."""

    @abstractmethod
    def write(self, name: str, data: bytes) -> bool:
        """Keep bytes under a name, or leave what was there, warn and return False."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Forget a name; it need not exist."""


class ContextStore(Store):
    """In ``Context.state``.

    Parameters
    ----------
    context : Context
        Of the message being handled.
    run : str
        The run's name, so that a later run on the same node starts afresh.
    """

    lasting = False

    def __init__(self, context: Context, run: str) -> None:
        super().__init__()
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

    def write(self, name: str, data: bytes) -> bool:
        """Keep bytes under a name."""
        record = self._record()
        record[name] = data
        self._state[self._key] = record
        return True

    def remove(self, name: str) -> None:
        """Forget a name; it need not exist."""
        self._record().pop(name, None)


class DirectoryStore(Store):
    """As files below ``<state-dir>/<run>/<client>/``.

    ``synced`` is whether they outlive a power cut.
    """

    lasting = True
    synced = True

    def __init__(
        self, state_dir: str | Path, run: str, client: str, *, synced: bool = True
    ) -> None:
        super().__init__()
        self.folder = client_folder(state_dir, run, client)
        self.synced = synced

    def names(self, start: str) -> list[str]:
        """Return the names that begin so, sorted; none if they cannot be listed."""
        place, _, head = start.rpartition("/")
        try:
            # What atomic_write was writing when the power went begins with a dot.
            return sorted(
                path.relative_to(self.folder).as_posix()
                for path in (self.folder / place).iterdir()
                if path.name.startswith(head)
                and not path.name.startswith(".")
                and path.is_file()
            )
        except OSError:
            return []

    def read(self, name: str) -> bytes | None:
        """Return the bytes under a name, None if there are none or they are lost."""
        path = self.folder / name
        try:
            # Nothing but a file: a named pipe would never end.
            return path.read_bytes() if path.is_file() else None
        except OSError as error:
            self.warn(f"{name} cannot be read: {reason(error)}")
            return None

    def write(self, name: str, data: bytes) -> bool:
        """Write a file atomically; without room or permission, warn and go on."""
        path = self.folder / name
        try:
            if path.is_dir():  # os.replace would refuse, in every round to come
                path.rename(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
            with atomic_write(path, synced=self.synced) as file:
                file.write(data)
        except OSError as error:
            self.warn(f"{name} cannot be kept: {reason(error)}")
            return False
        return True

    def remove(self, name: str) -> None:
        """Delete a file; it need not exist."""
        try:
            (self.folder / name).unlink(missing_ok=True)
        except OSError as error:
            logger.warning("%s cannot be removed: %s", name, reason(error))


class BaseStore(DirectoryStore):
    """Frozen bases of all runs, as files below ``<state-dir>/bases/``."""

    def __init__(self, state_dir: str | Path) -> None:
        Store.__init__(self)
        self.folder = Path(state_dir) / "bases"

    def write(self, name: str, data: bytes) -> bool:
        """Write a file atomically, and clear away what was left half-written."""
        # Of many MB. A device handles its messages one after the other.
        remove_partial(self.folder)
        return super().write(name, data)


def read_array(data: bytes | None, version: str) -> Array | None:
    """Return an array that was kept as it travelled; None unless it is this version.

    Parameters
    ----------
    data : bytes or None
        Of an ``.npy`` file.
    version : str
        See :func:`common.wire.version`.
    """
    # Hashed first: what NumPy is given is then what was received, and no damaged file.
    if data is None or wire.version(Array("", (), "", data)) != version:
        return None
    return Array(np.load(BytesIO(data), allow_pickle=False))


def client_folder(state_dir: str | Path, run: str, client: str) -> Path:
    """Return where a client keeps what it has of one run: no name can leave it."""
    return Path(state_dir) / folder_name(run) / folder_name(client)


_PLAIN = re.compile(r"[a-z0-9_-]([a-z0-9_.-]{0,98}[a-z0-9_-])?")


def folder_name(name: str) -> str:
    """Return the folder of a run or client: another one for every other name.

    A plain name is its own folder. Any other becomes what is plain in it and a hash:
    file systems may take upper and lower case, two spellings of an accent or a dot at
    the end for the same, and none has more than 255 bytes of room.
    """
    if _PLAIN.fullmatch(name):
        return name
    start = re.sub(r"[^a-z0-9_-]+", "_", name.lower())[:40]
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{start}~{digest[:32]}"

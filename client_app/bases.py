"""The frozen checkpoint a client was sent, kept so that it is never sent again.

It is by far the largest thing that travels, and the only one that never changes: kept
whatever ``expert-cache`` says, one version at a time.
"""

import io
import logging
from pathlib import Path

import numpy as np
from flwr.app import Array

from client_app.store import Store
from common import wire
from common.moe import EncoderSpec
from common.moe.pretrained import BASE, install_vector, is_installed

logger = logging.getLogger("flwr.expertfleet")

_START, _END = "base/", ".npy"


class Bases:
    """Under ``base/<version>.npy``.

    Parameters
    ----------
    store : Store
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def versions(self) -> list[str]:
        """Return the versions that are kept."""
        names = self._store.names(_START)
        return [name.removeprefix(_START).removesuffix(_END) for name in names]

    def take(self, encoder: EncoderSpec, sent: Array | None) -> bool:
        """Make the base an order asks for usable; False if it is not here.

        Parameters
        ----------
        encoder : EncoderSpec
            ``base`` is the version ordered.
        sent : Array or None
            What the message carried.

        Raises
        ------
        WireError
            If what was sent is another version, or not of this configuration.
        """
        if sent is None:
            return self._recall(encoder)
        if wire.version(sent) != encoder.base:
            raise wire.WireError(f"{BASE} is not of the version ordered")
        _install(encoder, sent)
        try:
            self._store.write(f"{_START}{encoder.base}{_END}", sent.data)
        except OSError as error:
            logger.warning("the frozen base cannot be kept: %s", error)
        for old in self.versions():
            if old != encoder.base:
                self._store.remove(f"{_START}{old}{_END}")
        return True

    def _recall(self, encoder: EncoderSpec) -> bool:
        name = f"{_START}{encoder.base}{_END}"
        if name not in self._store.names(_START):
            return False
        if is_installed(encoder.base):  # by an earlier message to this process
            return True
        array = _read(self._store.read(name))
        if array is None or wire.version(array) != encoder.base:
            self._store.remove(name)
            return False
        _install(encoder, array)
        return True


def install_from(folder: Path, encoder: EncoderSpec) -> None:
    """Make the base in a client's folder usable.

    Raises
    ------
    ValueError
        If it is not there or damaged.
    """
    path = folder / f"{_START}{encoder.base}{_END}"
    array = _read(path.read_bytes() if path.is_file() else None)
    if array is None or wire.version(array) != encoder.base:
        raise ValueError(f"its frozen base is not in {path}")
    _install(encoder, array)


def _read(data: bytes | None) -> Array | None:
    if data is None:
        return None
    try:
        return Array(np.load(io.BytesIO(data), allow_pickle=False))
    except (ValueError, EOFError, OSError):
        return None


def _install(encoder: EncoderSpec, array: Array) -> None:
    if is_installed(encoder.base):
        return
    try:
        install_vector(encoder, wire.unpack({BASE: array})[BASE])
    except ValueError as error:
        raise wire.WireError(str(error)) from None

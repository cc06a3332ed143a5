"""The server's whole state as one file a round, written so that it cannot be half.

A checkpoint is a SHA-256 digest followed by a safetensors file: arrays as tensors, and
everything else as JSON in its header. It is written beside, synced and renamed. A file
whose digest does not match (truncated, tampered with) is passed over, loudly, for the
one before it. No private gate is ever in it, because the server has none.
"""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from common.files import atomic_write

logger = logging.getLogger("flwr.expertfleet")

FORMAT = "expertfleet-checkpoint-1"
_ARRAY = "$array"
_DIGEST_BYTES = 32


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message says which and why."""


class Checkpoints:
    """The newest checkpoints of one run.

    Parameters
    ----------
    folder : Path
        The run's directory; files go to ``checkpoints/round-000012.ckpt``.
    keep : int
        How many are kept, at least 1.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder = folder / "checkpoints"
        self._keep = keep

    def _files(self) -> list[Path]:
        """Return the files, newest first."""
        return sorted(self._folder.glob("round-*.ckpt"), reverse=True)

    def save(self, completed: int, state: dict[str, Any]) -> None:
        """Write the state after a round and drop checkpoints that are too old."""
        payload = encode(state)
        with atomic_write(self._folder / f"round-{completed:06d}.ckpt") as file:
            file.write(hashlib.sha256(payload).digest())
            file.write(payload)
        for old in self._files()[self._keep :]:
            old.unlink(missing_ok=True)

    def newest(self) -> dict[str, Any] | None:
        """Return the newest state that can be trusted; None if there is none yet.

        Raises
        ------
        CheckpointError
            If there are checkpoints but not one of them is intact.
        """
        files = self._files()
        for path in files:
            try:
                state = read(path)
            except CheckpointError as error:
                logger.error("%s; going back to the checkpoint before it", error)
                path.rename(path.with_suffix(".damaged"))
                continue
            logger.info("going on after round %d (%s)", state["completed"], path)
            return state
        if files:
            raise CheckpointError(f"no checkpoint in {self._folder} is intact")
        return None


def newest_intact(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Read the newest intact checkpoint of a run that may still be going on.

    Nothing is changed: the run itself decides about files that are damaged.

    Parameters
    ----------
    folder : Path
        The run's directory.
    """
    for path in sorted((folder / "checkpoints").glob("round-*.ckpt"), reverse=True):
        try:
            return path, read(path)
        except (CheckpointError, OSError) as error:
            logger.warning("passing over %s: %s", path, error)
    return None


def read(path: Path) -> dict[str, Any]:
    """Read one checkpoint.

    Raises
    ------
    CheckpointError
        If the file is truncated, changed, or of another format.
    """
    data = path.read_bytes()
    digest, payload = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if hashlib.sha256(payload).digest() != digest:
        raise CheckpointError(f"{path} is damaged: its checksum does not match")
    return decode(payload)


def encode(state: dict[str, Any]) -> bytes:
    """Return the bytes of a state made of dicts, lists, scalars and arrays.

    Raises
    ------
    TypeError
        If the state holds anything else.
    """
    arrays: dict[str, NDArray[Any]] = {}
    text = json.dumps(_without_arrays(state, arrays))
    return save(arrays, metadata={"format": FORMAT, "state": text})


def decode(payload: bytes) -> dict[str, Any]:
    """Return the state :func:`encode` was given.

    Raises
    ------
    CheckpointError
        If these are not its bytes.
    """
    try:
        arrays = load(payload)
        size = int.from_bytes(payload[:8], "little")
        header = json.loads(payload[8 : 8 + size])["__metadata__"]
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"not a checkpoint: {error}") from None
    if header.get("format") != FORMAT:
        raise CheckpointError(f"format {header.get('format')!r}, expected {FORMAT!r}")
    state: dict[str, Any] = _with_arrays(json.loads(header["state"]), arrays)
    return state


def _without_arrays(value: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    """Replace arrays by references, so that JSON can hold the rest."""
    match value:
        case np.ndarray():
            name = str(len(arrays))
            arrays[name] = np.ascontiguousarray(value)
            return {_ARRAY: name, "shape": list(value.shape)}
        case dict():
            return {str(k): _without_arrays(v, arrays) for k, v in value.items()}
        case list() | tuple():
            return [_without_arrays(item, arrays) for item in value]
        case np.generic():
            return value.item()
        case None | bool() | int() | float() | str():
            return value
    raise TypeError(f"{type(value).__name__} cannot be kept in a checkpoint")


def _with_arrays(value: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    if isinstance(value, dict):
        if _ARRAY in value:
            return arrays[value[_ARRAY]].reshape(value["shape"]).copy()
        return {k: _with_arrays(v, arrays) for k, v in value.items()}
    if isinstance(value, list):
        return [_with_arrays(item, arrays) for item in value]
    return value

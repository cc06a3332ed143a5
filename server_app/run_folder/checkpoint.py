"""The server's whole state as one file a round, written so that it cannot be half.

The newest ones are kept, and that of the best round, under a second name.

A checkpoint is a SHA-256 digest followed by a safetensors file: arrays as tensors, and
everything else as JSON in its header. It is written beside, synced and renamed. A file
whose digest does not match (truncated, tampered with) is passed over, loudly, for the
one before it. No private gate is ever in it, because the server has none.
"""

import hashlib
import json
import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from common.files import atomic_write, hold_on_to, remove_partial

logger = logging.getLogger("flwr.expertfleet")

FORMAT = "expertfleet-checkpoint-1"
BEST = "best.ckpt"
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

    def save(self, completed: int, state: dict[str, Any]) -> None:
        """Write the state after a round and drop checkpoints that are too old.

        Raises
        ------
        OSError
            If it cannot be written; the checkpoints before are all there then.
        """
        payload = encode(state)
        with atomic_write(self._folder / _name(completed)) as file:
            file.write(hashlib.sha256(payload).digest())
            file.write(payload)
        # Of later rounds is what cannot be read: it must not push out what can.
        older = [path for number, path in _files(self._folder) if number < completed]
        for old in older[self._keep - 1 :]:
            with suppress(OSError):
                old.unlink()

    def keep_best(self, completed: int) -> None:
        """Keep the checkpoint of a round, as long as no other is kept so.

        Raises
        ------
        OSError
            If that is impossible; the one kept before is intact.
        """
        hold_on_to(self._folder / _name(completed), self._folder / BEST)

    def best(self) -> dict[str, Any] | None:
        """Return the state kept so; None if there is none that can be read."""
        if not (self._folder / BEST).exists():
            return None
        try:
            return read(self._folder / BEST)
        except CheckpointError as error:
            logger.error("%s", error)
            return None

    def newest(self) -> dict[str, Any] | None:
        """Return the newest state that can be trusted; None if there is none yet.

        Raises
        ------
        CheckpointError
            If there are checkpoints but not one of them is intact.
        """
        remove_partial(self._folder)
        for _, path in _files(self._folder):
            try:
                state = read(path)
            except CheckpointError as error:
                logger.error("%s; going back to the checkpoint before it", error)
                continue
            logger.info("going on after round %d (%s)", state["completed"], path)
            self._put_aside(after=state["completed"])
            return state
        # Also what an earlier attempt has put aside.
        if any(self._folder.glob("round-*")):
            raise CheckpointError(f"no checkpoint in {self._folder} is intact")
        return None

    def intact(self) -> Iterator[dict[str, Any]]:
        """Yield every state that can be read, newest first."""
        for _, path in _files(self._folder):
            with suppress(CheckpointError):
                yield read(path)

    def _put_aside(self, after: int) -> None:
        """Rename what is damaged, so that its name is free when its round comes."""
        for number, path in _files(self._folder):
            if number > after:
                aside = path.with_suffix(f".damaged-{time.time_ns()}")
                try:
                    path.rename(aside)
                except OSError as error:
                    raise CheckpointError(
                        f"{path} is damaged and cannot be renamed: {error.strerror}"
                    ) from None


def newest_intact(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Read the newest intact checkpoint of a run that may still be going on.

    Nothing is changed: the run itself decides about files that are damaged.

    Parameters
    ----------
    folder : Path
        The run's directory.
    """
    for _, path in _files(folder / "checkpoints"):
        try:
            return path, read(path)
        except CheckpointError as error:
            logger.warning("passing over %s", error)
    return None


def newest_written(folder: Path) -> tuple[str, int, int] | None:
    """Return name, time (ns) and inode of the checkpoint written last, None if none.

    It changes whenever the run writes one, whatever else lies beside it.
    """
    found = []
    for _, path in _files(folder / "checkpoints"):
        with suppress(OSError):  # dropped by the run meanwhile
            stat = path.stat()
            found.append((stat.st_mtime_ns, path.name, stat.st_ino))
    if not found:
        return None
    moment, name, inode = max(found)
    return name, moment, inode


def _name(completed: int) -> str:
    return f"round-{completed:06d}.ckpt"


def _files(folder: Path) -> list[tuple[int, Path]]:
    """Return the checkpoints below a directory with their rounds, newest first."""
    found = []
    for path in folder.glob("round-*.ckpt"):
        number = path.stem.removeprefix("round-")
        if number.isdecimal():
            found.append((int(number), path))
    return sorted(found, reverse=True)


def read(path: Path) -> dict[str, Any]:
    """Read one checkpoint.

    Raises
    ------
    CheckpointError
        If the file cannot be read, is truncated, changed, or of another format.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    digest, payload = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if hashlib.sha256(payload).digest() != digest:
        raise CheckpointError(f"{path} is damaged: its checksum does not match")
    return decode(payload)


def encode(state: dict[str, Any]) -> bytes:
    """Return the bytes of a state made of dicts, lists, scalars and arrays.

    Raises
    ------
    CheckpointError
        If the state holds anything else; the message says where.
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


def _without_arrays(value: Any, arrays: dict[str, NDArray[Any]], at: str = "") -> Any:
    """Replace arrays by references, so that JSON can hold the rest.

    ``at`` is where the value is, for the error.
    """
    match value:
        case np.ndarray() if value.dtype.kind in "biuf" and value.itemsize < 9:
            name = str(len(arrays))
            arrays[name] = np.ascontiguousarray(value)
            return {_ARRAY: name, "shape": list(value.shape)}
        case dict() if all(isinstance(key, str) for key in value):
            return {
                k: _without_arrays(v, arrays, f"{at}.{k}") for k, v in value.items()
            }
        case list() | tuple():
            return [_without_arrays(item, arrays, at) for item in value]
        case np.bool_() | np.integer() | np.floating():
            return value.item()
        case None | bool() | int() | float() | str():
            return value
    kind = type(value).__name__
    raise CheckpointError(
        f"{at.removeprefix('.')} cannot be kept in a checkpoint: {kind}, expected an "
        "array of numbers, a number, a text, a list, or a dictionary with texts as keys"
    )


def _with_arrays(value: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    if isinstance(value, dict):
        if _ARRAY in value:
            return arrays[value[_ARRAY]].reshape(value["shape"]).copy()
        return {k: _with_arrays(v, arrays) for k, v in value.items()}
    if isinstance(value, list):
        return [_with_arrays(item, arrays) for item in value]
    return value

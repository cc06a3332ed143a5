"""Windows of sound: WAV files, each of which is one recording.

Numbers are of -1 to 1, whatever the file's bits. Several channels are averaged where
the task has one.
"""

import wave
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import DataError
from common.own.folders import Entry
from common.own.found import Found, Skipped, no_group
from common.own.recordings import too_short, window_group
from common.task import SeriesTask
from common.text import reason


def wav_windows(
    entry: Entry, task: SeriesTask, facts: dict[str, Any]
) -> Iterator[Found | Skipped]:
    """Yield the windows of one file.

    Parameters
    ----------
    facts : dict
        ``label``, ``group`` and ``test`` of all of them.
    """
    try:
        with wave.open(str(entry.path)) as file:
            channels, rate = file.getnchannels(), file.getframerate()
            frames, width = file.getnframes(), file.getsampwidth()
            # A stream that was saved says four billion.
            frames = min(frames, entry.stamp[0] // max(1, channels * width))
    except Exception as error:  # a broken file leads to many
        why = f"cannot be read as a WAV file: {reason(error)}"
        if "unknown format" in str(error):
            why = "holds floats, or is packed: save it as 16 bit PCM"
        yield Skipped(entry.name, why)
        return
    why = ""
    if task.rate and rate != task.rate:
        why = f"{rate} readings a second: the task has {task.rate:g}"
    elif len(task.channels) not in (1, channels):
        why = f"{channels} channels: the task has {len(task.channels)}"
    elif width not in (1, 2, 3, 4):
        why = f"{width} bytes a reading: expected 1 to 4"
    elif frames < task.length:
        why = too_short(frames, task)
    if why:
        yield Skipped(entry.name, why)
        return
    group = window_group(facts["group"], entry.name, task)
    for start in range(0, frames - task.length + 1, task.step):
        yield Found(
            name=f"{entry.name}#{start}",
            value=partial(_window, entry.path, start, task),
            stamp=entry.stamp,
            note=no_group(facts["group"], task),
            **{**facts, "group": group},
        )


def _window(path: Path, start: int, task: SeriesTask) -> NDArray[np.float32]:
    try:
        with wave.open(str(path)) as file:
            file.setpos(start)
            data = file.readframes(task.length)
            channels, width = file.getnchannels(), file.getsampwidth()
    except Exception as error:
        raise DataError(f"cannot be read as a WAV file: {reason(error)}") from None
    if len(data) != task.length * channels * width:
        raise DataError("the file ends before its last reading")
    x = _readings(data, width).reshape(task.length, channels).T
    if len(task.channels) == 1:
        x = x.mean(axis=0, keepdims=True)
    return np.array(x, dtype=np.float32, order="C")


def _readings(data: bytes, width: int) -> NDArray[np.float64]:
    """Return little-endian numbers of so many bytes, from -1 to 1."""
    raw = np.frombuffer(data, np.uint8).reshape(-1, width)
    if width == 1:  # the only ones without a sign
        return (raw[:, 0].astype(np.float64) - 128) / 128
    wide = np.zeros((len(raw), 4), np.uint8)
    wide[:, 4 - width :] = raw
    return wide.view("<i4")[:, 0] / 2.0**31

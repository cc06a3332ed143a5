"""Samples of arrays: of ``.npz`` files, and of ``x.npy`` with ``y.npy``.

Arrays
------
x, y, group (optional)
    Samples along the first axis; classes; what samples must stay together by. Or those
    of a whole set: ``x_train``, ``y_train``, ``group_train``, and ``x_test``,
    ``y_test``, which are for testing. Samples are called by their index: ``a.npz#0``.

``x`` is, for the kinds of task:

image
    uint8, or 16 bits, or floats of 0 to 1 or 0 to 255: (N, height, width),
    (N, height, width, channels) or (N, channels, height, width).
series
    Numbers, (N, length, channels) or (N, channels, length); for one channel
    (N, length). Where both fit, channels come first. Longer ones are cut into windows.
table
    Numbers, (N, inputs), categories as ones and zeros; NaN where missing.
text
    Words, (N,), or token ids, (N, length).

``y`` holds names of classes, or numbers from 0: of ``class_names``, if there is such an
array, else of the task's classes. Where all of these are called by numbers, a number is
the name.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.data.tokens import Tokeniser
from common.errors import DataError
from common.own.array_files import CLASS_NAMES, Array
from common.own.cells import TOO_FINE, group_of, is_whole, loses_steps
from common.own.found import Found, Skipped, class_word, no_group
from common.own.images import image_decoder
from common.own.recordings import window_group
from common.own.tables import encoded
from common.task import ImageTask, SeriesTask, TableTask, Task, TextTask, stored_type

PARTS = (("x", "y", "group"), ("x_train", "y_train", "group_train"))
TEST_PART = ("x_test", "y_test", "group_test")


def array_samples(
    name: str,
    arrays: Mapping[str, Array],
    stamp: tuple[int, ...],
    task: Task,
    tokeniser: Tokeniser,
    *,
    labelled: bool,
    test: bool = False,
) -> Iterator[Found | Skipped]:
    """Yield the samples of arrays.

    Parameters
    ----------
    name : str
        What they were read from.
    arrays : mapping
        By name; see the head of this module.
    stamp, test
        Of the file.

    Raises
    ------
    DataError
        Naming the array and what is expected of it.
    """
    parts = [part for part in PARTS if part[0] in arrays][:1]
    if TEST_PART[0] in arrays:
        parts.append(TEST_PART)
    if not parts:
        raise DataError(f"{name} has no array 'x' (it has {', '.join(arrays)})")
    for x_name, y_name, group_name in parts:
        x, where = arrays[x_name], f"{name}, array {x_name!r}"
        if len(x.shape) < 1:
            raise DataError(f"{where}: expected samples along a first axis")
        labels: list[str | int | None] = [None] * len(x)
        if y_name in arrays:
            y = np.asarray(arrays[y_name])
            where_y = f"{name}, array {y_name!r}"
            labels = _labels(y, where_y, len(x), task, _names(name, arrays))
        elif labelled:
            raise DataError(f"{name} has no array {y_name!r}: classes of {x_name!r}")
        groups: list[str | None] = [None] * len(x)
        if group_name in arrays:
            group = np.asarray(arrays[group_name])
            if group.shape != (len(x),):
                raise DataError(
                    f"{name}, array {group_name!r}: expected shape ({len(x)},), got "
                    f"{group.shape}"
                )
            groups = [group_of(each) for each in group.tolist()]
        prefix = name if x_name == "x" or len(parts) == 1 else f"{name}/{x_name}"
        samples = _decoder(x, where, task, tokeniser)
        for row in range(len(x)):
            here = f"{prefix}#{row}"
            if labelled and labels[row] is None:
                yield Skipped(here, "its label is empty")
                continue
            facts = {
                "label": labels[row],
                "group": groups[row],
                "test": test or x_name == TEST_PART[0],
            }
            yield from samples(here, row, stamp, facts)


def _names(name: str, arrays: Mapping[str, Array]) -> tuple[str, ...]:
    """Return what a file calls its classes by number; empty if it does not say."""
    if CLASS_NAMES not in arrays:
        return ()
    names = np.asarray(arrays[CLASS_NAMES])
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise DataError(
            f"{name}, array {CLASS_NAMES!r}: expected names of shape (classes,), got "
            f"{names.dtype} {names.shape}"
        )
    return tuple(_words(names).tolist())


def _words(array: NDArray[Any]) -> NDArray[np.str_]:
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8", "replace")
    return array


def _labels(
    y: NDArray[Any], where: str, rows: int, task: Task, names: tuple[str, ...]
) -> list[str | int | None]:
    if y.shape == (rows, 1):
        y = y[:, 0]
    if y.shape != (rows,):
        raise DataError(f"{where}: expected shape ({rows},), got {y.shape}")
    y = _words(y)
    if y.dtype.kind == "U":
        return [class_word(word, task) or None for word in y.tolist()]
    numbers: list[int | None] = []
    for row, number in enumerate(y.tolist()):
        if isinstance(number, float) and np.isnan(number):
            numbers.append(None)
            continue
        if isinstance(number, complex) or number != int(number):
            raise DataError(
                f"{where}: {number} at index {row}: expected names of classes, or "
                f"whole numbers from 0 to {task.num_classes - 1}"
            )
        numbers.append(int(number))
    if not names and all(map(is_whole, task.classes)):
        return [None if n is None else class_word(str(n), task) for n in numbers]
    known = names or task.classes
    for row, n in enumerate(numbers):
        if n is not None and not 0 <= n < len(known):
            raise DataError(
                f"{where}: {n} at index {row}: expected 0 to {len(known) - 1}, "
                f"for {', '.join(known[:20])}"
            )
    if not names:
        return list(numbers)
    return [None if n is None else class_word(names[n], task) for n in numbers]


Decode = Callable[
    [str, int, tuple[int, ...], dict[str, Any]], Iterator[Found | Skipped]
]


def _decoder(x: Array, where: str, task: Task, tokeniser: Tokeniser) -> Decode:
    """Return what turns one row of an array into samples."""
    value: Callable[[NDArray[Any]], NDArray[Any]]
    note = ""
    match task:
        case SeriesTask():
            return _windows(x, where, task)
        case ImageTask():
            _check_kind(x, where, "numbers", "biuf")
            value = image_decoder(x, where, task)
            if task.size not in (x.shape[1:3], x.shape[-2:]):
                size = " x ".join(map(str, task.size))
                note = f"images of shape {x.shape[1:]} are brought to {size}"
        case TextTask():
            value = _text_decoder(x, where, task, tokeniser)
        case TableTask():
            _check_kind(x, where, "numbers", "biuf")
            if x.shape[1:] != task.input_shape:
                raise DataError(
                    f"{where}: expected shape (samples, {task.input_shape[0]}), "
                    f"categories as ones and zeros, got {x.shape}"
                )
            value = finite
            note = _too_fine(x, task)
        case _:
            raise DataError(f"{where}: no samples of {task.kind!r}")

    def samples(
        name: str, row: int, stamp: tuple[int, ...], facts: dict[str, Any]
    ) -> Iterator[Found | Skipped]:
        yield Found(
            name=name,
            value=lambda: value(x[row]),
            stamp=stamp,
            note=no_group(facts["group"], task) or note,
            **facts,
        )

    return samples


def _too_fine(x: Array, task: TableTask) -> str:
    """Return a note on the first column that 32 bits cannot tell apart; "" for none."""
    if x.dtype.itemsize <= 4:
        return ""
    some = x[:1024].astype(np.float64)
    pairs = zip(task.channel_names, some.T, strict=True)
    name = next((name for name, column in pairs if loses_steps(column)), None)
    return f"{name} {TOO_FINE}" if name is not None else ""


def _check_kind(x: Array, where: str, what: str, kinds: str) -> None:
    if x.dtype.kind not in kinds:
        raise DataError(f"{where}: expected {what}, got type {x.dtype}")


def finite(x: NDArray[Any]) -> NDArray[np.float32]:
    """Return numbers as float32; a missing one is NaN.

    Raises
    ------
    DataError
        If one is infinite, or too large.
    """
    with np.errstate(over="ignore"):
        found = np.array(x, dtype=np.float32, order="C")
    if np.isinf(found).any():
        raise DataError("has a number that is infinite or too large for 32 bits")
    return found


def _windows(x: Array, where: str, task: SeriesTask) -> Decode:
    _check_kind(x, where, "numbers", "biuf")
    channels, length = task.input_shape
    match x.shape[1:]:
        case (c, t) if (c, t) == (channels, length):
            turned = False
        case (t, c) if (t, c) == (length, channels):
            turned = True
        case (t, c) if c == channels and t > length:
            turned = True
        case (c, t) if c == channels and t > length:
            turned = False
        case (t,) if channels == 1 and t >= length:
            turned = False
        case _:
            raise DataError(
                f"{where}: expected shape (samples, {length}, {channels}) or (samples, "
                f"{channels}, {length}), or longer recordings, got {x.shape}"
            )

    def samples(
        name: str, row: int, stamp: tuple[int, ...], facts: dict[str, Any]
    ) -> Iterator[Found | Skipped]:
        starts = range(0, t - length + 1, task.step)
        group = facts["group"]
        if len(starts) > 1:
            group = window_group(group, name, task)
        for start in starts:
            yield Found(
                name=name if t == length else f"{name}:{start}",
                value=partial(window, row, start),
                stamp=stamp,
                note=no_group(facts["group"], task),
                **{**facts, "group": group},
            )

    def window(row: int, start: int) -> NDArray[np.float32]:
        whole = x[row].T if turned else x[row].reshape(channels, t)
        return finite(whole[:, start : start + length])

    return samples


def _text_decoder(
    x: Array, where: str, task: TextTask, tokeniser: Tokeniser
) -> Callable[[NDArray[Any]], NDArray[Any]]:
    if x.dtype.kind in "US" and len(x.shape) == 1:
        return partial(_word_ids, task=task, tokeniser=tokeniser)
    if x.dtype.kind not in "iu" or x.shape[1:] != task.input_shape:
        raise DataError(
            f"{where}: expected texts of shape (samples,), or ids of shape (samples, "
            f"{task.length}), got {x.dtype} {x.shape}"
        )
    return partial(_ids, task=task)


def _word_ids(text: Any, task: TextTask, tokeniser: Tokeniser) -> NDArray[Any]:
    word = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    return encoded(word, task, tokeniser)


def _ids(row: NDArray[Any], task: TextTask) -> NDArray[Any]:
    if row.size and not 0 <= row.min() <= row.max() < task.vocabulary:
        raise DataError(
            f"token ids from {row.min()} to {row.max()}: expected 0 to "
            f"{task.vocabulary - 1}"
        )
    return row.astype(stored_type(task))

"""What samples must be before a trained model can look at them.

A model that outlives its run keeps the task it was trained for: predicting needs
neither the data set nor the settings. Not here: files and messages that samples arrive
in (``common.serving``), and whether numbers can be of the task's scale
(``common.plausible``).
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.data import Normaliser
from common.errors import DataError
from common.plausible import impossible
from common.task import ImageTask, Task, TextTask, parse_task
from common.task.known import task_of_shape


class InputError(ValueError):
    """Samples that cannot be used; the message names the field and what it must be."""


def kept_task(facts: Mapping[str, Any]) -> Task:
    """Return the task that a run or a device has kept beside its model.

    Parameters
    ----------
    facts : mapping
        ``task`` as an object of JSON; in models kept before there were tasks,
        ``inputs``: shape, number of classes and normalisation.

    Raises
    ------
    ValueError
        If neither is there, or it says something that is not allowed.
    """
    if isinstance(facts.get("task"), dict):
        return parse_task(facts["task"])
    try:
        inputs = facts["inputs"]
        return task_of_shape(
            tuple(inputs["input_shape"]),
            inputs["num_classes"],
            Normaliser(**{k: _tuples(v) for k, v in inputs["normaliser"].items()}),
            inputs.get("vocabulary", 0),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the task of the model is missing ({error!r})") from None


def inputs_of(task: Task) -> dict[str, Any]:
    """Return what ``run.json`` says of a model's inputs, for who reads it.

    The task as the model sees it, worked out; the task itself stands beside it.
    """
    return {
        "input_shape": list(task.input_shape),
        "num_classes": task.num_classes,
        "kind": task.model_kind,
        "normaliser": asdict(task.normaliser),
        "vocabulary": task.vocabulary_size,
    }


def sample_bytes(task: Task) -> int:
    """Return the bytes of one sample as the model sees it."""
    return int(np.prod(task.input_shape)) * np.dtype(task.model_kind).itemsize


def unusable(task: Task, x: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which samples of (B, *stored) have values that are no numbers, shape (B,).

    NaN is a missing value in series and tables, and an error in images.
    """
    if x.dtype.kind != "f":
        return np.zeros(len(x), dtype=bool)
    # Also what float64 can hold and float32 cannot.
    bad = np.abs(x) > np.finfo(np.float32).max
    if isinstance(task, ImageTask):
        bad = bad | np.isnan(x)
    rows: NDArray[np.bool_] = bad.reshape(len(x), -1).any(axis=1)
    return rows


def prepare(task: Task, x: NDArray[Any], name: str = "x") -> NDArray[Any]:
    """Turn samples as somebody gave them, (B, *stored), into model input.

    As :func:`scaled`, which does not ask whether numbers can be of the task's scale.

    Raises
    ------
    InputError
        Naming ``name``, what it is and what is expected.
    """
    prepared = scaled(task, x, name)
    if fault := impossible(task, x, prepared):
        raise InputError(f"{name} {fault}")
    return prepared


def scaled(task: Task, x: NDArray[Any], name: str = "x") -> NDArray[Any]:
    """Turn samples as stored, (B, *stored), into model input (B, *input_shape).

    Raises
    ------
    InputError
        Naming ``name``, what it is and what is expected.
    """
    shape = task.input_shape
    if x.ndim < 2 or len(x) == 0:
        raise InputError(
            f"{name} has shape {x.shape}: expected samples of shape {shape} along a "
            "first axis of at least 1"
        )
    if isinstance(task, TextTask):
        return _token_ids(task, x, name)
    if x.dtype.kind not in "biuf":
        raise InputError(f"{name} is {x.dtype}: expected numbers")
    _check(unusable(task, x), name)
    try:
        prepared = task.normaliser.apply(x, shape)
    except DataError as error:
        raise InputError(f"{name}: {error}") from None
    _check(~np.isfinite(prepared).reshape(len(x), -1).all(axis=1), name)
    return prepared


def _check(bad: Any, name: str) -> None:
    if bad.any():
        raise InputError(f"{name} has NaN or infinity in sample {bad.argmax()}")


def _token_ids(task: TextTask, x: NDArray[Any], name: str) -> NDArray[np.int64]:
    if x.dtype.kind not in "iu" or x.shape[1:] != task.input_shape:
        raise InputError(
            f"{name} is {x.dtype} of shape {x.shape}: expected integers of shape "
            f"(samples, {', '.join(map(str, task.input_shape))})"
        )
    if not (x.min() >= 0 and x.max() < task.vocabulary):
        raise InputError(
            f"{name} has token ids from {x.min()} to {x.max()}: expected 0 to "
            f"{task.vocabulary - 1}"
        )
    return np.array(x, dtype=np.int64, order="C")


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value

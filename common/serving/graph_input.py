"""What an exported graph takes: samples in the task's own numbers, not yet scaled."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.data import Normaliser
from common.inputs import scaled
from common.plausible import full_is_known
from common.task import Fixed, ImageTask, Task


def samples_for(task: Task, count: int, seed: int = 0) -> NDArray[Any]:
    """Return made-up samples in the task's own numbers, (count, *input_shape)."""
    rng = np.random.default_rng(seed)
    shape = (count, *task.input_shape)
    if task.model_kind == "int64":
        # Not padding: texts that are nothing else say nothing of the model.
        return rng.integers(1, max(2, task.vocabulary_size), shape)
    image = isinstance(task, ImageTask) and full_is_known(task)
    if image or not isinstance(task.scale, Fixed):
        return (rng.random(shape) * task.full).astype(np.float32)
    channels = (-1, *(1,) * (len(task.input_shape) - 1))
    mean, std = (np.reshape(v, channels) for v in (task.scale.mean, task.scale.std))
    return (mean + std * rng.standard_normal(shape)).astype(np.float32)


def stored(task: Task, x: NDArray[Any]) -> NDArray[Any]:
    """Return samples in the task's own numbers, laid out as the graph takes them."""
    prepared = scaled(task, x)  # for its checks
    if task.model_kind == "int64":
        return prepared
    if isinstance(task, ImageTask):
        return Normaliser().apply(x, task.input_shape)
    return np.ascontiguousarray(x, dtype=np.float32)  # what is missing stays so

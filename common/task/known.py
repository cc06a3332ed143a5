"""The task of a data set that all share: derived from the set, not from a file."""

from collections.abc import Sequence

import numpy as np
from pydantic import ValidationError

from common.data.dataset import Dataset, Normaliser
from common.errors import DataError
from common.task.kinds import ImageTask, SeriesTask, TableTask, TextTask
from common.task.scale import Fixed
from common.task.task import Task


def task_of(dataset: Dataset, held_out: float = 0.2) -> Task:
    """Return the task of a data set; classes without a name are called by numbers.

    Parameters
    ----------
    dataset : Dataset
    held_out : float
        Share of a client's samples that it does not train on.

    Raises
    ------
    DataError
        If there is nothing to tell apart, or more than a task may have.
    """
    if dataset.num_classes < 2:
        raise DataError(f"dataset {dataset.name!r} has one class: expected 2 or more")
    try:
        return task_of_shape(
            dataset.input_shape,
            dataset.num_classes,
            dataset.normaliser,
            dataset.vocabulary,
            held_out,
            dataset.class_names,
        )
    except ValidationError as error:
        item = error.errors()[0]
        key = ".".join(map(str, item["loc"]))
        raise DataError(
            f"dataset {dataset.name!r}: {key} = {item['input']!r:.80} is not allowed: "
            f"{item['msg']}"
        ) from None


def task_of_shape(
    shape: tuple[int, ...],
    num_classes: int,
    normaliser: Normaliser,
    vocabulary: int = 0,
    held_out: float = 0.2,
    names: Sequence[str] = (),
) -> Task:
    """Return the task of samples of which no more is known than this.

    Parameters
    ----------
    shape : tuple of int
        Of a sample as the model sees it.
    num_classes : int
    normaliser : Normaliser
        Brings samples as stored to the model.
    vocabulary : int
        Token ids there are; 0 where samples are numbers.
    held_out : float
    names : sequence of str
        Of the classes; without, they are called by their numbers.
    """
    classes = tuple(names) or tuple(map(str, range(num_classes)))
    base = {"classes": classes, "held_out": held_out, "min_samples": 1}
    if vocabulary:
        return TextTask(length=shape[0], vocabulary=vocabulary, **base)
    scale = Fixed(mean=normaliser.mean, std=normaliser.std)
    if len(shape) == 3:
        return ImageTask(
            size=shape[1:],
            channels=shape[0],
            bright=normaliser.scale,
            scale=scale,
            **base,
        )
    if normaliser.scale != 1:
        full = np.float32(normaliser.scale)
        scale = Fixed(
            mean=tuple(float(np.float32(m) * full) for m in normaliser.mean),
            std=tuple(float(np.float32(s) * full) for s in normaliser.std),
        )
    if len(shape) == 2:
        return SeriesTask(channels=shape[0], length=shape[1], scale=scale, **base)
    return TableTask(columns=shape[0], scale=scale, **base)

"""A labelled data set in memory and the arithmetic that makes it a model's input.

Where the arrays come from is ``datasets``; who gets which rows is ``partition`` and
``clients``. Nothing here knows torch: ``normalise`` ends at NumPy.

Samples stay as they are stored (uint8 images, channels last) because a Raspberry Pi
can hold 150 MB of CIFAR-10 but not the 600 MB it becomes as float32. They are turned
into float32 NCHW one batch at a time. Texts are token ids in two bytes each; as model
input they are int64, and nothing is scaled.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from common.data.moments import blocks
from common.errors import DataError

Samples = NDArray[Any]
Labels = NDArray[np.int64]
Kind = Literal["float32", "int64"]
"""What a model computes with: numbers, or token ids."""

MAX_CHANNELS = 4

LONGEST_NAME = 100
"""Letters of a class's name, at most."""

FAR = 2.0**10
"""Beyond so many standard deviations from 0, float32 loses too much of a change."""


def input_shape_of(sample_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape a model sees for one stored row of a table or image.

    Parameters
    ----------
    sample_shape : tuple of int
        ``(features,)``, ``(height, width)``, ``(height, width, channels)`` or
        ``(channels, height, width)``; an axis of 1 to 4 is a channel axis, and the
        last axis is looked at first. Of a series, see ``windows``.

    Returns
    -------
    tuple of int
        ``(features,)`` or ``(channels, height, width)``.

    Raises
    ------
    DataError
        If the shape is none of these.
    """
    match sample_shape:
        case _ if 0 in sample_shape:
            pass
        case (features,):
            return (features,)
        case (height, width):
            return (1, height, width)
        case (height, width, channels) if channels <= MAX_CHANNELS:
            return (channels, height, width)
        case (channels, height, width) if channels <= MAX_CHANNELS:
            return (channels, height, width)
    raise DataError(
        f"a sample of shape {sample_shape} is neither (features,), (height, width), "
        "(height, width, channels) nor (channels, height, width) with 1 to "
        f"{MAX_CHANNELS} channels"
    )


def channel_axis(
    stored: tuple[int, ...], input_shape: tuple[int, ...], what: str = "samples"
) -> int | None:
    """Return which axis of samples (N, *stored) has the channels or columns.

    Returns
    -------
    int or None
        None where there is one channel and no axis for it.

    Raises
    ------
    DataError
        If such samples do not have ``input_shape``.
    """
    if stored == input_shape:
        return 1
    if (1, *stored) == input_shape:
        return None
    if len(stored) > 1 and (stored[-1], *stored[:-1]) == input_shape:
        return len(stored)
    raise DataError(f"{what} of shape {stored} do not fit {input_shape}")


@dataclass(frozen=True, kw_only=True)
class Normaliser:
    """``(x / scale - mean) / std``, per channel or column.

    The numbers are the same for all devices of a run: constants of a known set, or
    what was worked out of the training samples of all together. They are never
    statistics of the rows at hand.

    Attributes
    ----------
    scale : float
        The number of full brightness: 255 for images in bytes. 1 of anything else.
    mean, std : tuple of float
        One value per channel or column, or a single one for all.
    """

    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def apply(self, x: Samples, input_shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Turn stored samples, shape (B, *stored), into model input.

        A missing value, NaN, becomes 0: the mean.

        Returns
        -------
        ndarray of float32, shape (B, *input_shape)
            A new, contiguous, writable array.

        Raises
        ------
        DataError
            If the samples do not have ``input_shape``; see :func:`channel_axis`.
        """
        axis = channel_axis(x.shape[1:], input_shape)
        arranged = x[:, np.newaxis] if axis is None else np.moveaxis(x, axis, 1)
        per_channel = (-1, *[1] * (len(input_shape) - 1))
        mean, std = (
            np.asarray(each, np.float64).reshape(per_channel)
            for each in (self.mean, self.std)
        )
        if np.can_cast(x.dtype, np.float32) and (abs(mean) < FAR * std).all():
            out = np.array(arranged, dtype=np.float32, order="C")
            out -= mean.astype(np.float32) * np.float32(self.scale)
            out /= std.astype(np.float32) * np.float32(self.scale)
        else:
            # Small changes of large numbers: subtracted before they are rounded.
            out = np.empty(arranged.shape, dtype=np.float32)
            for rows, into in zip(blocks(arranged), blocks(out), strict=True):
                into[...] = (rows - mean * self.scale) / (std * self.scale)
        if x.dtype.kind == "f":
            for into in blocks(out):
                into[np.isnan(into)] = 0
        return out


def model_input(
    x: Samples, input_shape: tuple[int, ...], normaliser: Normaliser, kind: Kind
) -> NDArray[Any]:
    """Return samples as a model takes them: normalised, or token ids as they are.

    Raises
    ------
    DataError
        If the samples do not have ``input_shape``.
    """
    if kind == "float32":
        return normaliser.apply(x, input_shape)
    if x.shape[1:] != input_shape:
        raise DataError(f"tokens of shape {x.shape[1:]} do not fit {input_shape}")
    return x.astype(np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """A data set: training and global test samples with their labels.

    The arrays are read-only views: several virtual clients share one Ray worker, and
    one of them must not be able to change what the others see.

    Attributes
    ----------
    name : str
        What it was asked for by.
    x_train, x_test : ndarray, shape (N, *stored)
        Samples as stored: numbers of any type, NaN where one is missing; token ids of
        a small unsigned type.
    y_train, y_test : ndarray of int64, shape (N,)
        Labels in ``[0, num_classes)``.
    input_shape : tuple of int
        Shape of one sample after :meth:`normalise`: ``(channels, height, width)`` of an
        image, ``(channels, steps)`` of a series, ``(features,)`` or ``(tokens,)``.
    normaliser : Normaliser
        The numbers of :meth:`normalise`; not used on tokens.
    vocabulary : int
        Token ids there are; 0 where samples are numbers.
    class_names : tuple of str
        What classes are called, by number; empty where they have numbers only.
    owner_train : ndarray of int64, shape (N,), or None
        Whose sample it is: the clients of partition ``natural``. None where nobody
        knows.
    group_train : ndarray of int64, shape (N,), or None
        Rows with equal numbers are near-copies (frames of one recording) that no
        split may separate.
    """

    name: str
    x_train: Samples
    y_train: Labels
    x_test: Samples
    y_test: Labels
    num_classes: int
    input_shape: tuple[int, ...]
    normaliser: Normaliser = Normaliser()
    vocabulary: int = 0
    class_names: tuple[str, ...] = ()
    owner_train: Labels | None = None
    group_train: Labels | None = None

    def __post_init__(self) -> None:
        for field in vars(self):
            array = getattr(self, field)
            if isinstance(array, np.ndarray):
                view = array.view()
                view.flags.writeable = False
                object.__setattr__(self, field, view)

    @property
    def kind(self) -> Kind:
        """What :meth:`normalise` returns."""
        return "int64" if self.vocabulary else "float32"

    def normalise(self, x: Samples) -> NDArray[Any]:
        """Turn stored samples (B, *stored) into model input (B, *input_shape)."""
        return model_input(x, self.input_shape, self.normaliser, self.kind)

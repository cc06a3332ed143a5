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

from common.data.errors import DataError

Samples = NDArray[Any]
Labels = NDArray[np.int64]
Kind = Literal["float32", "int64"]
"""What a model computes with: numbers, or token ids."""

MAX_CHANNELS = 4


def input_shape_of(sample_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape a model sees for one stored sample.

    Parameters
    ----------
    sample_shape : tuple of int
        ``(features,)``, ``(height, width)``, ``(height, width, channels)`` or
        ``(channels, height, width)``; an axis of 1 to 4 is a channel axis, and the
        last axis is looked at first.

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


@dataclass(frozen=True, kw_only=True)
class Normaliser:
    """``(x / scale - mean) / std``, per channel.

    The numbers are constants of the data set, never statistics of the rows at hand:
    all devices of a fleet must agree on them, and none may have to tell its own.

    Attributes
    ----------
    scale : float
        The largest stored value: 255 for images in bytes.
    mean, std : tuple of float
        One value per channel, or a single one for all.
    """

    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def apply(self, x: Samples, input_shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Turn stored samples into model input.

        Parameters
        ----------
        x : ndarray, shape (B, *stored)
            Samples in their stored layout; see :func:`input_shape_of`.
        input_shape : tuple of int
            ``(channels, height, width)`` or ``(features,)``.

        Returns
        -------
        ndarray of float32, shape (B, *input_shape)
            A new, contiguous, writable array.

        Raises
        ------
        DataError
            If the samples do not have ``input_shape``.
        """
        stored = x.shape[1:]
        if stored == input_shape:
            arranged = x
        elif len(stored) == 2 and (1, *stored) == input_shape:
            arranged = x[:, np.newaxis]
        elif len(stored) == 3 and (stored[2], *stored[:2]) == input_shape:
            arranged = np.moveaxis(x, -1, 1)
        else:
            raise DataError(f"samples of shape {stored} do not fit {input_shape}")
        out = np.array(arranged, dtype=np.float32, order="C")
        per_channel = (-1, 1, 1) if len(input_shape) == 3 else (-1,)
        mean = np.asarray(self.mean, dtype=np.float32).reshape(per_channel)
        std = np.asarray(self.std, dtype=np.float32).reshape(per_channel)
        out -= mean * np.float32(self.scale)
        out /= std * np.float32(self.scale)
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
        The name it was asked for by.
    x_train, x_test : ndarray, shape (N, *stored)
        Samples as stored: uint8, or float32; token ids of a small unsigned type.
    y_train, y_test : ndarray of int64, shape (N,)
        Labels in ``[0, num_classes)``.
    num_classes : int
        Number of classes K.
    input_shape : tuple of int
        Shape of one sample after :meth:`normalise`: ``(channels, height, width)``,
        ``(features,)`` or ``(tokens,)``.
    normaliser : Normaliser
        The constants of :meth:`normalise`; not used on tokens.
    vocabulary : int
        Token ids there are; 0 where samples are numbers.
    owner_train : ndarray of int64, shape (N,), or None
        Whose sample it is, a number into ``owner_names``: the clients of partition
        ``natural``. None where nobody knows.
    owner_names : tuple of str
        Sorted.
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
    owner_train: Labels | None = None
    owner_names: tuple[str, ...] = ()
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

"""Which axes of a user's samples are what: images, or windows of a series.

An array of two axes may be either. A file can say so (``axes``); otherwise the backbone
decides: for series, it is a window, and its longer axis is the steps. What was made of
it is told in the log.
"""

import logging
from pathlib import Path

from common.data.dataset import Samples, input_shape_of
from common.errors import DataError

LONG = 8
"""So many times as long as wide, a sample is hardly an image."""

logger = logging.getLogger("flwr.expertfleet")

AXES = {"steps,channels": 1, "channels,steps": 0}
"""How a file may say what the two axes of a window are, and where its channels are."""


def series_shape_of(sample_shape: tuple[int, ...], axes: str = "") -> tuple[int, ...]:
    """Return the shape a model sees for one stored window of a series.

    Parameters
    ----------
    sample_shape : tuple of int
        ``(steps,)`` of one channel, ``(steps, channels)`` or ``(channels, steps)``.
    axes : str
        Of ``AXES``. Without it the longer of two axes is the steps.

    Returns
    -------
    tuple of int
        ``(channels, steps)``.

    Raises
    ------
    DataError
        If the shape is none of these, or the axes are of one length and nothing says
        which is which.
    """
    channels = steps = 0
    match sample_shape:
        case (steps,):
            channels = 1
        case (first, second) if axes or first != second:
            at = AXES[axes] if axes else int(first > second)
            channels, steps = sample_shape[at], sample_shape[1 - at]
        case (first, second):
            raise DataError(
                f"a sample of shape {sample_shape} may be (steps, channels) or "
                '(channels, steps): say which in an array axes, "steps,channels" or '
                '"channels,steps"'
            )
    if channels > 0 and steps > 1:
        return (channels, steps)
    raise DataError(
        f"a sample of shape {sample_shape} is no window of a series: expected "
        "(steps,), (steps, channels) or (channels, steps) with at least 2 steps"
    )


def arranged(
    path: Path, x_train: Samples, x_test: Samples, *, series: bool, axes: str
) -> tuple[Samples, Samples, tuple[int, ...]]:
    """Return samples with the channels of a series first, and the shape a model sees.

    Parameters
    ----------
    path : Path
        Their file, for messages.
    x_train, x_test : ndarray, shape (N, *stored)
    series : bool
        Whether samples of one or two axes are windows of a series.
    axes : str
        Of ``AXES``, what the file says; "" if nothing.

    Raises
    ------
    DataError
        If they have no shape that is known, or an ambiguous one.
    """
    stored = x_train.shape[1:]
    if axes and axes not in AXES:
        choice = " or ".join(f'"{each}"' for each in AXES)
        raise DataError(f"{path}, array 'axes': expected {choice}, got {axes!r}")
    try:
        if not axes and (not series or len(stored) > 2):
            shape = input_shape_of(stored)
            if len(stored) == 2 and max(stored) >= LONG * min(stored):
                logger.info(
                    "%s: samples of shape %s are images of one channel; of a series, "
                    'they need backbone = "cnn1d" or an array axes',
                    *(path, stored),
                )
            return x_train, x_test, shape
        shape = series_shape_of(stored, axes)
    except DataError as error:
        raise DataError(f"{path}, array 'x_train': {error}") from None
    logger.info(
        "%s: samples of shape %s are windows of %d steps of %d channel(s)",
        *(path, stored, shape[1], shape[0]),
    )
    if len(stored) == 2 and (axes == "steps,channels" or stored != shape):
        x_train, x_test = x_train.swapaxes(1, 2), x_test.swapaxes(1, 2)
    return x_train, x_test, shape

"""Image files as a person sees them, brought to the size and channels of the task.

Turned as the camera says, laid over white where it is transparent, 16 bits scaled to 8,
palettes and CMYK turned into colours. Of a moving picture, the first frame.
"""

import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from common.data.dataset import input_shape_of
from common.data.inflate import check_inflated, most_bytes
from common.errors import DataError
from common.task import ImageTask, stored_type
from common.text import reason

if TYPE_CHECKING:
    from PIL.Image import Image

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
FINE = 2
"""A large JPEG is decoded at no more than about this many times the size asked for."""


@cache
def image_endings() -> frozenset[str]:
    """Return the endings of files that can be opened, in small letters, with a dot."""
    from PIL import Image

    known = Image.registered_extensions()
    return frozenset(end for end, kind in known.items() if kind in Image.OPEN)


def read_image(
    path: Path, task: ImageTask, content: IO[bytes] | None = None
) -> NDArray[Any]:
    """Decode one image.

    Parameters
    ----------
    path : Path
        The file.
    content : file, optional
        What to decode instead, where ``path`` holds many images.

    Returns
    -------
    ndarray of the task's stored type, shape (height, width, channels)

    Raises
    ------
    DataError
        If it is none, broken or far too large; the message is the reason alone.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            # Of large images, whose size is checked here, and of small faults.
            warnings.simplefilter("ignore")
            with Image.open(path if content is None else content) as image:
                image.draft(None, (FINE * max(task.size),) * 2)
                size = image.width * image.height * len(image.getbands())
                check_inflated(path, size, most_bytes(path))
                image.load()
                return _fitted(_seen(image, task), task)
    except UnidentifiedImageError:
        empty = content is None and path.stat().st_size == 0
        raise DataError(
            "the file is empty" if empty else "no image that can be read"
        ) from None
    except Image.DecompressionBombError:
        raise DataError("far too large for an image") from None
    except DataError:
        raise
    except Exception as error:  # whatever a broken file does to a decoder
        raise DataError(f"cannot be read as an image: {reason(error)}") from None


def _seen(image: "Image", task: ImageTask) -> "Image":
    """Return the image turned upright and in the mode of the task's channels.

    One of 16 bits or of floats, and for one channel, stays in floats, 0 to 255: it has
    more steps than bytes have.
    """
    from PIL import Image, ImageOps

    with suppress(Exception):  # broken notes of a camera do not spoil the picture
        image = ImageOps.exif_transpose(image)
    mode = MODES[task.channels]
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_brightness(np.asarray(image), task))
        if mode == "L" and task.full != 255:
            return image
        image = Image.fromarray(np.rint(np.asarray(image)).astype(np.uint8))
    see_through = "transparency" in image.info or image.mode in (
        *("LA", "La", "PA"),
        *("RGBA", "RGBa"),
    )
    if see_through and mode in ("L", "RGB"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    elif image.mode in ("P", "PA", "La", "RGBa", "CMYK") and image.mode != mode:
        image = image.convert("RGBA" if see_through else "RGB")
    return image.convert(mode)


def _brightness(values: NDArray[Any], task: ImageTask) -> NDArray[np.float32]:
    """Return brightness of 0 to 255: of 16 bits, or of floats from 0 to 1.

    Or up to what the task calls bright, if that is more than bytes have. No image says
    it for itself: a dark one would be read in another scale than the others.
    """
    least, most = float(values.min()), float(values.max())
    full = 1.0 if values.dtype.kind == "f" else 2**16 - 1.0
    full = task.full if task.full > 255 else full
    if not (least >= 0 and most <= full):
        raise DataError(
            f"brightness from {least:g} to {most:g}: expected 0 to {full:g}, or up to "
            "what the task calls bright"
        )
    return values.astype(np.float32) * np.float32(255.0 / full)


def _fitted(image: "Image", task: ImageTask) -> NDArray[Any]:
    """Return the image in the task's size, by resizing or from its centre."""
    from PIL import Image, ImageOps

    height, width = task.size
    if task.how == "crop":
        image = ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)
    elif image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    x = np.asarray(image).reshape(height, width, task.channels)
    if x.dtype.kind == "f":  # what a curve through pixels may leave
        x = x.clip(0, 255)
    return stored_brightness(x, task)


def stored_brightness(x: NDArray[Any], task: ImageTask) -> NDArray[Any]:
    """Bring brightness of 0 to 255 to that of the task, in its stored type."""
    return _stored(x, 255.0, task)


def image_decoder(
    x: Any, where: str, task: ImageTask
) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return what turns one of many images in an array into a stored sample.

    Parameters
    ----------
    x : ndarray, shape (N, *one)
        Or anything that is sliced like one. One is (height, width), (height, width,
        channels) or (channels, height, width): what fits the task, or else channels
        are looked for at the end first. Numbers up to 255, of 16 bits, floats from 0
        to 1; of a task whose full brightness is not 255, numbers up to that.
    where : str
        What it is, for messages.

    Raises
    ------
    DataError
    """
    try:
        if len(x.shape) not in (3, 4):
            raise DataError(f"samples of shape {x.shape[1:]} are no images")
        whole = task.channels, *task.size
        channels_first = x.shape[1:] != (*whole[1:], whole[0]) and (
            x.shape[1:] == whole or input_shape_of(x.shape[1:]) == x.shape[1:]
        )
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    full = _full(x, where, task)

    def decode(one: NDArray[Any]) -> NDArray[Any]:
        if one.dtype.kind == "f" and not np.isfinite(one).all():
            raise DataError("has a number that is NaN or infinite")
        if one.ndim == 2:
            one = one[:, :, None]
        elif channels_first:
            one = np.moveaxis(one, 0, -1)
        if one.shape == (*task.size, task.channels):
            return _stored(one, full, task)
        return _drawn(np.rint(one * (255.0 / full)).astype(np.uint8), task)

    return decode


def _drawn(x: NDArray[np.uint8], task: ImageTask) -> NDArray[Any]:
    from PIL import Image

    image = Image.fromarray(x[:, :, 0] if x.shape[2] == 1 else np.ascontiguousarray(x))
    return _fitted(_seen(image, task), task)


def _full(x: Any, where: str, task: ImageTask) -> float:
    """Return the number that stands for full brightness in an array."""
    if x.dtype == np.uint8 and task.full == 255:
        return 255.0
    if x.dtype == np.bool_:
        return 1.0
    least, most = np.inf, -np.inf
    for start in range(0, len(x), 256):
        some = x[start : start + 256]
        some = some[np.isfinite(some)] if some.dtype.kind == "f" else some
        if some.size:
            least, most = min(least, some.min()), max(most, some.max())
    steps: tuple[float, ...] = (1.0, 255.0)
    if x.dtype.kind in "iu":
        steps = (255.0, 65535.0)
    if x.dtype == np.uint16:
        steps = (65535.0,)
    if task.full != 255:
        steps = (task.full,)
    full = next((each for each in steps if most <= each), None)
    if least < 0 or full is None:
        raise DataError(
            f"{where}: brightness from {least:g} to {most:g}: expected 0 to "
            f"{' or '.join(f'{each:g}' for each in steps)}"
        )
    return full


def _stored(x: NDArray[Any], full: float, task: ImageTask) -> NDArray[Any]:
    dtype = stored_type(task)
    if full == task.full and x.dtype == dtype:
        return np.ascontiguousarray(x)
    scaled = x.astype(np.float32) * np.float32(task.full / full)
    return (np.rint(scaled) if dtype.kind == "u" else scaled).astype(dtype)

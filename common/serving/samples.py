"""Samples from files: the array ``x`` of an ``.npz``, or a folder of images."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.inputs import InputError, Inputs

MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def read_samples(path: Path, inputs: Inputs) -> tuple[list[str], NDArray[Any]]:
    """Read what a user wants answered.

    Parameters
    ----------
    path : Path
        An ``.npz`` file with the array ``x``, or a folder of image files, which are
        converted to the model's channels and size.
    inputs : Inputs
        Of the model.

    Returns
    -------
    names : list of str
        File names, or row numbers.
    x : ndarray, shape (B, *stored)
        Samples as stored, not yet normalised.

    Raises
    ------
    InputError
        Naming the file and what is wrong with it.
    """
    if path.is_dir():
        return _read_images(path, inputs)
    if not path.exists():
        raise InputError(f"{path} does not exist: expected an .npz file or a folder")
    x = _read_npz(path)
    return [str(row) for row in range(len(x) if x.ndim else 0)], x


def _read_npz(path: Path) -> NDArray[Any]:
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is neither an .npz file nor a folder of images")
    try:
        with np.load(path, allow_pickle=False) as archive:
            if "x" not in archive.files:
                found = ", ".join(sorted(archive.files)) or "none"
                raise InputError(f"{path} has no array 'x' (it has {found})")
            x: NDArray[Any] = archive["x"]
            return x
    except InputError:
        raise
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}, array 'x': cannot be read ({error})") from None


def _read_images(folder: Path, inputs: Inputs) -> tuple[list[str], NDArray[Any]]:
    # Late: a device that predicts from arrays needs no image library in memory.
    from PIL import Image, UnidentifiedImageError

    shape = inputs.input_shape
    if len(shape) != 3 or shape[0] not in MODES or inputs.kind != "float32":
        raise InputError(f"{folder}: the model takes no images but {shape} per sample")
    channels, height, width = shape
    known = Image.registered_extensions()
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in known)
    if not files:
        raise InputError(f"{folder} has no image files")
    images = []
    for path in files:
        try:
            with Image.open(path) as image:
                fitted = image.convert(MODES[channels]).resize((width, height))
            images.append(np.asarray(fitted).reshape(height, width, channels))
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise InputError(f"{path} cannot be read as an image: {error}") from None
    x = np.stack(images)
    if inputs.normaliser.scale == 255:
        return [p.name for p in files], x
    # The data set counts brightness to another number than image files do.
    scaled = x.astype(np.float32) * np.float32(inputs.normaliser.scale / 255)
    return [p.name for p in files], scaled

"""Training images as they might have been: transforms of ``torchvision.transforms.v2``.

Every image is changed for itself, on the processor, at its brightness from 0 to 1, and
normalised again: what is measured, predicted or said of the data is of images as they
are. torchvision is imported where ``augment`` is set and nowhere else.
"""

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from common.data import Normaliser
from common.errors import SettingsError, nearest
from common.settings.augment_text import NamedTransform, parse_augment
from common.text import reason

TRIED = 32
"""Images a transform is tried on: most have their chance to do something."""


class Augment:
    """Changes batches of images.

    Parameters
    ----------
    transforms : list of callable
        Each maps an image (C, H, W) to another.
    normaliser : Normaliser
        How images are brought to the model.
    """

    def __init__(
        self, transforms: list[Callable[[Any], Any]], normaliser: Normaliser
    ) -> None:
        self._transforms = transforms
        self._mean, self._std = (
            torch.tensor(each, dtype=torch.float32)[:, None, None]
            for each in (normaliser.mean, normaliser.std)
        )

    def __call__(self, x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Return changed images, shape (B, C, H, W), on the same device.

        Parameters
        ----------
        x : Tensor of float, shape (B, C, H, W)
            Normalised.
        rng : Generator
            Decides all; the same stream gives the same bits.
        """
        bright = x.cpu() * self._std + self._mean
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(rng.integers(2**63)))
            changed = torch.stack([self._of(image) for image in bright])
        return ((changed - self._mean) / self._std).to(x.device)

    def _of(self, image: torch.Tensor) -> torch.Tensor:
        for transform in self._transforms:
            image = transform(image)
        return image


@lru_cache(maxsize=8)
def find_augment(
    text: str, input_shape: tuple[int, ...], normaliser: Normaliser
) -> Augment | None:
    """Return what ``augment`` names, for images of a shape; None for "".

    A transform that needs a ``size`` and is given none gets that of the images.

    Raises
    ------
    SettingsError
        If samples are no images, there is no such transform, or it cannot be used.
    """
    named = parse_augment(text)
    if not named:
        return None
    if len(input_shape) != 3:
        raise _error(
            text,
            f"is not allowed with samples of shape {input_shape}: it is for images",
        )
    transforms = [_made(text, each, input_shape) for each in named]
    return Augment(transforms, normaliser)


def try_augment(text: str, input_shape: tuple[int, ...]) -> None:
    """Check that transforms leave images what they are.

    Raises
    ------
    SettingsError
        Naming the setting and why not.
    """
    if (augment := find_augment(text, input_shape, Normaliser())) is None:
        return
    x = torch.full((TRIED, *input_shape), 0.5)
    try:
        changed = augment(x, np.random.default_rng(0))
    except Exception as error:  # whatever torchvision says of an image
        raise _error(text, f"cannot be used: {reason(error)}") from error
    if changed.shape != x.shape or changed.dtype != x.dtype:
        shape, expected = tuple(changed.shape[1:]), tuple(x.shape[1:])
        raise _error(
            text, f"gives {changed.dtype} of shape {shape}: expected floats {expected}"
        )


def _made(
    text: str, named: NamedTransform, input_shape: tuple[int, ...]
) -> Callable[[Any], Any]:
    from torchvision.transforms import v2

    names = [
        name
        for name, found in vars(v2).items()
        if inspect.isclass(found) and issubclass(found, v2.Transform)
    ]
    if named.name not in names:
        hint = nearest(named.name, names)
        raise _error(text, f"has no such transform: {named.name!r}{hint}")
    kind = getattr(v2, named.name)
    keywords = dict(named.keywords)
    try:
        parameters = inspect.signature(kind).parameters
        bound = inspect.signature(kind).bind_partial(*named.given, **keywords)
        size = parameters.get("size")
        needed = size is not None and size.default is inspect.Parameter.empty
        if needed and "size" not in bound.arguments:
            keywords["size"] = input_shape[1:]
        made: Callable[[Any], Any] = kind(*named.given, **keywords)
    except Exception as error:  # whatever torchvision says of its arguments
        raise _error(text, f"cannot be used: {named.name}: {reason(error)}") from error
    return made


def _error(text: str, why: str) -> SettingsError:
    return SettingsError(f"augment = {text!r} {why}")

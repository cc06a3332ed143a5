"""How a network sees images: size, scale, interpolation, order of colours.

It is part of what weights are: each come with their own, a setting may differ. What a
run uses is written into its task, from where devices, ``predict``, serving and exports
have it. Needs no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from common.errors import SettingsError
from common.settings.preprocessing import parse_preprocessing
from common.task import Fixed, ImageTask, Preprocessing


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a network sees images.

    Attributes
    ----------
    size : tuple of int
        Height and width.
    mean, std : tuple of float
        Of each colour, where full brightness is 1.
    interpolation : {"nearest", "bilinear", "bicubic"}
    channels : {"rgb", "bgr"}
    """

    size: tuple[int, int] = (224, 224)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    channels: str = "rgb"

    def with_setting(self, text: str) -> "Look":
        """Return the same with what the setting ``preprocessing`` says."""
        return replace(self, **parse_preprocessing(text))

    def scale(self, channels: int) -> Fixed:
        """Return it as the scale of a task; of grey images, the mean of the colours.

        In the task's order, red first.
        """
        pairs = [self.mean, self.std]
        if self.channels == "bgr":
            pairs = [values[::-1] for values in pairs]
        if channels == 1:
            pairs = [(sum(values) / len(values),) for values in pairs]
        return Fixed(mean=pairs[0], std=pairs[1])

    def in_task(self, task: ImageTask) -> ImageTask:
        """Return a task with this in it; what it says itself stays.

        Raises
        ------
        SettingsError
            If its images have two channels, or four.
        """
        if task.channels not in (1, 3):
            raise SettingsError(
                f"channels = {task.channels} is not allowed with a network of images: "
                "3, or 1 for grey"
            )
        own = task.model_fields_set
        update: dict[str, Any] = {}
        if "preprocessing" not in own or task.preprocessing is None:
            update["preprocessing"] = Preprocessing(
                size=self.size,
                interpolation=self.interpolation,
                channels=self.channels,
            )
        if "scale" not in own:
            update["scale"] = self.scale(task.channels)
        return task.model_copy(update=update)


def look_from(config: Mapping[str, Any], known: Look) -> Look:
    """Return what timm's ``pretrained_cfg`` says, and the rest as it is known."""
    found: dict[str, Any] = {}
    if size := config.get("input_size"):
        found["size"] = tuple(size[1:])
    for key in ("mean", "std"):
        if values := config.get(key):
            found[key] = tuple(map(float, values))
    if (how := config.get("interpolation")) in ("nearest", "bilinear", "bicubic"):
        found["interpolation"] = how
    return replace(known, **found)

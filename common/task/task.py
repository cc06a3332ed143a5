"""The task: kind, classes, shape and scale of the samples of a run.

It is the only source of these for the model, devices, predict, serve and export. The
server reads it from a file (``task_file``) or derives it from a data set
(``known``), sends it with every query and order, and keeps it in the run and in every
model. A device maps the *names* of classes to the task's numbers; it never numbers
classes of its own.

Here is what all kinds have; the kinds are in ``kinds``. Not here: files that samples
are read from (``common.own``).
"""

import hashlib
import json
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from common.data.dataset import Kind, Normaliser
from common.errors import SettingsError
from common.task.scale import Fixed, Moments, fixed_scale

Name = Annotated[str, Field(min_length=1, max_length=100)]
Scale = Literal["fleet", "none"] | Fixed


def kebab(name: str) -> str:
    """Return how a field is spelled in a file."""
    return name.replace("_", "-")


class Part(BaseModel):
    """What a task is made of: frozen, nothing unknown, keys in kebab case."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        alias_generator=kebab,
        validate_by_name=True,
    )


class Task(Part):
    """What all kinds of tasks have; see :func:`parse_task`.

    Attributes
    ----------
    classes : tuple of str
        Names of the classes, in the order of the model's outputs.
    label_column, group_column : str
        Where files have columns or fields: the class, and what rows must stay
        together by ("" for nothing).
    held_out : float
        Share of a device's samples that it does not train on.
    min_samples : int
        A device with fewer samples takes no part.
    scale : "fleet", "none" or Fixed
        ``fleet`` until the server has worked it out of what all devices have.
    reader : str
        Of the registry of own readers; "" for what the files themselves say.
    """

    kind: str
    classes: Annotated[
        tuple[Name, ...],
        Field(min_length=2, max_length=10_000, description="a list of 2 or more names"),
    ]
    label_column: str = "label"
    group_column: str = ""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.2
    min_samples: Annotated[int, Field(ge=1, le=10**9)] = 10
    scale: Scale = "fleet"
    reader: str = ""

    # What a channel is called in a sentence.
    channel_word: ClassVar[str] = "channel"

    @field_validator("classes")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        # What files say is compared without spaces, and in one form of Unicode.
        plain = [unicodedata.normalize("NFC", name.strip()) for name in names]
        double = next((n for n in plain if not n or plain.count(n) > 1), None)
        if double is not None:
            raise ValueError(
                f"{double!r} is there twice" if double else "a name is empty"
            )
        return names

    @model_validator(mode="after")
    def _scale_fits(self) -> Self:
        if isinstance(self.scale, Fixed):
            for word in ("mean", "std"):
                given = len(getattr(self.scale, word))
                if given not in (1, self.num_channels):
                    raise SettingsError(
                        f"scale.{word} has {given} numbers: expected one per "
                        f"{self.channel_word}, {self.num_channels}, or one for all"
                    )
        return self

    @property
    def num_classes(self) -> int:
        """Classes K."""
        return len(self.classes)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample as the model sees it."""
        raise NotImplementedError

    @property
    def num_channels(self) -> int:
        """How many numbers a scale has; see :attr:`channel_names`."""
        return self.input_shape[0]

    @property
    def channel_names(self) -> tuple[str, ...]:
        """What each of them is called."""
        return tuple(str(each) for each in range(self.num_channels))

    @property
    def model_kind(self) -> Kind:
        """What the model computes with."""
        return "float32"

    @property
    def vocabulary_size(self) -> int:
        """Token ids there are; 0 where samples are numbers."""
        return 0

    @property
    def full(self) -> float:
        """What samples are divided by before ``scale``; 255 for images in bytes."""
        return 1.0

    @property
    def plain_channels(self) -> tuple[bool, ...] | None:
        """Which channels a scale of the fleet leaves alone."""
        return None

    @property
    def needs_moments(self) -> bool:
        """Whether the scale is still to be worked out."""
        return self.scale == "fleet"

    @property
    def normaliser(self) -> Normaliser:
        """The arithmetic of the scale; while it is not known, only ``full``."""
        if isinstance(self.scale, Fixed):
            return Normaliser(scale=self.full, mean=self.scale.mean, std=self.scale.std)
        return Normaliser(scale=self.full)

    def scaled_by(self, moments: Moments | None) -> Self:
        """Return the same task with the fleet's scale in it."""
        if not self.needs_moments or moments is None:
            return self
        scale = fixed_scale(moments, self.plain_channels)
        return self.model_copy(update={"scale": scale})

    @property
    def number_of(self) -> Mapping[str, int]:
        """The number of every class by its name."""
        return _numbers(self.classes)

    def to_json(self) -> str:
        """Return one line that :func:`task_from_json` reads."""
        fields = self.model_dump(by_alias=True, exclude_defaults=True, mode="json")
        return json.dumps({"kind": self.kind, **fields}, separators=(",", ":"))

    @property
    def digest(self) -> str:
        """Hash of all but the scale, which is only known later."""
        text = self.model_copy(update={"scale": "fleet"}).to_json()
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@lru_cache(maxsize=8)  # asked for every sample that is read
def _numbers(classes: tuple[str, ...]) -> Mapping[str, int]:
    return {name: number for number, name in enumerate(classes)}

"""The kinds of tasks: images, series, tables and texts.

Each says what shape a sample has and which of its numbers are scaled together.
"""

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Field, field_validator

from common.data.dataset import Kind
from common.task.task import Name, Part, Task


class Preprocessing(Part):
    """How a network that others made is shown the images; see ``scale`` for the rest.

    Attributes
    ----------
    size : tuple of int
        Height and width.
    interpolation : {"nearest", "bilinear", "bicubic"}
    channels : {"rgb", "bgr"}
        The order of colours it was trained with.
    """

    size: Annotated[
        tuple[
            Annotated[int, Field(ge=8, le=4096)], Annotated[int, Field(ge=8, le=4096)]
        ],
        Field(description="[height, width], 8 to 4096 each"),
    ]
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    channels: Literal["rgb", "bgr"] = "rgb"


class ImageTask(Task):
    """Pictures; every one is brought to one size."""

    kind: Literal["image"] = "image"
    size: Annotated[
        tuple[
            Annotated[int, Field(ge=1, le=4096)], Annotated[int, Field(ge=1, le=4096)]
        ],
        Field(description="[height, width], 1 to 4096 each"),
    ]
    channels: Literal[1, 2, 3, 4] = 3
    how: Literal["resize", "crop"] = "resize"
    bright: Annotated[float, Field(gt=0)] = 255.0
    preprocessing: Preprocessing | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(channels, height, width)."""
        return (self.channels, *self.size)

    @property
    def full(self) -> float:
        """The number of full brightness."""
        return self.bright


def _names(value: Any) -> Any:
    """Turn a number of channels into their names."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10**5:
        return tuple(str(each) for each in range(value))
    return value


class SeriesTask(Task):
    """Windows of sensor readings: ``length`` steps of some channels."""

    kind: Literal["series"] = "series"
    channels: Annotated[
        tuple[Name, ...],
        BeforeValidator(_names),
        Field(
            min_length=1,
            max_length=4096,
            description="a list of the names of columns, or how many there are",
        ),
    ]
    length: Annotated[int, Field(ge=2, le=2**20)]
    stride: Annotated[int, Field(ge=0, le=2**20)] = 0
    rate: Annotated[float, Field(ge=0)] = 0.0

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(channels, length)."""
        return (len(self.channels), self.length)

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Of the file's columns."""
        return self.channels

    @property
    def step(self) -> int:
        """Readings between the starts of two windows; without ``stride``, a window."""
        return self.stride or self.length


class Column(Part):
    """One column of a table: a number, or one of the ``values``.

    Attributes
    ----------
    name, unit : str
        The unit is for people.
    values : tuple of str
        Of a category, which becomes one input for each; empty for a number.
    """

    name: Name
    unit: str = ""
    values: Annotated[tuple[Name, ...], Field(max_length=10_000)] = ()

    @property
    def width(self) -> int:
        """Inputs of the model it becomes."""
        return max(1, len(self.values))


class TableTask(Task):
    """Rows of named columns; as many without a name where ``columns`` is a number."""

    kind: Literal["table"] = "table"
    columns: Annotated[
        Annotated[tuple[Column, ...], Field(min_length=1, max_length=10_000)]
        | Annotated[int, Field(ge=1, le=2**24)],
        Field(description="a list of names and of {name, unit, values}, or how many"),
    ]

    channel_word: ClassVar[str] = "column"

    @field_validator("columns", mode="before")
    @classmethod
    def _plain_names(cls, value: Any) -> Any:
        """Take a bare name for a column of numbers."""
        if isinstance(value, list | tuple):
            return tuple({"name": c} if isinstance(c, str) else c for c in value)
        return value

    @field_validator("columns")
    @classmethod
    def _columns_once(cls, value: Any) -> Any:
        names = [] if isinstance(value, int) else [column.name for column in value]
        double = next((n for n in names if names.count(n) > 1), None)
        if double is not None:
            raise ValueError(f"{double!r} is there twice")
        return value

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(inputs,): one for each number, one for each value of a category."""
        if isinstance(self.columns, int):
            return (self.columns,)
        return (sum(column.width for column in self.columns),)

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Of the inputs: a column, or ``column=value``."""
        if isinstance(self.columns, int):
            return super().channel_names
        return tuple(
            f"{column.name}={value}" if column.values else column.name
            for column in self.columns
            for value in column.values or ("",)
        )

    @property
    def plain_channels(self) -> tuple[bool, ...] | None:
        """Categories: they are ones and zeros already."""
        if isinstance(self.columns, int):
            return None
        return tuple(bool(c.values) for c in self.columns for _ in range(c.width))


class TextTask(Task):
    """Texts; ``length`` and ``vocabulary`` are those of the tokeniser."""

    kind: Literal["text"] = "text"
    text_column: str = "text"
    length: Annotated[int, Field(ge=1, le=4096)] = 64
    vocabulary: Annotated[int, Field(ge=3, le=2**24)] = 4096
    scale: Literal["none"] = "none"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(tokens,)."""
        return (self.length,)

    @property
    def num_channels(self) -> int:
        """None is scaled."""
        return 0

    @property
    def model_kind(self) -> Kind:
        """Token ids."""
        return "int64"

    @property
    def vocabulary_size(self) -> int:
        """Token ids there are."""
        return self.vocabulary


def stored_type(task: Task) -> np.dtype[Any]:
    """Return the type in which samples are kept: bytes, float32 or small ids.

    Images are bytes where 255 is full brightness; fewer steps than a file has would
    lose what is in it.
    """
    if isinstance(task, ImageTask) and task.full == 255:
        return np.dtype(np.uint8)
    if isinstance(task, TextTask):
        return np.min_scalar_type(task.vocabulary - 1)
    return np.dtype(np.float32)

"""What a sample must be before a trained model can look at it.

Kept beside every model that outlives its run, so that predicting needs neither the data
set nor the settings. Not here: files and messages that samples arrive in
(``common.serving``).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from common.data import DataError, Dataset, Kind, Normaliser


class InputError(ValueError):
    """Samples that cannot be used; the message names the field and what it must be."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Shape, type and normalisation of one model's samples.

    Attributes
    ----------
    input_shape : tuple of int
        Of one sample as the model sees it.
    num_classes : int
    kind : {"float32", "int64"}
        What the model computes with: numbers to be normalised, or tokens.
    normaliser : Normaliser
        Of ``float32``; tokens are used as they are.
    vocabulary : int
        Token ids are below it; 0 for numbers.
    """

    input_shape: tuple[int, ...]
    num_classes: int
    kind: Kind = "float32"
    normaliser: Normaliser = field(default_factory=Normaliser)
    vocabulary: int = 0

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        """Return what models trained on a data set take."""
        return cls(
            input_shape=dataset.input_shape,
            num_classes=dataset.num_classes,
            kind=dataset.kind,
            vocabulary=dataset.vocabulary,
            normaliser=dataset.normaliser,
        )

    def facts(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return asdict(self)

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Self:
        """Return what :meth:`facts` described.

        Raises
        ------
        ValueError
            If a field is missing or unknown.
        """
        try:
            scale = {k: _tuples(v) for k, v in facts["normaliser"].items()}
            fields = {k: _tuples(v) for k, v in facts.items()}
            return cls(**fields | {"normaliser": Normaliser(**scale)})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no description of a model's input: {error}") from None

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample as the model sees it."""
        return int(np.prod(self.input_shape)) * np.dtype(self.kind).itemsize

    def prepare(self, x: NDArray[Any], name: str = "x") -> NDArray[Any]:
        """Turn samples as stored, (B, *stored), into model input (B, *input_shape).

        Raises
        ------
        InputError
            Naming ``name``, what it is and what is expected.
        """
        if x.ndim < 2 or len(x) == 0:
            raise InputError(
                f"{name} has shape {x.shape}: expected samples of shape "
                f"{self.input_shape} along a first axis of at least 1"
            )
        if self.kind == "int64":
            if x.dtype.kind not in "iu" or x.shape[1:] != self.input_shape:
                raise InputError(
                    f"{name} is {x.dtype} of shape {x.shape}: expected integers of "
                    f"shape (samples, {', '.join(map(str, self.input_shape))})"
                )
            if self.vocabulary and not (x.min() >= 0 and x.max() < self.vocabulary):
                raise InputError(
                    f"{name} has token ids from {x.min()} to {x.max()}: expected 0 to "
                    f"{self.vocabulary - 1}"
                )
            return np.ascontiguousarray(x, dtype=np.int64)
        if x.dtype != np.uint8 and x.dtype.kind != "f":
            raise InputError(f"{name} is {x.dtype}: expected uint8 or float32")
        try:
            prepared = self.normaliser.apply(x, self.input_shape)
        except DataError as error:
            raise InputError(f"{name}: {error}") from None
        if x.dtype.kind == "f" and not np.isfinite(prepared).all():
            bad = int((~np.isfinite(prepared)).reshape(len(x), -1).any(1).argmax())
            raise InputError(f"{name} has NaN or infinity in sample {bad}")
        return prepared


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value

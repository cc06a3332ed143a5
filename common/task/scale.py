"""How a task's numbers are brought to about 0 +- 1, and what it is worked out from.

Every device returns the moments of its own samples, per channel (images, series) or
per column (tables); the server merges them exactly as if the samples lay in one place
and fixes one mean and one standard deviation for all (``common.data.moments``).
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from common.data.moments import Moments, standardising

__all__ = ["Fixed", "Moments", "fixed_scale"]

Numbers = tuple[Annotated[float, Field(allow_inf_nan=False)], ...]


def _above_zero(values: Numbers) -> Numbers:
    if not all(value > 0 for value in values):
        raise ValueError("every std is above 0")
    return values


class Fixed(BaseModel):
    """A scale that is known: ``(x - mean) / std``, one number per channel or column.

    A single number is meant for all of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: Numbers
    std: Annotated[Numbers, AfterValidator(_above_zero)]


def fixed_scale(moments: Moments, plain: Sequence[bool] | None = None) -> Fixed:
    """Return the scale that gives samples with these moments mean 0 and std 1.

    Parameters
    ----------
    plain : sequence of bool, shape (channels,), optional
        Channels that stay as they are: the ones and zeros of a category.
    """
    mean, std = standardising(moments, plain)
    return Fixed(mean=mean, std=std)

"""What all payloads are made of: scalars, typed and validated on arrival.

An unknown version, key, type or range is refused with a reason before anything is
used. The payloads themselves are in ``order`` and ``replies``.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from flwr.app import ConfigRecord
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
)

from common.text import CLIENT_NAME, CLIENT_NAME_RULE, RUN_NAME, one_line

PROTOCOL: Literal[8] = 8

Count = Annotated[int, Field(ge=0, lt=2**53)]
Samples = Annotated[int, Field(ge=0, le=10**9)]
"""Samples of one device: a fleet's sum of what they are routed as fits 64 bits."""
Experts = Annotated[int, Field(ge=0, le=10**6)]
Share = Annotated[float, Field(ge=0, le=1)]


def _at_most(limit: float) -> AfterValidator:
    """Cut a measurement: beyond its limit it says no more, and sums would overflow."""
    return AfterValidator(lambda value: min(value, limit))


Loss = Annotated[float, Field(ge=0), _at_most(1e6)]
"""Mean cross-entropy, in nats; what a sane training ends with is below ten."""
Nats = Annotated[float, Field(ge=0, le=0.37)]
"""An expert's share of an information is at most its -p log p, which is at most 1/e."""
Seconds = Annotated[float, Field(ge=0), _at_most(1e9)]
Finite = Annotated[float, Field(ge=-1e300, le=1e300)]
Projected = Annotated[float, Field(ge=-1e7, le=1e7)]
"""A mean of projected samples; scaled inputs project to a few."""
Covariance = Annotated[float, Field(ge=-1e14, le=1e14)]
"""Of such; a fleet's sum of them, times samples, stays a number."""
Amount = Annotated[float, Field(ge=0, le=1e300)]
Rate = Annotated[float, Field(ge=0, le=1e24)]
_RULES: dict[str, str] = {}


def _matching(pattern: str, rule: str) -> Any:
    """Return the constraint of a text, and keep how its breach is told."""
    pattern = f"^{pattern}$"
    _RULES[pattern] = f"must be {rule}"
    return Field(pattern=pattern)


ClientName = Annotated[str, _matching(CLIENT_NAME, CLIENT_NAME_RULE)]
"""A folder, a row, a word in a log."""
RunName = Annotated[str, _matching(RUN_NAME, "the name of a run")]
PartName = Annotated[str, _matching(r"[\w.]{1,100}", "the name of a part")]
Line = Annotated[str, _matching("[ -~]{1,200}", "a line of 1 to 200 ASCII characters")]
MetricName = Annotated[
    str,
    _matching(
        r"[A-Za-z][A-Za-z0-9_.\-]{0,39}",
        "1 to 40 letters, digits, '-', '_' or '.', beginning with a letter",
    ),
]
Version = Annotated[str, _matching("[0-9a-f]{16}", "16 hexadecimal digits")]
"""Which values a part has: a hash of it as it travels, so equal means equal bits."""
Digest = Annotated[str, _matching("[0-9A-Za-z]{0,64}", "at most 64 letters and digits")]
"""A fingerprint of code or data; "" for none."""
Note = Annotated[str, AfterValidator(lambda text: one_line(text, 100))]
"""What hardware says of itself: any text, kept as one short line."""
Sentence = Annotated[str, Field(min_length=1), AfterValidator(one_line)]
"""What a device's owner is to read, names of files and classes in it: one line."""


class WireError(ValueError):
    """A message breaks the contract; the text says how, in one line."""

    def __init__(self, text: str) -> None:
        super().__init__(one_line(text))


def _problems(kind: str, error: ValidationError) -> WireError:
    """Return what is wrong with a payload: key, value and what is allowed."""
    found = []
    for item in error.errors(include_url=False):
        key = ".".join(map(str, item["loc"])).replace("_", "-") or "values"
        rule = _RULES.get(item.get("ctx", {}).get("pattern", ""), item["msg"])
        rule = rule.removeprefix("Value error, ").replace("Input should", "must")
        given = item["input"]
        if isinstance(given, str):
            given = given[:40]
        shown = f" is {given!r}:" if isinstance(given, str | int | float) else ":"
        found.append(f"{one_line(key, 60)}{shown} {rule}")
    more = f" (and {len(found) - 2} more)" if len(found) > 2 else ""
    return WireError(f"{kind}: {'; '.join(found[:2])}{more}")


class Payload(BaseModel):
    """Scalars of a message: frozen, strict, nothing unknown."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        alias_generator=lambda name: name.replace("_", "-"),
        validate_by_name=True,
    )

    protocol: Literal[8] = PROTOCOL

    if not TYPE_CHECKING:  # it would hide the fields from the type checker

        def __init__(self, /, **fields: Any) -> None:
            """Take the fields; raises WireError, like all that reads them."""
            try:
                super().__init__(**fields)
            except ValidationError as error:
                raise _problems(type(self).__name__, error) from None

    def to_record(self) -> ConfigRecord:
        """Return the fields as a ConfigRecord; None means left out."""
        return ConfigRecord(self.model_dump(by_alias=True, exclude_none=True))

    @classmethod
    def from_record(cls, record: Mapping[str, object]) -> Self:
        """Read the fields back.

        Raises
        ------
        WireError
            Naming every key that is wrong.
        """
        fields: dict[str, Any] = dict(record)
        return cls(**fields)

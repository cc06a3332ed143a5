"""What every group of settings is made of, and the check that a part has a name."""

import unicodedata
from typing import Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    ValidationError,
    field_validator,
)

from common.registry import Registry


def first_problem(error: ValidationError) -> str:
    """Return where a JSON file first breaks its form, and how."""
    problem = error.errors()[0]
    where = ".".join(map(str, problem["loc"])) or "its JSON"
    return f"{where}: {problem['msg']}"


class Section(BaseModel):
    """A frozen group of settings; keys are the kebab-case form of the field names."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        validate_default=True,
        alias_generator=lambda name: name.replace("_", "-"),
        validate_by_name=True,
    )

    @field_validator("*")
    @classmethod
    def _is_text(cls, value: Any) -> Any:
        """Refuse what can be in no file's name and would forge lines of a log."""
        if isinstance(value, str) and any(
            unicodedata.category(character) in {"Cc", "Cs"} for character in value
        ):
            raise ValueError("a text has no control characters or half characters")
        return value


def named(parts: Registry, *, or_none: bool = False) -> AfterValidator:
    """Return the check that a setting names one of the parts; nothing is imported.

    Parameters
    ----------
    parts : Registry
    or_none : bool
        Whether "" is allowed as well, and names none.
    """

    def check(name: str) -> str:
        if name or not or_none:
            parts.target(name)
        return name

    return AfterValidator(check)

"""Reading a task: from a TOML file, or as it was sent or kept."""

import json
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from common.errors import SettingsError, nearest
from common.task.kinds import ImageTask, SeriesTask, TableTask, TextTask
from common.task.scale import Fixed
from common.task.task import Task, kebab

NUMBERS = 2**24
"""Of one sample, at most."""

KINDS: dict[str, type[Task]] = {
    "image": ImageTask,
    "series": SeriesTask,
    "table": TableTask,
    "text": TextTask,
}
_ANY: TypeAdapter[Task] = TypeAdapter(
    Annotated[
        ImageTask | SeriesTask | TableTask | TextTask, Field(discriminator="kind")
    ]
)


def parse_task(fields: Mapping[str, Any], where: str = "task") -> Task:
    """Check what a task says.

    Parameters
    ----------
    fields : mapping
        Keys in kebab case.
    where : str
        What it was read from, for messages.

    Raises
    ------
    SettingsError
        One line that names the key, the value and what is allowed.
    """
    kind = fields.get("kind")
    if kind not in KINDS:
        hint = nearest(kind, KINDS) if isinstance(kind, str) else ""
        raise SettingsError(
            f"{where}: kind = {kind!r} is not allowed: choose from "
            f"{', '.join(KINDS)}{hint}"
        )
    try:
        task = _ANY.validate_python(dict(fields))
    except ValidationError as error:
        raise SettingsError(f"{where}: {_told(error, KINDS[str(kind)])}") from None
    if math.prod(task.input_shape) > NUMBERS:
        raise SettingsError(
            f"{where}: a sample of shape {task.input_shape} has more than {NUMBERS} "
            "numbers"
        )
    return task


def _told(error: ValidationError, kind: type[Task]) -> str:
    # A key that is unknown explains one that is missing.
    every = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    # Of what may be of several forms, the one that got furthest was meant.
    first = every[0]["loc"][:2]
    same = [each for each in every if each["loc"][:2] == first]
    item = max(same, key=lambda each: len(each["loc"]))
    cause = item.get("ctx", {}).get("error")
    if isinstance(cause, SettingsError):
        return str(cause)
    loc = [part for part in item["loc"] if part not in KINDS]
    key = ".".join(
        str(part)
        for part in loc
        if not (isinstance(part, str) and ("[" in part or part == Fixed.__name__))
    )
    valid = sorted(kebab(name) for name in kind.model_fields)
    if item["type"] == "extra_forbidden":
        close = nearest(str(loc[-1]), valid)
        return f"unknown key {key!r}: a task of this kind has {', '.join(valid)}{close}"
    if item["type"] == "missing":
        return f"{kebab(key)} is missing"
    reason = item["msg"].removeprefix("Value error, ")
    field = kind.model_fields.get(str(loc[0]).replace("-", "_")) if loc else None
    if field is not None and field.description and not cause:
        reason = f"expected {field.description}"
    return f"{kebab(key)} = {item['input']!r:.80} is not allowed: {reason}"


def task_from_json(text: str) -> Task:
    """Read what :meth:`Task.to_json` wrote; raises SettingsError, as for a file."""
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise SettingsError(f"task: not JSON ({error})") from None
    if not isinstance(fields, dict):
        raise SettingsError("task: expected an object")
    return parse_task(fields)


def read_task(path: str | Path) -> Task:
    """Read and check a task.

    Parameters
    ----------
    path : str or Path
        A TOML file::

            kind = "image"                     # image, series, table or text
            classes = ["ok", "crack", "rust"]  # names, in the order of the outputs
            size = [64, 64]

    Raises
    ------
    SettingsError
        If there is none, or it says something that is not allowed: one line that names
        the file, the key, the value and what is allowed.
    """
    file = Path(path).expanduser()
    try:
        fields = tomllib.loads(file.read_text("utf-8-sig"))
    except OSError as error:
        reason = error.strerror or str(error)
        raise SettingsError(f"task = {str(path)!r} cannot be read: {reason}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{file} is not TOML: {error}") from None
    return parse_task(fields, str(file))

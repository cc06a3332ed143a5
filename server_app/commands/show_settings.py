"""``expertfleet settings [KEY]``: every setting, its default and what it may be."""

import json
import shutil
import sys
import textwrap
from collections.abc import Iterator
from typing import Annotated, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from common.errors import nearest
from common.settings import Settings
from common.text import table


def command(
    key: Annotated[
        str | None, typer.Argument(metavar="[KEY]", help="tell of this one alone")
    ] = None,
) -> int:
    """Print the table, or one setting; 2 for a key that there is none of."""
    every = {name: (section, field) for section, name, field in fields()}
    if key is None:
        rows = [
            (name, default_of(field), str(field.description))
            for name, (_, field) in every.items()
        ]
        width = shutil.get_terminal_size((120, 24)).columns
        print(table([("setting", "default", "what it is"), *rows], width))
        return 0
    if key not in every:
        hint = nearest(key, list(every))
        print(f"error: unknown setting {key!r}{hint}", file=sys.stderr)
        return 2
    section, field = every[key]
    text = textwrap.fill(f"{field.description}", 78)
    allowed = ", ".join(allowed_by(field)) or "see the description"
    print(f"{key} ({section})\n\n{text}\n\ndefault: {default_of(field)}")
    print(f"allowed: {allowed}\nas in:   --run-config '{key}={default_of(field)}'")
    return 0


def fields() -> Iterator[tuple[str, str, FieldInfo]]:
    """Yield section, key and field of every setting, in their order."""
    for section, holder in Settings.model_fields.items():
        kind = holder.annotation
        assert isinstance(kind, type)
        for name, field in kind.model_fields.items():
            yield section, name.replace("_", "-"), field


def default_of(field: FieldInfo) -> str:
    """Return a default as it is written in a run's configuration."""
    value = field.default
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return json.dumps(str(value))


def allowed_by(field: FieldInfo) -> Iterator[str]:
    """Yield the limits of a setting that its type states."""
    if get_origin(field.annotation) is Literal:
        yield " or ".join(map(repr, get_args(field.annotation)))
    elif isinstance(field.annotation, type):
        names = {bool: "true or false", int: "an integer", float: "a number"}
        yield names.get(field.annotation, "a text")
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    for limit in field.metadata:
        for name, word in words.items():
            if (value := getattr(limit, name, None)) is not None:
                yield f"{word} {value}"

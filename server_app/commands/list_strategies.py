"""``expertfleet strategies [NAME]``: what there is, when to use it, what it costs."""

import json
import shutil
import sys
import textwrap
from collections.abc import Iterator
from typing import Annotated

import typer

from common.errors import SettingsError
from common.text import message_of, table
from server_app.strategies import STRATEGIES, ExpertStrategy, find_strategy
from server_app.strategies.flower import PREFIX, flower_names

HEADER = ("name", "use when")

Row = tuple[str, str]

NOT_SAID = "-"


def command(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="tell of this one alone, all of it"),
    ] = None,
) -> int:
    """Print the table, or all of one strategy; 2 for a name that there is none of."""
    width = shutil.get_terminal_size((120, 24)).columns
    if name is not None:
        try:
            found = find_strategy(name)
        except SettingsError as error:
            print(f"error: {message_of(error)}", file=sys.stderr)
            return 2
        print("\n".join(page_of(name, found, min(width, 88))))
        return 0
    ours = [row_of(each) for each in sorted(STRATEGIES.built_in)]
    flowers = [row_of(PREFIX + each) for each in flower_names()]
    print(table([HEADER, *ours, *plugged_in(), *flowers], width))
    print("\nof one, with its options and what it costs: expertfleet strategies NAME")
    return 0


def plugged_in() -> list[Row]:
    """Return those of installed packages; one that cannot be loaded says why."""
    rows = []
    for _, point in sorted(STRATEGIES.installed().items()):
        package = f", from {point.dist.name}" if point.dist else ""
        try:
            name, use_when = row_of(point.name)
        except SettingsError as error:
            rows.append((point.name, str(error)))
            continue
        rows.append((name, use_when + package))
    return rows


def row_of(name: str) -> Row:
    """Return what the class behind a name says of itself; SettingsError if none.

    Of one that does not say when to use it, where it is from.
    """
    found = find_strategy(name)
    return name, found.use_when or found.source or NOT_SAID


def page_of(name: str, found: type[ExpertStrategy], width: int) -> Iterator[str]:
    """Yield the lines about one strategy."""
    facts = {
        "source": found.source,
        "use when": found.use_when,
        "cost": found.cost,
        "ships": found.ships,
        "private": found.private,
        "server": found.no_predictor or "has a predictor of its own",
    }
    yield name
    for title, text in facts.items():
        yield from textwrap.wrap(
            f"{title + ':':<10}{text or NOT_SAID}", width, subsequent_indent=" " * 10
        )
    options = list(options_of(found))
    if options:
        yield (
            "\noptions, as in strategy-options='" + f"{options[0][0]}={options[0][1]}'"
        )
        rows = [("name", "default", "what it is"), *options]
        yield table(rows, width)


def options_of(found: type[ExpertStrategy]) -> Iterator[tuple[str, str, str]]:
    """Yield name, default and description of a strategy's options."""
    for key, field in found.Options.model_fields.items():
        default = "required" if field.is_required() else json.dumps(field.default)
        yield (
            field.alias or key.replace("_", "-"),
            default,
            field.description or NOT_SAID,
        )

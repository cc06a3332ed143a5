"""``expertfleet recipes [NAME]``: what there is to begin from."""

import shutil
import sys
from typing import Annotated

import typer

from common.errors import nearest
from common.text import table
from server_app.launcher.recipes import recipes, what_it_is


def command(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="show this one, all of it")
    ] = None,
) -> int:
    """Print a line for each, or one in full; 2 for a name that there is none of."""
    found = recipes()
    if name is not None:
        if name not in found:
            near = nearest(name, found)
            print(f"error: there is no recipe {name!r}{near}", file=sys.stderr)
            return 2
        print(found[name].read_text("utf-8"), end="")
        return 0
    width = shutil.get_terminal_size((120, 24)).columns
    print(table([(each, what_it_is(path)) for each, path in found.items()], width))
    print("\nto run one: expertfleet simulate --run-config NAME")
    return 0

"""``python -m server_app strategies``: what there is, what travels, what stays."""

import argparse
import shutil
import textwrap
from importlib.metadata import entry_points

from server_app.strategies import ENTRY_POINTS, STRATEGIES, find_strategy
from server_app.strategies.flower import PREFIX, flower_names

HEADER = ("name", "ships to a client", "private", "source")

Row = tuple[str, str, str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m server_app strategies``: none."""
    del parser


def main(args: argparse.Namespace) -> int:
    """Print the table."""
    del args
    width = shutil.get_terminal_size((120, 24)).columns
    print(table([*built_in(), *plugged_in(), *flowers_own()], width))
    return 0


def built_in() -> list[Row]:
    """Return the strategies of this package, by name."""
    return [row_of(name) for name in sorted(STRATEGIES)]


def plugged_in() -> list[Row]:
    """Return those of installed packages; one that cannot be loaded says why."""
    rows = []
    for point in sorted(entry_points(group=ENTRY_POINTS)):
        package = f", from {point.dist.name}" if point.dist else ""
        try:
            name, ships, private, source = row_of(point.name)
        except Exception as error:  # someone else's module: it may raise anything
            rows.append((point.name, "-", "-", f"{type(error).__name__}: {error}"))
            continue
        rows.append((name, ships, private, source + package))
    return rows


def flowers_own() -> list[Row]:
    """Return Flower's own strategies, which run on the dense model."""
    return [row_of(PREFIX + name) for name in flower_names()]


def row_of(name: str) -> Row:
    """Return what the class behind a name says of itself.

    Raises
    ------
    SettingsError
        If it cannot be loaded.
    """
    found = find_strategy(name)
    return name, found.ships, found.private, found.source


def table(rows: list[Row], width: int) -> str:
    """Return the rows below a header, the last column wrapped to ``width`` columns."""
    widths = [max(map(len, column)) for column in zip(HEADER, *rows, strict=True)][:-1]
    indent = sum(widths) + 2 * len(widths)
    lines = []
    for *cells, last in (HEADER, *rows):
        start = "".join(
            f"{cell:<{size}}  " for cell, size in zip(cells, widths, strict=True)
        )
        wrapped = textwrap.wrap(last, max(20, width - indent)) or [""]
        lines += [start + wrapped[0], *(" " * indent + more for more in wrapped[1:])]
    return "\n".join(line.rstrip() for line in lines)

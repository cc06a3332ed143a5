"""``python -m server_app strategies``: what there is, what travels, what stays."""

import argparse
import shutil

from common.errors import SettingsError
from common.text import table
from server_app.strategies import STRATEGIES, find_strategy
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
    ours = [row_of(name) for name in sorted(STRATEGIES.built_in)]
    flowers = [row_of(PREFIX + name) for name in flower_names()]
    print(table([HEADER, *ours, *plugged_in(), *flowers], width))
    return 0


def plugged_in() -> list[Row]:
    """Return those of installed packages; one that cannot be loaded says why."""
    rows = []
    for _, point in sorted(STRATEGIES.installed().items()):
        package = f", from {point.dist.name}" if point.dist else ""
        try:
            name, ships, private, source = row_of(point.name)
        except SettingsError as error:
            rows.append((point.name, "-", "-", str(error)))
            continue
        rows.append((name, ships, private, source + package))
    return rows


def row_of(name: str) -> Row:
    """Return what the class behind a name says of itself; SettingsError if none."""
    found = find_strategy(name)
    return name, found.ships, found.private, found.source

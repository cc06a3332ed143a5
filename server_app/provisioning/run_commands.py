"""``fleet run``, ``log``, ``stop`` and ``runs``: their options, and what Ctrl-C leaves.

What they do is in ``fleet_runs``.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from server_app.launcher.config import THIS_APP
from server_app.provisioning import fleet_runs
from server_app.provisioning.directory import FleetDirectory
from server_app.provisioning.fleet_access import refusals, show


def _number(text: str) -> str:
    if not text.isdecimal() or not 0 < int(text) < 2**64:
        raise typer.BadParameter(f"{text!r} is no number of a run: `fleet runs`")
    return text


RunNumber = Annotated[
    str | None,
    typer.Argument(
        metavar="[NUMBER]",
        help="Flower's, as `fleet runs` has it (default: the newest)",
        parser=_number,
    ),
]


def run(
    context: typer.Context,
    app_dir: Annotated[
        Path,
        typer.Argument(metavar="[APP]", help="directory of the app (default: this)"),
    ] = THIS_APP,
    run_config: Annotated[
        list[str],
        typer.Option(
            metavar="TEXT",
            help="key=value pairs or a TOML file; paths are those of the server",
        ),
    ] = [],  # noqa: B006  typer copies it
    detach: Annotated[
        bool, typer.Option("--detach", help="print its number and do not wait for it")
    ] = False,
) -> int:
    """Start a run and follow it."""
    with refusals():
        fleet = FleetDirectory(context.obj)
        number = fleet_runs.start(fleet, app_dir, run_config)
        if detach:
            print(number)
            return 0
        return _follow(fleet, number)


def log(
    context: typer.Context,
    number: RunNumber = None,
    now: Annotated[
        bool, typer.Option("--now", help="what there is, and no more")
    ] = False,
) -> int:
    """Follow a run."""
    with refusals():
        fleet = FleetDirectory(context.obj)
        number = number or fleet_runs.newest(fleet)
        if not now:
            return _follow(fleet, number)
        fleet_runs.show_log(fleet, number)
        return 0


def _follow(fleet: FleetDirectory, number: str) -> int:
    print(f"run {number}; Ctrl-C leaves it going", file=sys.stderr)
    try:
        return fleet_runs.follow(fleet, number)
    except KeyboardInterrupt:
        print(
            f"\nrun {number} goes on: `fleet log {number}` shows it, "
            f"`fleet stop {number}` ends it",
            file=sys.stderr,
        )
        raise


def stop(
    context: typer.Context,
    number: Annotated[
        str,
        typer.Argument(
            metavar="NUMBER", help="Flower's, as `fleet runs` has it", parser=_number
        ),
    ],
) -> None:
    """Stop a run."""
    with refusals():
        fleet_runs.stop(FleetDirectory(context.obj), number)
        print(f"run {number} is stopped")


def runs(context: typer.Context) -> None:
    """List runs."""
    show(context, fleet_runs.listing)

"""``fleet status`` and ``fleet check``: their options, and their exit codes.

What is looked at is in ``status`` and ``check``.
"""

from pathlib import Path
from typing import Annotated

import typer

from server_app.provisioning import ProvisioningError
from server_app.provisioning import check as checks
from server_app.provisioning.alerts import AFTER, Alarm
from server_app.provisioning.directory import FleetDirectory
from server_app.provisioning.fleet_access import refusals
from server_app.provisioning.watcher import EVERY, StatusFormat, Watcher

RunFolder = Annotated[
    Path | None,
    typer.Argument(
        metavar="[RUN]", help="directory of the run (default: the newest in ./results)"
    ),
]


def status(
    context: typer.Context,
    run: RunFolder = None,
    format: Annotated[
        StatusFormat, typer.Option(help="for people, for scripts, for Prometheus")
    ] = StatusFormat.TABLE,
    watch: Annotated[
        bool, typer.Option("--watch", help="look again and again, until Ctrl-C")
    ] = False,
    every: Annotated[
        float, typer.Option(metavar="SECONDS", help="with --watch: how often")
    ] = EVERY,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="write it there, whole or not at all, in place of the terminal",
        ),
    ] = None,
    on_alert: Annotated[
        str,
        typer.Option(
            metavar="COMMAND",
            help="with --watch: run it once for each thing that goes wrong",
        ),
    ] = "",
    alert_after: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="how long a device is missing before that"
        ),
    ] = AFTER,
) -> int:
    """Show a fleet and a run of it; 3 if a device is missing."""
    with refusals():
        if on_alert and not watch:
            raise ProvisioningError("--on-alert goes with --watch")
        if not alert_after >= 0:
            raise ProvisioningError(
                f"--alert-after {alert_after:g} is not allowed: at least 0"
            )
        alarm = Alarm(on_alert, alert_after) if on_alert else None
        watcher = Watcher(FleetDirectory(context.obj), run, format, output, alarm)
        if watch:
            watcher.watch(every)
        return watcher.look()


def check(
    context: typer.Context,
    run: RunFolder = None,
    silent: Annotated[
        float,
        typer.Option(metavar="MINUTES", help="how long a device may not be heard of"),
    ] = checks.SILENT_MINUTES,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> int:
    """Look at all of it; 1 if something is not well."""
    with refusals():
        fleet = FleetDirectory(context.obj)
        if not silent >= 0:
            raise ProvisioningError(f"--silent {silent} is not allowed: at least 0")
        found = checks.check(fleet, run, silent)
        print(checks.as_json(found) if as_json else checks.text(found))
        return 1 if any(each.problems for each in found) else 0

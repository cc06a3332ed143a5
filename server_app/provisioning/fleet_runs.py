"""``fleet run``, ``log``, ``stop``, ``runs``: the runs of a fleet, at its SuperLink.

By Flower's Control API, as ``flwr`` does it, with the fleet's own address and
certificate. The app is signed and handed out by ``apps``.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from common.errors import SettingsError
from common.settings import Settings
from common.text import table
from server_app.launcher.app_folder import app_folder
from server_app.launcher.config import (
    THIS_APP,
    RunConfigError,
    app_defaults,
    parse_run_config,
    unknown_setting,
)
from server_app.provisioning import ProvisioningError, apps
from server_app.provisioning.app_keys import app_key
from server_app.provisioning.control_api import (
    ControlAPI,
    FlowerRun,
    UnreachableError,
)
from server_app.provisioning.directory import FleetDirectory

RETRY = 2.0
"""Seconds until a SuperLink that is away is asked for its log again."""

NOT_COMPLETED = 1
"""Exit code of a run that ended in another way."""


def start(fleet: FleetDirectory, app: Path, run_config: Sequence[str]) -> str:
    """Sign an app and have the SuperLink run it; return Flower's number of the run.

    Parameters
    ----------
    fleet : FleetDirectory
    app : Path
        Its directory.
    run_config : sequence of str
        ``key=value`` pairs, or one TOML file; paths are those of the server.

    Raises
    ------
    ProvisioningError
        If a setting is wrong, or no run can be started.
    """
    members = fleet.members()
    try:
        given, defaults = parse_run_config(run_config), app_defaults(app)
        for key in given:
            if key not in defaults:
                raise unknown_setting(key, defaults)
        if app.resolve() == THIS_APP:
            Settings.from_run_config({**defaults, **given})
    except (RunConfigError, SettingsError) as error:
        raise ProvisioningError(str(error)) from None
    with tempfile.TemporaryDirectory() as room:
        signed = apps.sign(app_folder(app.resolve(), Path(room)), app_key(fleet.path))
    with (
        ControlAPI(members.control, fleet.authority_file) as api,
        apps.hub(signed, members.apps),
    ):
        return api.start(signed.spec, given)


def follow(fleet: FleetDirectory, number: str) -> int:
    """Print the log of a run as it is written; return 0 once it is complete.

    A SuperLink that goes away is waited for.

    Raises
    ------
    ProvisioningError
        If there is no such run.
    """
    control, since, told = fleet.members().control, 0.0, False
    while True:
        try:
            with ControlAPI(control, fleet.authority_file) as api:
                for text, until in api.log(number, since):
                    print(text, end="", flush=True)
                    since = until
                run = _found(api.runs(), number)
        except UnreachableError as error:
            if not told:
                print(f"warning: {error}; waiting for it", file=sys.stderr)
            told = True
            time.sleep(RETRY)
            continue
        if run.status.startswith("finished"):
            details = f": {run.details}" if run.details else ""
            print(f"run {number} {run.status}{details}", file=sys.stderr)
            return 0 if run.status == "finished:completed" else NOT_COMPLETED
        told = False
        time.sleep(RETRY)


def show_log(fleet: FleetDirectory, number: str) -> None:
    """Print what a run has written so far."""
    with ControlAPI(fleet.members().control, fleet.authority_file) as api:
        for text, _ in api.log(number, 0.0):
            print(text, end="", flush=True)
            return  # what comes after it has not been written yet


def stop(fleet: FleetDirectory, number: str) -> None:
    """Stop a run; what it has kept can be gone on from."""
    with ControlAPI(fleet.members().control, fleet.authority_file) as api:
        api.stop(number)


def newest(fleet: FleetDirectory) -> str:
    """Return the number of the newest run.

    Raises
    ------
    ProvisioningError
        If there is none.
    """
    with ControlAPI(fleet.members().control, fleet.authority_file) as api:
        runs = api.runs()
    if not runs:
        raise ProvisioningError("no run yet: `fleet run` starts one")
    return runs[0].number


def listing(fleet: FleetDirectory) -> str:
    """Return a table of the newest runs, the newest first."""
    with ControlAPI(fleet.members().control, fleet.authority_file) as api:
        runs = api.runs()
    rows = [("run", "submitted", "finished", "status")]
    for run in runs:
        status = f"{run.status} ({run.details})" if run.details else run.status
        rows.append((run.number, _when(run.submitted), _when(run.finished), status))
    return table(rows)


def _when(iso: str) -> str:
    return iso[:19].replace("T", " ") or "-"


def _found(runs: Sequence[FlowerRun], number: str) -> FlowerRun:
    for run in runs:
        if run.number == number:
            return run
    raise ProvisioningError(
        f"no run {number} among the newest: `fleet runs` lists them"
    )

"""How many clients a simulation has: what is said, what there is, what was before.

What else a simulation is started with is in ``config``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from common.text import message_of
from server_app.launcher.config import (
    RunConfigError,
    Validator,
    absolute,
    is_ours,
)
from server_app.run_folder.run_files import RunFileError, read_facts

#: Far more than any data set can be cut for; Flower itself would try a billion.
MOST_CLIENTS = 100_000

#: Simulated devices where nothing says how many.
DEFAULT_CLIENTS = 20


Clients = Annotated[
    str | None,
    typer.Option(
        "--clients",
        metavar="N",
        help=f"simulated clients (default: {DEFAULT_CLIENTS}; with "
        'partition="folders" as many as there are)',
    ),
]


def fleet_size(
    given: str | int | None, run_config: Mapping[str, Any] | None = None
) -> int:
    """Return ``--clients`` as a number.

    Parameters
    ----------
    given : str, int or None
        None: as many as the clients that the run's configuration has a folder for
        (``partition="folders"``), else ``DEFAULT_CLIENTS``.
    run_config : mapping of str to scalar, optional
        Of the run; one that is gone on with has as many clients as before.

    Raises
    ------
    RunConfigError
        If it is none, or nothing can be simulated with it.
    """
    before = _clients_before(run_config or {})
    if given is None and before:
        return before
    if given is None:
        given, config = DEFAULT_CLIENTS, run_config or {}
        # Without a task such a run is refused, whatever the folders.
        if config.get("partition") == "folders" and config.get("task"):
            # Late: other apps have no such folders.
            from common.own.client_folders import client_folders

            try:
                given = len(client_folders(str(config.get("data-dir", ""))))
            except ValueError as error:
                raise RunConfigError(message_of(error)) from None
    try:
        number = int(given)
    except ValueError:
        number = 0
    if not 1 <= number <= MOST_CLIENTS:
        raise RunConfigError(
            f"clients = {given or repr(given)} is not allowed: an integer from "
            f"1 to {MOST_CLIENTS}"
        )
    if before and number != before:
        raise RunConfigError(
            f"clients = {number} is not allowed: the run that is gone on with has "
            f"{before} clients (resume-from)"
        )
    return number


def _clients_before(run_config: Mapping[str, Any]) -> int:
    """Return how many clients the run has that ``resume-from`` names; 0 if unknown."""
    folder = run_config.get("resume-from")
    if not isinstance(folder, str) or not folder:
        return 0
    # Late: other apps are launched without pydantic.
    from server_app.run_folder.resuming import clients_before

    try:
        return clients_before(read_facts(absolute("resume-from", folder, Path.cwd())))
    except RunFileError as error:
        raise RunConfigError(f"resume-from = {folder!r}: {error}") from None


def settings_validator(app_dir: Path, clients: str | int | None) -> Validator | None:
    """Return the check of ExpertFleet's own settings, or None for any other app.

    Parameters
    ----------
    app_dir : Path
    clients : str, int or None
        As :func:`fleet_size` takes it.
    """
    if not is_ours(app_dir):
        return None
    # Late: another app can be launched without torch or pydantic being loaded.
    from server_app.run_config import check_run_config

    def validate(run_config: Mapping[str, Any]) -> None:
        check_run_config(run_config, fleet_size(clients, run_config))

    return validate

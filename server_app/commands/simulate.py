"""The whole run in this process: ServerApp and ClientApp over the in-process grid.

Same seed, same model, bit for bit, as ``flwr run``; no Ray, nothing to start or stop.
"""

import logging
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from common.errors import DataError, SettingsError
from common.text import message_of
from server_app.launcher.client_count import Clients, fleet_size, settings_validator
from server_app.launcher.config import (
    THIS_APP,
    RunConfigError,
    RunConfigTexts,
    app_defaults,
    parse_run_config,
    resolve,
)
from server_app.launcher.log import PlainLog
from server_app.launcher.said import FAILED, OK, USAGE, Said, end
from server_app.launcher.signals import Interrupted, Signals
from server_app.run_error import RunError

if TYPE_CHECKING:  # what trains is loaded when it trains: help is to be there at once
    from common.inline_grid import Scalar
    from server_app.launcher.begun import Begun


def simulate(
    run_config: "Mapping[str, Scalar]",
    clients: int,
    *,
    serialise: bool = False,
    begins: "Callable[[Begun], object]" = lambda _: None,
) -> Path:
    """Run to the end; return the directory of the run.

    Parameters
    ----------
    run_config : mapping of str to scalar
        Kebab-case settings; those left out keep their defaults.
    clients : int
        Virtual clients.
    serialise : bool
        Whether messages make the full round trip through bytes.
    begins : callable
        Called with the run once its directory is there.

    Raises
    ------
    RunConfigError
        If nothing can be simulated with so many: a run would wait for its clients.
    """
    from common.inline_grid import InlineGrid
    from common.settings import Settings
    from server_app.app import train
    from server_app.launcher.begun import begun

    clients = fleet_size(clients, run_config)
    # By name, as Flower loads it: the server side imports no client code.
    client_app = import_module("client_app.app").app
    with begun(run_config, clients) as run:
        begins(run)
        grid = InlineGrid(
            client_app, clients, run.config, serialise=serialise, closed=True
        )
        return train(grid, Settings.from_run_config(run.config))


def command(
    clients: Clients = None,
    run_config: RunConfigTexts = [],  # noqa: B006  typer copies it
    serialise: Annotated[
        bool, typer.Option("--serialise", help="send every message through bytes")
    ] = False,
) -> int:
    """Run ``expertfleet simulate``.

    Returns
    -------
    int
        0 when the run completed, 1 when it failed, 2 for a setting that cannot be
        used; see :class:`Interrupted` for those after a signal.
    """
    try:
        defaults = app_defaults(THIS_APP)
        fleet_size(clients)
        overrides = resolve(
            parse_run_config(run_config),
            defaults,
            Path.cwd(),
            settings_validator(THIS_APP, clients),
        )
        number = fleet_size(clients, {**defaults, **overrides})
    except RunConfigError as error:
        return end(f"error: {message_of(error)}", USAGE)
    said = Said(["simulate", *(["--serialise"] if serialise else [])])
    try:
        with plain_log(), Signals() as signals:
            signals.arm()
            config = {**defaults, **overrides}
            with closing(said):
                simulate(config, number, serialise=serialise, begins=said.begins)
    except Interrupted as error:
        return said.ends("interrupted: the run was stopped", error.code)
    except KeyboardInterrupt:
        return said.ends("interrupted: the run was stopped", Interrupted().code)
    except (BrokenPipeError, ModuleNotFoundError):  # told further out
        raise
    except (SettingsError, DataError, RunError, OSError) as error:
        return said.ends(f"error: the run failed: {message_of(error)}", FAILED)
    except Exception as error:  # a fault of ours or of a strategy: show where
        traceback.print_exc()
        reason = f"{type(error).__name__}: {message_of(error)}"
        return said.ends(f"error: the run failed: {reason}", FAILED)
    said.complete()
    return OK


@contextmanager
def plain_log(*, quiet: bool = False, aside: TextIO | None = None) -> Iterator[None]:
    """Let the run's log go where :class:`PlainLog` shows it.

    Parameters
    ----------
    quiet : bool
        Whether only warnings and errors are told.
    aside : TextIO, optional
        See :class:`PlainLog`.
    """
    logger = logging.getLogger("flwr")
    handlers, level = logger.handlers, logger.level
    logger.handlers = [PlainLog(aside)]
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    try:
        yield
    finally:
        logger.handlers = handlers
        logger.setLevel(level)

"""The whole run in this process: ServerApp and ClientApp over the in-process grid.

Same seed, same model, bit for bit, as ``flwr run``; no Ray, nothing to start or stop.
"""

import argparse
import logging
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from flwr.app import Context, RecordDict

from common.errors import DataError, SettingsError
from common.inline_grid import InlineGrid, Scalar
from common.text import message_of
from server_app.app import app
from server_app.launcher.config import (
    RunConfigError,
    add_run_arguments,
    app_defaults,
    fleet_size,
    parse_run_config,
    resolve,
    settings_validator,
)
from server_app.launcher.log import PlainLog
from server_app.launcher.run import FAILED, INTERRUPTED, OK, USAGE, end
from server_app.launcher.signals import Interrupted, Signals
from server_app.run_error import RunError

APP_DIR = Path(__file__).resolve().parents[2]


def simulate(
    run_config: Mapping[str, Scalar], num_supernodes: int, *, serialise: bool = False
) -> None:
    """Run to the end.

    Parameters
    ----------
    run_config : mapping of str to scalar
        Kebab-case settings; those left out keep their defaults.
    num_supernodes : int
        Virtual clients.
    serialise : bool
        Whether messages make the full round trip through bytes.

    Raises
    ------
    RunConfigError
        If nothing can be simulated with so many: a run would wait for its clients.
    """
    num_supernodes = fleet_size(num_supernodes)
    # By name, as Flower loads it: the server side imports no client code.
    client_app = import_module("client_app.app").app
    grid = InlineGrid(
        client_app, num_supernodes, run_config, serialise=serialise, closed=True
    )
    context = Context(
        run_id=1,
        node_id=0,
        node_config={},
        state=RecordDict(),
        run_config=dict(run_config),
    )
    app(grid=grid, context=context)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m server_app simulate``."""
    add_run_arguments(parser)
    parser.add_argument(
        "--serialise", action="store_true", help="send every message through bytes"
    )


def main(args: argparse.Namespace) -> int:
    """Run ``python -m server_app simulate``.

    Returns
    -------
    int
        0 when the run completed, 1 when it failed, 2 for a setting that cannot be
        used, 130 after Ctrl-C or SIGTERM.
    """
    try:
        defaults = app_defaults(APP_DIR)
        fleet_size(args.num_supernodes)
        overrides = resolve(
            parse_run_config(args.run_config),
            defaults,
            Path.cwd(),
            settings_validator(APP_DIR, args.num_supernodes),
        )
        num_supernodes = fleet_size(args.num_supernodes, {**defaults, **overrides})
    except RunConfigError as error:
        return end(f"error: {message_of(error)}", USAGE)
    try:
        with _plain_log(), Signals() as signals:
            signals.arm()
            simulate(
                {**defaults, **overrides}, num_supernodes, serialise=args.serialise
            )
    except (KeyboardInterrupt, Interrupted):
        return end("interrupted: the run was stopped", INTERRUPTED)
    except (BrokenPipeError, ModuleNotFoundError):  # told further out
        raise
    except (SettingsError, DataError, RunError, OSError) as error:
        return end(f"error: the run failed: {message_of(error)}", FAILED)
    except Exception as error:  # a fault of ours or of a strategy: show where
        traceback.print_exc()
        reason = f"{type(error).__name__}: {message_of(error)}"
        return end(f"error: the run failed: {reason}", FAILED)
    return OK


@contextmanager
def _plain_log() -> Iterator[None]:
    """Let the run's log go to the two standard streams, without colours."""
    logger = logging.getLogger("flwr")
    handlers, level = logger.handlers, logger.level
    logger.handlers = [PlainLog()]
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.handlers = handlers
        logger.setLevel(level)

"""The whole run in this process: ServerApp and ClientApp over the in-process grid.

Same seed, same model, bit for bit, as ``flwr run``; no Ray, nothing to start or stop.
"""

import argparse
import logging
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from flwr.app import Context, RecordDict

from common.inline_grid import InlineGrid, Scalar
from server_app.app import app
from server_app.launcher.config import (
    RunConfigError,
    app_defaults,
    parse_run_config,
    resolve,
    settings_validator,
)

APP_DIR = Path(__file__).resolve().parent.parent


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
    """
    # By name, as Flower loads it: the server side imports no client code.
    client_app = import_module("client_app.app").app
    grid = InlineGrid(client_app, num_supernodes, run_config, serialise=serialise)
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
    parser.add_argument("--num-supernodes", type=int, default=20, metavar="N")
    parser.add_argument(
        "--run-config", action="append", default=[], metavar="'KEY=VALUE ...'"
    )
    parser.add_argument(
        "--serialise", action="store_true", help="send every message through bytes"
    )


def main(args: argparse.Namespace) -> int:
    """Run ``python -m server_app simulate``; 2 for a setting that cannot be used."""
    defaults = app_defaults(APP_DIR)
    try:
        overrides = resolve(
            parse_run_config(args.run_config),
            defaults,
            Path.cwd(),
            settings_validator(APP_DIR),
        )
    except RunConfigError as error:
        print(f"error: {error}")
        return 2
    logging.getLogger("flwr").setLevel(logging.INFO)
    simulate({**defaults, **overrides}, args.num_supernodes, serialise=args.serialise)
    return 0

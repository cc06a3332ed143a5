"""``flwr run`` on a SuperLink of its own: the true outcome, and nothing left behind.

Flower's default is a daemon that survives the run, is shared by every checkout on the
machine, and a ``flwr run`` that exits 0 whatever happened. Here every run has its own
SuperLink on a free loopback port with in-memory state, a private ``FLWR_HOME`` and a
neutral working directory (Ray's workers import from theirs first); the exit code is the
run's; and all processes are stopped at the end, also after Ctrl-C.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import tomli_w

from common.text import message_of
from server_app.launcher.config import (
    RunConfig,
    RunConfigError,
    Validator,
    add_run_arguments,
    app_defaults,
    fleet_size,
    parse_run_config,
    resolve,
    settings_validator,
)
from server_app.launcher.processes import Sandbox
from server_app.launcher.signals import Interrupted, Signals
from server_app.launcher.superlink import (
    LaunchError,
    SuperLink,
    flower_environment,
    last_line,
)

#: What Ray raises then; Flower shows it and ends in an error that says nothing.
RAY_IS_LATE = "The current node timed out during startup"

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def run_simulation(
    app_dir: str | Path,
    num_supernodes: str | int | None,
    run_config: str | Sequence[str] | Mapping[str, str | int | float | bool] = "",
    client_cpus: int = 1,
    *,
    client_gpus: float = 0.0,
    validate: Validator | None = None,
    quiet: bool = False,
) -> int:
    """Run a Flower app in simulation and return a true exit code.

    Parameters
    ----------
    app_dir : str or Path
        Directory of the app's ``pyproject.toml``.
    num_supernodes : str, int or None
        Simulated devices, at least 1; None as in :func:`fleet_size`.
    run_config : str, Sequence[str] or Mapping
        Overrides, in Flower's syntax or as a flat dictionary. Relative paths in
        ``output-dir``, ``data-dir``, ``state-dir`` and ``resume-from`` are meant from
        the caller's working directory.
    client_cpus : int
        CPU cores of one virtual client: as many clients train at once as fit.
    client_gpus : float
        Share of a GPU of one virtual client.
    validate : Validator, optional
        Called with the merged run-config before anything starts; a ``ValueError`` is
        shown as the user's error.
    quiet : bool
        Do not print the run's log (errors are printed all the same).

    Returns
    -------
    int
        0 when Flower recorded the run as ``finished:completed``, 1 when it failed, 2
        for a setting that cannot be used, 130 after Ctrl-C or SIGTERM.

    Notes
    -----
    Flower records a ServerApp that calls ``sys.exit`` as completed, whatever the code:
    a ServerApp that fails must raise.
    """
    app = Path(app_dir).expanduser().resolve()
    try:
        fleet_size(num_supernodes)
        _check_resources(client_cpus, client_gpus)
        given, defaults = _as_overrides(run_config), app_defaults(app)
        overrides = resolve(given, defaults, Path.cwd(), validate)
        devices = fleet_size(num_supernodes, {**defaults, **overrides})
    except RunConfigError as error:
        return end(f"error: {message_of(error)}", USAGE)
    federation: RunConfig = {
        "num-supernodes": devices,
        "client-resources-num-cpus": client_cpus,
        "client-resources-num-gpus": client_gpus,
    }
    try:
        with Signals() as signals, Sandbox(flower_environment()) as sandbox:
            try:
                signals.arm()
                _run(sandbox, app, overrides, federation, quiet)
            finally:
                signals.disarm()
    except LaunchError as error:
        return end(f"error: the run failed: {message_of(error)}", FAILED)
    except Interrupted:
        return end("interrupted: the run was stopped", INTERRUPTED)
    return OK


def _run(
    sandbox: Sandbox,
    app: Path,
    overrides: RunConfig,
    federation: RunConfig,
    quiet: bool,
) -> None:
    """Start the SuperLink and the run, show its log; raise unless it completed."""
    pairs = " ".join(f"{key}={value}" for key, value in federation.items())
    if not quiet:
        print(f"flwr run {app} ({pairs}): starting SuperLink and Ray", flush=True)
    link = SuperLink(sandbox)
    link.start()
    # A file, not an argument: no value has to survive a second round of quoting.
    config_file = sandbox.root / "run-config.toml"
    config_file.write_text(tomli_w.dumps(overrides), "utf-8")
    lines = []
    for line in link.flwr_run(app, config_file, pairs):
        lines.append(line)
        if not quiet:
            print(line, flush=True)
    reason = _failure(link, lines)
    if reason is None:
        return
    if quiet:
        print("\n".join(lines), file=sys.stderr)
    raise LaunchError(reason)


def _failure(link: SuperLink, lines: Sequence[str]) -> str | None:
    """Return why a run did not complete, or None if it did."""
    ended = link.outcome()
    if ended is None:
        # What Flower said last, without the frame it draws around an error.
        told = [line.strip(" |\u2502") for line in lines]
        said = last_line([text for text in told if any(map(str.isalnum, text))])
        return f"`flwr run` could not start it: {said}"
    status, details = ended
    if status == "finished:completed":
        return None
    if any(RAY_IS_LATE in line for line in lines):
        # Not started again here: the ServerApp has begun, and has made its folder.
        return (
            "Ray did not start within the 30 s that it gives itself: start the run "
            "again when the machine is less busy"
        )
    return last_exception(lines) or details or status


def last_exception(lines: Sequence[str]) -> str:
    """Return the line that the last traceback ends with, ``""`` without any."""
    found, inside = "", False
    for line in lines:
        if line.startswith("Traceback (most recent call last):"):
            inside = True
        elif inside and line and not line.startswith(" "):
            found, inside = line, False
    return found


def _check_resources(client_cpus: int, client_gpus: float) -> None:
    cores = os.cpu_count() or 1
    if not 1 <= client_cpus <= cores:
        # Flower would wait for ever for an actor that fits.
        raise RunConfigError(
            f"client-cpus = {client_cpus} is not allowed: 1 to {cores} on this machine"
        )
    gpus = 0
    if client_gpus > 0:
        import torch

        gpus = torch.cuda.device_count()
    if not 0 <= client_gpus <= gpus:
        raise RunConfigError(
            f"client-gpus = {client_gpus} is not allowed: 0 to {gpus} on this machine"
        )


def _as_overrides(
    run_config: str | Sequence[str] | Mapping[str, str | int | float | bool],
) -> RunConfig:
    if isinstance(run_config, Mapping):
        return dict(run_config)
    return parse_run_config([run_config] if isinstance(run_config, str) else run_config)


def end(message: str, code: int) -> int:
    """Print a run's last word to standard error and return the exit code."""
    sys.stdout.flush()
    print(message, file=sys.stderr, flush=True)
    return code


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``flwr-run`` to a parser."""
    add_run_arguments(parser)
    parser.add_argument(
        "--client-cpus",
        type=int,
        default=1,
        metavar="N",
        help="CPU cores of one virtual client (default: %(default)s)",
    )
    parser.add_argument(
        "--client-gpus",
        type=float,
        default=0.0,
        metavar="X",
        help="share of a GPU of one virtual client (default: %(default)s)",
    )
    parser.add_argument(
        "--app-dir",
        type=Path,
        default=Path(__file__).resolve().parents[2],
        metavar="DIR",
        help="the Flower app to run (default: this one)",
    )


def main(args: argparse.Namespace) -> int:
    """Run what the options of :func:`add_arguments` say; return the exit code."""
    return run_simulation(
        args.app_dir,
        args.num_supernodes,
        args.run_config,
        args.client_cpus,
        client_gpus=args.client_gpus,
        validate=settings_validator(args.app_dir, args.num_supernodes),
    )

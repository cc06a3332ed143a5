"""``flwr run`` on a SuperLink of its own: the true outcome, and nothing left behind.

Flower's default is a daemon that survives the run, is shared by every checkout on the
machine, and a ``flwr run`` that exits 0 whatever happened. Here every run has its own
SuperLink on a free loopback port with in-memory state, a private ``FLWR_HOME`` and a
neutral working directory (Ray's workers import from theirs first); the exit code is the
run's; and all processes are stopped at the end, also after Ctrl-C.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import tomli_w
import typer

from common.text import message_of
from server_app.launcher.app_folder import app_folder
from server_app.launcher.client_count import Clients, fleet_size, settings_validator
from server_app.launcher.cluster import (
    Needs,
    check_cluster,
    cluster_environment,
    code_archive,
    read_by_clients,
)
from server_app.launcher.config import (
    THIS_APP,
    RunConfig,
    RunConfigError,
    RunConfigTexts,
    Validator,
    app_defaults,
    is_ours,
    parse_run_config,
    resolve,
)
from server_app.launcher.failure import failure
from server_app.launcher.log import is_quiet, show_line, told
from server_app.launcher.processes import Sandbox
from server_app.launcher.said import FAILED, OK, USAGE, Said, end
from server_app.launcher.signals import Interrupted, Signals
from server_app.launcher.superlink import (
    LaunchError,
    SuperLink,
    flower_environment,
)


def run_simulation(
    app_dir: str | Path,
    clients: str | int | None,
    run_config: str | Sequence[str] | Mapping[str, str | int | float | bool] = "",
    client_cpus: int = 1,
    *,
    client_gpus: float = 0.0,
    ray_address: str | None = None,
    validate: Validator | None = None,
    quiet: bool = False,
) -> int:
    """Run a Flower app in simulation and return a true exit code.

    Parameters
    ----------
    app_dir : str or Path
        Directory of the app's ``pyproject.toml``.
    clients : str, int or None
        Simulated devices, at least 1; None as in :func:`fleet_size`.
    run_config : str, Sequence[str] or Mapping
        Overrides, in Flower's syntax or as a flat dictionary. Relative paths in
        ``output-dir``, ``data-dir``, ``state-dir`` and ``resume-from`` are meant from
        the caller's working directory.
    client_cpus : int
        CPU cores of one virtual client: as many clients train at once as fit.
    client_gpus : float
        Share of a GPU of one virtual client.
    ray_address : str, optional
        ``HOST:PORT`` of a Ray cluster that is there already, whose machines train the
        clients; without it, Ray is started on this one.
    validate : Validator, optional
        Called with the merged run-config before anything starts; a ``ValueError`` is
        shown as the user's error.
    quiet : bool
        Do not print the run's log (errors are printed all the same).

    Returns
    -------
    int
        0 when Flower recorded the run as ``finished:completed``, 1 when it failed, 2
        for a setting that cannot be used; see :class:`Interrupted` for a signal.

    Notes
    -----
    Flower records a ServerApp that calls ``sys.exit`` as completed, whatever the code:
    a ServerApp that fails must raise.
    """
    app = Path(app_dir).expanduser().resolve()
    try:
        fleet_size(clients)
        _check_resources(client_cpus, client_gpus, elsewhere=ray_address is not None)
        given, defaults = _as_overrides(run_config), app_defaults(app)
        overrides = resolve(given, defaults, Path.cwd(), validate)
        devices = fleet_size(clients, {**defaults, **overrides})
    except RunConfigError as error:
        return end(f"error: {message_of(error)}", USAGE)
    said = Said(_command(client_cpus, client_gpus, ray_address), quiet=quiet)
    federation: RunConfig = {
        "num-supernodes": devices,
        "client-resources-num-cpus": client_cpus,
        "client-resources-num-gpus": client_gpus,
    }
    try:
        with Signals() as signals, Sandbox(flower_environment()) as sandbox:
            try:
                signals.arm()
                if ray_address is not None:
                    needs = Needs(cpus=client_cpus, gpus=client_gpus, all_free=True)
                    config = {**defaults, **overrides}
                    _join(sandbox, ray_address, app, needs, config, quiet)
                if not is_ours(app):
                    _run(sandbox, app, overrides, federation, quiet)
                    return OK
                # Late: other apps are launched without torch or pydantic.
                from server_app.launcher.begun import begun

                alone = ray_address is None
                with begun({**defaults, **overrides}, devices, one_machine=alone) as it:
                    said.begins(it)
                    _run(sandbox, app, it.config, federation, quiet)
            finally:
                signals.disarm()
                said.close()
    except RunConfigError as error:
        return end(f"error: {message_of(error)}", USAGE)
    except LaunchError as error:
        return said.ends(f"error: the run failed: {message_of(error)}", FAILED)
    except Interrupted as error:
        return said.ends("interrupted: the run was stopped", error.code)
    said.complete()
    return OK


def _command(
    client_cpus: int, client_gpus: float, ray_address: str | None
) -> list[str]:
    """Return what runs a simulation with these resources."""
    command = ["run"]
    if client_cpus != 1:
        command += ["--client-cpus", str(client_cpus)]
    if client_gpus:
        command += ["--client-gpus", str(client_gpus)]
    if ray_address is not None:
        command += ["--ray-address", ray_address]
    return command


def _join(
    sandbox: Sandbox,
    address: str,
    app: Path,
    needs: Needs,
    config: Mapping[str, str | int | float | bool],
    quiet: bool,
) -> None:
    """Have what runs in a sandbox use a Ray cluster, once it has what the run needs."""
    archive = code_archive(app, sandbox.root)
    if is_ours(app):
        kept = str(config.get("state-dir", ""))
        shared = {"state-dir": Path(kept).expanduser()} if kept else {}
        needs = replace(needs, same=read_by_clients(config), shared=shared)
    found = check_cluster(address, archive, needs, sandbox.env)
    sandbox.env |= cluster_environment(address, archive)
    if not quiet:
        told(
            f"Ray cluster at {address}: {found.machines} machines, {found.places} "
            "clients at once"
        )


def _run(
    sandbox: Sandbox,
    app: Path,
    overrides: RunConfig,
    federation: RunConfig,
    quiet: bool,
) -> None:
    """Start the SuperLink and the run, show its log; raise unless it completed."""

    def show(line: str) -> None:
        if is_ours(app):
            show_line(line, quiet=quiet)
        elif not quiet:  # what is a table to another app, only that one knows
            print(line, flush=True)

    pairs = " ".join(f"{key}={value}" for key, value in federation.items())
    show(f"flwr run {app} ({pairs}): starting SuperLink and Ray")
    link = SuperLink(sandbox)
    link.start()
    # A file, not an argument: no value has to survive a second round of quoting.
    config_file = sandbox.root / "run-config.toml"
    config_file.write_text(tomli_w.dumps(overrides), "utf-8")
    lines = []
    for line in link.flwr_run(app_folder(app, sandbox.root), config_file, pairs):
        lines.append(line)
        show(line)
    reason = failure(link, lines)
    if reason is None:
        return
    if quiet and not is_ours(app):
        print("\n".join(lines), file=sys.stderr)
    raise LaunchError(reason)


def _check_resources(client_cpus: int, client_gpus: float, *, elsewhere: bool) -> None:
    if elsewhere and client_cpus >= 1 and client_gpus >= 0:
        return  # the cluster is asked
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


def command(
    clients: Clients = None,
    run_config: RunConfigTexts = [],  # noqa: B006  typer copies it
    client_cpus: Annotated[
        int, typer.Option(metavar="N", help="CPU cores of one virtual client")
    ] = 1,
    client_gpus: Annotated[
        float, typer.Option(metavar="X", help="share of a GPU of one virtual client")
    ] = 0.0,
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="train on the machines of this Ray cluster, not on this one",
        ),
    ] = None,
    app_dir: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="the Flower app to run (default: this one)",
            show_default=False,
        ),
    ] = THIS_APP,
) -> int:
    """Run what the options say; return the exit code of :func:`run_simulation`."""
    return run_simulation(
        app_dir,
        clients,
        run_config,
        client_cpus,
        client_gpus=client_gpus,
        ray_address=ray_address,
        validate=settings_validator(app_dir, clients),
        quiet=is_quiet(),
    )

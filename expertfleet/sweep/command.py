"""``expertfleet sweep``: settings x seeds, gone on with by the same command."""

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from common.text import message_of, reason
from expertfleet.sweep.one_run import Order, carry_out, is_done
from expertfleet.sweep.sweep_plan import (
    ITS_OWN,
    Planned,
    keep_plan,
    planned,
    seeds_of,
    values_of,
)
from expertfleet.sweep.sweep_table import write_results
from expertfleet.sweep.workers import default_jobs, in_processes
from server_app.launcher.client_count import Clients, fleet_size, settings_validator
from server_app.launcher.cluster import Needs, read_by_clients
from server_app.launcher.config import (
    THIS_APP,
    RunConfigError,
    RunConfigTexts,
    app_defaults,
    parse_run_config,
    resolve,
)
from server_app.launcher.said import FAILED, OK, USAGE, end
from server_app.launcher.signals import Interrupted, Signals
from server_app.run_folder.run_files import RunFileError
from server_app.run_folder.run_lock import RunLock


def command(
    setting: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="KEY=VALUE,...",
            help="a setting and its values; may be repeated, for all combinations",
        ),
    ] = [],  # noqa: B006  typer copies it
    seeds: Annotated[
        str, typer.Option(metavar="SEEDS", help="as 0-2 or 0,3,7")
    ] = "0-2",
    clients: Clients = None,
    run_config: RunConfigTexts = [],  # noqa: B006
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", help="where it is kept, to be gone on with"),
    ] = Path("results/sweep"),
    processes: Annotated[
        int | None,
        typer.Option(
            "--processes", min=1, metavar="N", help="runs at a time (default: cores)"
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            metavar="HOST:PORT",
            help="run on the machines of this Ray cluster instead, one core each",
        ),
    ] = None,
) -> int:
    """Run what is missing of a sweep.

    Returns
    -------
    int
        0 when all runs are complete, 1 when one failed, 2 for what cannot be run; see
        :class:`Interrupted` for those after a signal.
    """
    out = out.absolute()
    try:
        if processes and ray_address is not None:
            raise RunConfigError(
                "--processes and --ray-address exclude each other: on a cluster as "
                "many runs go on as it has cores"
            )
        plan = _plan(setting, seeds, clients, run_config, out)
        out.mkdir(parents=True, exist_ok=True)
        lock = RunLock(out)
    except (RunConfigError, RunFileError) as error:
        return end(f"error: {message_of(error)}", USAGE)
    except OSError as error:
        return end(f"error: {out} cannot be written: {reason(error)}", USAGE)
    try:
        keep_plan(out, plan)
        with Signals() as signals:
            signals.arm()
            failures = _run_missing(plan, out, processes or default_jobs(), ray_address)
    except RunConfigError as error:
        return end(f"error: {message_of(error)}", USAGE)
    except Interrupted as error:
        return end("interrupted: the same command goes on", error.code)
    except OSError as error:
        return end(f"error: {out} cannot be written: {reason(error)}", FAILED)
    finally:
        lock.release()
    if done := [each for each in plan if is_done(out / each.folder)]:
        text, paths = write_results(out, done)
        print(text)
        for path in paths:
            print(path)
    return FAILED if failures else OK


def _plan(
    setting: Sequence[str],
    seeds: str,
    clients: str | None,
    run_config: Sequence[str],
    out: Path,
) -> list[Planned]:
    """Return what is to be run, each of its settings looked at."""
    defaults = app_defaults(THIS_APP)
    varied = {}
    for text in setting:
        key, values = values_of(text, defaults)
        if key in varied:
            raise RunConfigError(f"set: {key!r} is given twice")
        varied[key] = values
    given = parse_run_config(run_config)
    for key in ITS_OWN:
        if key in given:
            raise RunConfigError(
                f"run-config: {key!r} is the sweep's own: leave it out"
            )
    if both := sorted(given.keys() & varied.keys()):
        raise RunConfigError(f"{both[0]!r} is in both --set and --run-config")
    fleet_size(clients)
    check = settings_validator(THIS_APP, clients)
    plan = []
    for each in planned(varied, seeds_of(seeds), given, 0):
        where = {**each.config, "output-dir": str(out)}
        found = resolve(where, defaults, Path.cwd(), check)
        del found["output-dir"]
        number = fleet_size(clients, {**defaults, **found})
        plan.append(
            Planned(
                folder=each.folder, varied=each.varied, config=found, clients=number
            )
        )
    return plan


def _run_missing(
    plan: Sequence[Planned], out: Path, jobs: int, ray_address: str | None
) -> int:
    """Run what is not complete, and say what is done; return how many failed."""
    orders = {
        out / each.folder: each for each in plan if not is_done(out / each.folder)
    }
    tasks = [
        Order(place=place, config=each.config, clients=each.clients)
        for place, each in orders.items()
    ]
    console = Console(stderr=True, soft_wrap=True, highlight=False)

    def told(line: str) -> None:
        console.print(line, markup=False)

    def label(order: Order) -> str:
        return orders[order.place].label

    if len(orders) < len(plan):
        told(f"{len(plan) - len(orders)} of {len(plan)} runs are done already")
    if ray_address is None or not tasks:
        running = in_processes(carry_out, tasks, jobs)
    else:
        # Late: Ray takes seconds, and is not everywhere.
        from expertfleet.sweep.ray_tasks import on_cluster

        complete = ({**app_defaults(THIS_APP), **each.config} for each in tasks)
        needs = Needs(same=read_by_clients(*complete), shared={"out": out})
        running = on_cluster(
            carry_out, tasks, ray_address, needs, label=label, told=told
        )
    columns = TextColumn("runs"), BarColumn(), MofNCompleteColumn()
    bar = Progress(
        *columns,
        TextColumn("{task.fields[left]}"),
        console=console,
        disable=not console.is_terminal,
    )
    failures, began = 0, time.monotonic()
    with bar, closing(running) as ended:
        shown = bar.add_task("", total=len(tasks), left="")
        for count, (order, said, lost) in enumerate(ended, 1):
            left = (time.monotonic() - began) / count * (len(tasks) - count)
            bar.update(shown, advance=1, left=_left(left))
            error = lost or said
            failures += bool(error)
            text = f"failed: {error}" if error else "done"
            more = f", {_left(left)}" if count < len(tasks) else ""
            told(f"{count} of {len(tasks)}: {label(order)}: {text}{more}")
    return failures


def _left(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes >= 120:
        return f"about {round(minutes / 60)} h left"
    return f"about {minutes} min left" if minutes else "less than a minute left"

"""``expertfleet check-data``: what a round would find on this device.

Nothing is sent anywhere, and no server is needed.
"""

import json
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from client_app.device.allocator import keep_freed_memory
from common.errors import DataError, SettingsError
from common.settings import Settings
from common.task import Task, TextTask, read_task
from common.text import one_line, table

if TYPE_CHECKING:  # what needs torch is loaded when it is needed: help is not
    from client_app.data_report import Channel, DataReport

LISTED = 24
"""Classes, channels and reasons printed; ``--json`` has all."""


def command(
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="file or folder, as in data-path")
    ],
    task: Annotated[Path, typer.Option(metavar="FILE", help="the fleet's task.toml")],
    state_dir: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="keep the decoded samples where this device keeps its state",
        ),
    ] = "",
    set_: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="a setting of the run, as in 'backbone=\"cnn\"'; repeatable",
        ),
    ] = [],  # noqa: B006  typer copies it
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> int:
    """Look at the data.

    Returns
    -------
    int
        0 if this device can take part, 1 if the server would refuse it, 2 if what was
        asked for cannot be looked at.
    """
    import torch

    from client_app.data_report import report_on

    try:
        if not data.expanduser().exists():
            raise DataError(f"there is nothing at {data}")
        settings, agreed = read_task_and_settings(task, set_)
        torch.set_num_threads(settings.training.threads)
        keep_freed_memory()
        report = report_on(data, agreed, settings, state_dir)
    except (DataError, SettingsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if as_json:
        print(json.dumps({"can_take_part": not report.reason, **asdict(report)}))
    else:
        print("\n".join(one_line(line) for line in lines(report, agreed)))
    return 1 if report.reason else 0


def read_task_and_settings(file: Path, given: Sequence[str]) -> tuple[Settings, Task]:
    """Read a task, and the settings of a run for it.

    Parameters
    ----------
    file : Path
        The fleet's ``task.toml``.
    given : sequence of str
        ``KEY=VALUE`` of the run's settings.

    Raises
    ------
    SettingsError
        If either cannot be used.
    """
    from common.shape import server_task

    task = read_task(file)
    try:
        config: dict[str, Any] = tomllib.loads("\n".join(given))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"--set: {error}") from None
    # The default backbone reads no text.
    usual = {"backbone": "text-transformer"} if isinstance(task, TextTask) else {}
    settings = Settings.from_run_config({**usual, **config, "task": str(file)})
    return settings, server_task(settings)


def lines(report: "DataReport", task: Task) -> Iterator[str]:
    """Yield what people read, a line each."""
    if report.rows:
        what = f"{report.rows} samples of kind {report.kind}, {report.format}"
        yield f"{report.path}: {what}"
        yield from _split(report)
        yield ""
        yield from _classes(report)
        if report.channels:
            yield ""
            yield from _channels(report.channels, task)
        if report.skipped:
            yield ""
            yield from _skipped(report)
        yield ""
        yield from _costs(report)
    for note in report.notes:
        yield f"warning: {note}"
    if report.reason:
        yield f"cannot take part: {report.reason}"
    else:
        yield "can take part"


def _split(report: "DataReport") -> Iterator[str]:
    for_testing = f", {report.own_test} of them for testing" if report.own_test else ""
    yield (
        f"trains on {report.train}, keeps {report.held_out} for its own measure"
        f"{for_testing}"
    )
    if report.groups:
        yield f"{report.groups} groups, each on one side of that cut"
    if report.copies:
        yield f"{report.copies} are exact copies of others"


def _classes(report: "DataReport") -> Iterator[str]:
    rows = [("class", "samples", "held out")]
    for name, count in islice(report.classes.items(), LISTED):
        held = str(report.held_out_classes[name]) if count else ""
        rows.append((name, str(count) if count else "none", held))
    yield from table(rows).splitlines()
    if len(report.classes) > LISTED:
        yield f"and {len(report.classes) - LISTED} more (--json has all)"
    missing = [name for name, count in report.classes.items() if not count]
    if missing:
        more = len(missing) - LISTED
        rest = f" and {more} more" if more > 0 else ""
        which = f"{', '.join(missing[:LISTED])}{rest}"
        yield f"has nothing of {which}: that is normal, other devices may"


def _channels(channels: "list[Channel]", task: Task) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [
        (task.channel_word, "least", "most", "mean", "std", "empty")
    ]
    for each in channels[:LISTED]:
        numbers = (each.least, each.most, each.mean, each.std)
        empty = f"{each.missing:.1%}" if each.missing else "-"
        rows.append((each.name, *(f"{n:.5g}" for n in numbers), empty))
    yield from table(rows).splitlines()
    if len(channels) > LISTED:
        yield f"and {len(channels) - LISTED} more (--json has all)"


def _skipped(report: "DataReport") -> Iterator[str]:
    from client_app.data_report import NAMED

    count = sum(map(len, report.skipped.values()))
    yield f"{count} skipped:"
    for reason, names in islice(report.skipped.items(), LISTED):
        more = len(names) - NAMED
        rest = f" and {more} more" if more > 0 else ""
        yield f"  {reason}: {', '.join(names[:NAMED])}{rest}"
    if len(report.skipped) > LISTED:
        yield f"  and for {len(report.skipped) - LISTED} more reasons"


def _costs(report: "DataReport") -> Iterator[str]:
    disk, seconds = _bytes(report.cache_bytes), _seconds(report.seconds_decode)
    rows = [("decoded", f"{disk} on disk; took {seconds}")]
    if (each := report.round) is not None:
        rows += [
            (
                "memory of a round",
                f"{_bytes(each.memory_one)} with one expert, "
                f"{_bytes(each.memory_all)} with all {each.experts}; this device has "
                f"{_bytes(each.memory_available)} for it",
            ),
            (
                "time of a round",
                f"{_seconds(each.seconds_one)} of training with one expert, "
                f"{_seconds(each.seconds_all)} with all {each.experts}",
            ),
        ]
    yield from table(rows).splitlines()


def _bytes(number: int) -> str:
    return f"{number / 1e6:,.1f} MB" if number < 1e8 else f"{number / 1e6:,.0f} MB"


def _seconds(number: float) -> str:
    if number < 0.1:
        return "less than 0.1 s"
    return f"{number:.1f} s" if number < 100 else f"{number / 60:.0f} min"

"""What came of a sweep: a table with intervals, a CSV file, the page that compares."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from common.files import atomic_write
from common.text import table
from expertfleet.sweep.one_run import newest_run
from expertfleet.sweep.sweep_plan import Planned
from server_app.report.comparison import comparison_page
from server_app.report.figures import measured
from server_app.report.over_seeds import grouped
from server_app.report.pages import headline, write_page
from server_app.report.run_data import RunData, read_run

CSV, PAGE = "runs.csv", "comparison.html"


def write_results(folder: Path, done: Sequence[Planned]) -> tuple[str, list[Path]]:
    """Write both files of the runs that are done; return the table and their paths.

    Raises
    ------
    OSError
        If one cannot be written.
    """
    pairs = [(plan, _run(folder, plan)) for plan in done]
    runs = [run for _, run in pairs]
    accuracies = measured(*runs)
    header = ("settings", "seeds", *accuracies, "MB")
    rows = [header]
    for group in grouped(runs):
        shown = group.over_runs(lambda run: _shown(run, accuracies))
        rows.append((group.name, group.seeds, *shown))
    paths = [folder / CSV, folder / PAGE]
    _write_csv(paths[0], pairs, accuracies)
    write_page(comparison_page(runs, folder), paths[1])
    return table(rows), paths


def _run(folder: Path, plan: Planned) -> RunData:
    path = newest_run(folder / plan.folder)
    assert path is not None
    return read_run(path.absolute())


def _shown(run: RunData, accuracies: Sequence[str]) -> list[float]:
    found = dict(headline(run, accuracies))
    return [found[name] for name in (*accuracies, "MB in all")]


def _write_csv(
    path: Path, pairs: Sequence[tuple[Planned, RunData]], accuracies: Sequence[str]
) -> None:
    varied = list(pairs[0][0].varied)
    names = [name for name, _ in headline(pairs[0][1], accuracies)]
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow([*varied, "seed", "clients", "rounds", *names, "run"])
    for plan, run in pairs:
        numbers = [value for _, value in headline(run, accuracies)]
        values = ["" if math.isnan(value) else value for value in numbers]
        kept = [plan.varied[key] for key in varied]
        seed, last = plan.config["seed"], run.numbers[-1]
        where = run.folder.relative_to(path.parent.absolute())
        rows.writerow([*kept, seed, plan.clients, last, *values, where])
    with atomic_write(path, mode=0o644) as file:
        file.write(text.getvalue().encode())

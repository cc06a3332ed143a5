"""Several runs side by side: what they differ in, means over seeds, a link to each."""

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np

from server_app.report.figures import line_figure, load_map, measured, megabytes
from server_app.report.numbers import number
from server_app.report.over_seeds import Group, differing, grouped
from server_app.report.pages import FILE, headline
from server_app.report.run_data import RunData
from server_app.report.style import Cell, Linked, figure, page, table

BAND = "a band is the 95 % interval of the mean over seeds"
SHORT = ("worst tenth", "CV cum.", "CV samples", "dead", "MB", "seconds")
"""Of :func:`headline`, what follows the accuracies."""


def comparison_page(runs: Sequence[RunData], folder: Path = Path()) -> str:
    """Return several runs side by side.

    Parameters
    ----------
    runs : sequence of RunData
    folder : Path
        Where the page will lie; its links to the runs' reports start there.
    """
    groups, accuracies = grouped(runs), measured(*runs)
    of = "" if len(groups) == len(runs) else f" of {len(groups)} settings"
    title = f"{len(runs)} runs{of}"
    body = (
        f"<h1>{title}</h1>{_means(groups, accuracies)}{_differences(groups)}"
        f'<h2>Figures</h2><div class="grid">{_figures(groups, accuracies)}</div>'
        f"{_runs(groups, accuracies, folder)}"
    )
    return page(f"{title} compared", body)


def _means(groups: Sequence[Group], accuracies: Sequence[str]) -> str:
    """Return a row for each group, all after the same round."""
    ends = [run.numbers[-1] for group in groups for run in group.runs]
    last = min(ends)
    rows = [
        (
            group.name,
            group.seeds,
            group.lengths,
            *group.over_runs(
                lambda run: [
                    value for _, value in headline(run.until(last), accuracies)
                ]
            ),
        )
        for group in groups
    ]
    notes = []
    if last < max(ends):
        notes.append(f"After round {last}, the last that all runs have.")
    if any(len(group.runs) > 1 for group in groups):
        notes.append("Mean over seeds ± half the 95 % interval (Student's t).")
    note = f'<p class="soft">{" ".join(notes)}</p>' if notes else ""
    return table(("settings", "seeds", "rounds", *accuracies, *SHORT), rows) + note


def _differences(groups: Sequence[Group]) -> str:
    firsts = [group.runs[0] for group in groups]
    rows = [
        (key, *(str(run.settings.get(key, "–")) for run in firsts))
        for key in differing(firsts)
    ]
    found = table(("setting", *(group.name for group in groups)), rows)
    return f"<h2>Settings that differ</h2>{found}" if rows else ""


def _figures(groups: Sequence[Group], accuracies: Sequence[str]) -> str:
    note = BAND if any(len(group.runs) > 1 for group in groups) else ""
    figures = []
    for measure in accuracies:
        by_round = [group.series(measure) for group in groups]
        by_bytes = [group.series(measure, megabytes) for group in groups]
        for axis, by, x_label, series in (
            ("rounds", "round", "round", by_round),
            ("bytes", "traffic", "MB in all", by_bytes),
        ):
            figures.append(
                line_figure(
                    f"{measure}-{axis}",
                    f"{measure} by {by}",
                    series,
                    x_label,
                    measure,
                    top=1.0,
                    note=note,
                )
            )
    series = [group.series("cv_cumulative") for group in groups]
    label = "CV of holders, cumulated"
    even = "0 is even" + (f"; {note}" if note else "")
    figures.append(line_figure("balance", "Balance", series, "round", label, note=even))
    firsts = [group.runs[0] for group in groups]
    most = max(float(np.nan_to_num(run.load).max(initial=0)) for run in firsts)
    for index, group in enumerate(groups):
        seed = (
            f"seed {group.runs[0].settings.get('seed')}" if len(group.runs) > 1 else ""
        )
        chart = load_map(group.runs[0], most)
        figures.append(figure(f"load-{index}", f"Load: {group.name}", seed, chart))
    return "".join(figures)


def _runs(groups: Sequence[Group], accuracies: Sequence[str], folder: Path) -> str:
    """Return a row for each run, as it is at its own end."""
    rows: list[list[Cell]] = [
        [
            _link(run, folder),
            group.name,
            str(run.settings.get("seed", "–")),
            run.state,
            str(run.numbers[-1]),
            *(number(value) for _, value in headline(run, accuracies)),
        ]
        for group in groups
        for run in group.runs
    ]
    header = ("run", "settings", "seed", "state", "rounds", *accuracies, *SHORT)
    return f'<h2 id="runs">Runs, each at its own end</h2>{table(header, rows)}'


def _link(run: RunData, folder: Path) -> Cell:
    report = run.folder / FILE
    if not report.exists():
        return run.name
    return Linked(run.name, quote(Path(os.path.relpath(report, folder)).as_posix()))

"""The two pages: one run in full, and several runs side by side."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from common.files import atomic_write
from common.metrics import worst_tenth
from common.settings.sections import data_label
from server_app.report.by_class import recall_table
from server_app.report.figures import (
    FIGURES,
    line_figure,
    load_map,
    measured,
    megabytes,
)
from server_app.report.run_data import RunData
from server_app.report.style import figure, page, table, tiles
from server_app.report.svg import Series, newest, number

FILE = "report.html"
MOST_REMARKS = 50


def write_page(html: str, path: Path) -> None:
    """Write a page; half a surrogate pair in a name becomes a question mark."""
    with atomic_write(path) as file:
        file.write(html.encode("utf-8", "replace"))


def run_page(run: RunData) -> str:
    """Return the report of one run; it loads itself again until the run is over."""
    settings = run.settings
    data = data_label(settings.get("task", ""), settings.get("dataset", ""))
    title = f"{settings.get('strategy', '')} on {data}"
    cut = "devices' own data"
    if not settings.get("task"):
        cut = f"partition {settings.get('partition', '')}"
    what = (
        f"{run.name} · {cut} · seed {settings.get('seed', '')} · "
        f"round {run.numbers[-1]} of {settings.get('num-rounds', '?')}"
    )
    if run.stopped:
        what += f", stopped by {run.stopped}"
    body = (
        f'<h1>{escape(title)}</h1><p class="soft">{escape(what)}</p>'
        f"{tiles(_headline(run, measured(run)))}"
        f'<h2>Figures</h2><div class="grid">{"".join(draw(run) for draw in FIGURES)}'
        f"</div>{recall_table(run)}{_remarks(run)}{_settings(run)}"
    )
    return page(f"{title}: {run.name}", body, refresh=not run.complete)


def _headline(run: RunData, accuracies: Sequence[str]) -> list[tuple[str, str]]:
    return [
        *((m, number(newest(run.column(m)))) for m in accuracies),
        ("worst tenth, local", number(worst_tenth(run.last_clients("client_local")))),
        ("CV, cumulated", number(run.column("cv_cumulative")[-1])),
        ("CV of samples, last round", number(newest(run.column("cv_samples")))),
        ("dead placements, last round", number(newest(run.column("dead_share")))),
        ("MB in all", number(megabytes(run)[-1])),
        ("seconds in all", number(run.cumulated("seconds")[-1])),
    ]


def _remarks(run: RunData) -> str:
    found = run.remarks()
    title = '<h2 id="remarks">Rejected, relaxed, discarded</h2>'
    if not found:
        return f"{title}<p>Nothing: every reply was merged as planned.</p>"
    rows = [
        (str(len(rounds) or ""), _spans(rounds), text)
        for text, rounds in found[:MOST_REMARKS]
    ]
    rest = len(found) - MOST_REMARKS
    more = f"<p>and {rest} more in metrics.jsonl</p>" if rest > 0 else ""
    return title + table(("times", "rounds", "what and why"), rows) + more


def _spans(rounds: Sequence[int]) -> str:
    """Return rounds as ``1-3, 7``; a long list ends in an ellipsis."""
    spans: list[list[int]] = []
    for number_of in rounds:
        if spans and number_of == spans[-1][1] + 1:
            spans[-1][1] = number_of
        else:
            spans.append([number_of, number_of])
    texts = [f"{a}" if a == b else f"{a}-{b}" for a, b in spans]
    return ", ".join(texts[:6]) + (", …" if len(texts) > 6 else "")


def _settings(run: RunData) -> str:
    rows = [(key, str(value)) for key, value in sorted(run.settings.items())]
    if isinstance(versions := run.facts.get("versions"), dict):
        rows += [(f"version of {key}", str(value)) for key, value in versions.items()]
    return (
        "<details><summary>Settings and versions</summary>"
        f"{table(('setting', 'value'), rows)}</details>"
    )


def comparison_page(runs: Sequence[RunData]) -> str:
    """Return several runs side by side."""
    names = _short_names(runs)
    named = list(zip(names, runs, strict=True))

    def lines(key: str, by_traffic: bool = False) -> list[Series]:
        return [
            Series(
                name=name,
                x=megabytes(run) if by_traffic else run.numbers,
                y=run.column(key),
            )
            for name, run in named
        ]

    figures, accuracies = [], measured(*runs)
    for measure in accuracies:
        for axis, by, x_label in (
            ("rounds", "round", "round"),
            ("bytes", "traffic", "MB in all"),
        ):
            caption, series = f"{measure} by {by}", lines(measure, axis == "bytes")
            name = f"{measure}-{axis}"
            figures.append(
                line_figure(name, caption, series, x_label, measure, top=1.0)
            )
    series, y_label = lines("cv_cumulative"), "CV of holders, cumulated"
    figures.append(
        line_figure("balance", "Balance", series, "round", y_label, note="0 is even")
    )
    most = max(float(np.nan_to_num(run.load).max(initial=0)) for run in runs)
    figures += [
        figure(f"load-{index}", f"Load: {name}", "", load_map(run, most))
        for index, (name, run) in enumerate(named)
    ]
    measures = ("worst tenth", "CV cum.", "CV samples", "dead", "MB", "seconds")
    header = ("run", "rounds", *accuracies, *measures)
    rows = [
        (name, str(len(run.rounds)), *(v for _, v in _headline(run, accuracies)))
        for name, run in named
    ]
    body = (
        f"<h1>{len(runs)} runs</h1>{table(header, rows)}"
        f'<h2>Figures</h2><div class="grid">{"".join(figures)}</div>'
        f"{_differences(names, runs)}"
    )
    return page("Runs compared", body)


def _short_names(runs: Sequence[RunData]) -> list[str]:
    """Return the strategies where these tell the runs apart, else the runs' names."""
    names = [str(run.settings.get("strategy", run.name)) for run in runs]
    return names if len(set(names)) == len(names) else [run.name for run in runs]


def _differences(names: Sequence[str], runs: Sequence[RunData]) -> str:
    keys = sorted({key for run in runs for key in run.settings})
    rows = [(key, *(str(run.settings.get(key, "–")) for run in runs)) for key in keys]
    rows = [row for row in rows if len(set(row[1:])) > 1]
    found = table(("setting", *names), rows)
    return f"<h2>Settings that differ</h2>{found}" if rows else ""
